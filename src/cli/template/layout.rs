//! A template's text with one member a line, so that a comparison shows the members that differ. It goes by the
//! punctuation outside of strings and placeholders, whether the text is JSON or not. Pure.

/// The deepest indentation: what is nested deeper costs no more room.
const INDENTED: usize = 16;

pub fn laid_out(text: &str) -> String {
    let mut page = Page { out: String::with_capacity(text.len() * 2), depth: 0 };
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let length = match character {
            '"' => string(rest),
            '$' if rest.starts_with("${") => rest.find('}').map_or(1, |end| end + 1),
            _ => character.len_utf8(),
        };
        let token;
        (token, rest) = rest.split_at(length);
        page.add(token);
    }
    page.out.push('\n');
    page.out
}

/// The length of the string that `text` begins with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

struct Page {
    out: String,
    depth: usize,
}

impl Page {
    fn add(&mut self, token: &str) {
        match token {
            "{" | "[" => {
                self.out += token;
                self.depth += 1;
                self.new_line();
            }
            "}" | "]" => {
                self.depth = self.depth.saturating_sub(1);
                self.new_line();
                self.out += token;
            }
            "," => {
                self.out += token;
                self.new_line();
            }
            ":" => self.out += ": ",
            " " | "\t" | "\n" | "\r" => {}
            _ => self.out += token,
        }
    }

    fn new_line(&mut self) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n("  ", self.depth.min(INDENTED)));
    }
}

#[cfg(test)]
mod tests {
    use super::laid_out;

    #[test]
    fn each_member_has_a_line_and_white_space_says_nothing() {
        let text = r#"{"a":"x, {y} \" :","b":{"c":[1,${d}]}, "e" : ${f,}}"#;
        let lines = "{\n  \"a\": \"x, {y} \\\" :\",\n  \"b\": {\n    \"c\": [\n      1,\n      ${d}\n    ]\n  },\n  \"e\": ${f,}\n}\n";
        assert_eq!(laid_out(text), lines);
        assert_eq!(laid_out(lines), lines);
    }

    #[test]
    fn a_text_that_is_no_json_keeps_all_but_its_white_space() {
        for text in ["", "\"", "\"\\", "${", "${a", "}}]]", "标题\"中\\\"", "a\u{1b}[2J"] {
            let kept: String =
                laid_out(text).chars().filter(|c| !matches!(c, ' ' | '\n')).collect();
            assert_eq!(kept, text);
        }
        let deep = laid_out(&"{".repeat(100_000));
        assert!(deep.len() < 100_000 * 40);
    }
}
