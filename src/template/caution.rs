//! What is doubtful about a template's text: told when it is put into the database and when it is loaded. Pure, on any
//! thread. It looks at the text with every placeholder filled, once in one way and once in another: what is the same in
//! both is fixed, and what is not depends on the data. It refuses nothing.

use super::render::Template;
use super::unfit::{NAME_MAX, cut, told};
use serde_json::Value;
use std::collections::BTreeMap;

/// So many keys are named in a line of the log.
const KEYS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caution {
    NotJson,
    Outside,
    NoTouser,
    FixedTouser,
    NoTemplateId,
    OpenTemplateId,
    OpenName,
    FixedId,
    Obsolete,
}

impl Caution {
    /// In English and in Chinese.
    pub fn texts(self) -> [&'static str; 2] {
        match self {
            Caution::NotJson => [
                "the text is no JSON object once its variables are filled: WeChat refuses it",
                "变量代入后不是 JSON 对象：微信会拒绝",
            ],
            Caution::Outside => [
                "placeholders outside JSON strings: a value can add members to the message",
                "占位符不在 JSON 字符串内：变量的值可以给消息加入别的成员",
            ],
            Caution::NoTouser => {
                ["no touser: WeChat refuses the message", "缺少 touser：微信会拒绝"]
            }
            Caution::FixedTouser => [
                "a fixed touser: everybody's message goes to one user",
                "touser 是固定的：所有人的消息都会发给同一个用户",
            ],
            Caution::NoTemplateId => {
                ["no template_id: WeChat refuses the message", "缺少 template_id：微信会拒绝"]
            }
            Caution::OpenTemplateId => [
                "a placeholder in template_id: a value decides which template is sent",
                "template_id 中有占位符：由变量的值决定发送哪个模板",
            ],
            Caution::OpenName => [
                "a placeholder in a member's name: a value decides what is set",
                "成员名中有占位符：由变量的值决定设置哪个成员",
            ],
            Caution::FixedId => [
                "a client_msg_id without a variable: WeChat drops all but a user's first message as repeats",
                "client_msg_id 中没有变量：每个用户第一条之后的消息都会被微信当作重复而丢弃",
            ],
            Caution::Obsolete => [
                "first or remark in data: WeChat shows them no more since 2023",
                "data 中有 first 或 remark：微信自 2023 年起不再显示",
            ],
        }
    }
}

/// A caution, and what it is about in this text; empty where there is nothing to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    pub caution: Caution,
    pub detail: String,
}

/// Everything that is doubtful about one template, each thing once.
pub fn doubts(template: &Template) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    let mut add = |caution, detail: String| doubts.push(Doubt { caution, detail });
    let outside = told(template.outside());
    if !outside.is_empty() {
        add(Caution::Outside, outside);
    }
    let message = match read(&template.sample(b'1', b'1')) {
        Ok(message) => message,
        Err(why) => {
            add(Caution::NotJson, why);
            return doubts;
        }
    };
    // Digits instead of other digits keep a text JSON.
    let to_others = read(&template.sample(b'2', b'2')).unwrap_or_default();
    match text(&message, "touser") {
        None => add(Caution::NoTouser, String::new()),
        Some(touser) if message["touser"] == to_others["touser"] => {
            add(Caution::FixedTouser, quoted(touser));
        }
        Some(_) => {}
    }
    match text(&message, "template_id") {
        None => add(Caution::NoTemplateId, String::new()),
        Some(_) if message["template_id"] != to_others["template_id"] => {
            add(Caution::OpenTemplateId, String::new());
        }
        Some(_) => {}
    }
    if !same_names(&message, &to_others) {
        add(Caution::OpenName, String::new());
    }
    if let Some(id) = message.get("client_msg_id") {
        // WeChat knows a repeat by openid and client_msg_id together.
        let of_others = read(&template.sample(b'1', b'2')).unwrap_or_default();
        if *id == of_others["client_msg_id"] {
            add(Caution::FixedId, String::new());
        }
    }
    let obsolete =
        ["first", "remark"].into_iter().filter(|name| message["data"].get(name).is_some());
    let obsolete: Vec<&str> = obsolete.collect();
    if !obsolete.is_empty() {
        add(Caution::Obsolete, obsolete.join(", "));
    }
    doubts
}

/// The message, or why it is none.
fn read(sample: &[u8]) -> Result<Value, String> {
    match serde_json::from_slice(sample) {
        Ok(message @ Value::Object(_)) => Ok(message),
        Ok(_) => Err("it is another JSON value".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn text<'m>(message: &'m Value, name: &str) -> Option<&'m str> {
    message[name].as_str().filter(|text| !text.is_empty())
}

fn quoted(text: &str) -> String {
    let (shown, end) = cut(text, NAME_MAX);
    format!("\"{}{end}\"", shown.escape_debug())
}

/// serde_json has bounded the depth.
fn same_names(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|((a, one), (b, other))| a == b && same_names(one, other))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.iter().zip(other).all(|(one, other)| same_names(one, other))
        }
        _ => true,
    }
}

/// The doubts about all templates, summed up for the log: a line for each caution.
#[derive(Default)]
pub struct Summary(BTreeMap<Caution, (usize, Vec<String>)>);

impl Summary {
    pub fn add(&mut self, key: &str, template: &Template) {
        for Doubt { caution, .. } in doubts(template) {
            let (count, keys) = self.0.entry(caution).or_default();
            *count += 1;
            if keys.len() < KEYS {
                keys.push(quoted(key));
            }
        }
    }

    pub fn lines(self) -> impl Iterator<Item = String> {
        self.0.into_iter().map(|(caution, (count, keys))| {
            let more = match count - keys.len() {
                0 => String::new(),
                more => format!(" and {more} more (see template check)"),
            };
            let noun = if count == 1 { "template" } else { "templates" };
            format!("{noun} {}{more}: {}", keys.join(", "), caution.texts()[0])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::render::Filling;
    use super::*;

    fn compiled(text: &str) -> Template {
        Template::compile(text, Filling::DEFAULT)
    }

    fn found(text: &str) -> Vec<(Caution, String)> {
        doubts(&compiled(text)).into_iter().map(|doubt| (doubt.caution, doubt.detail)).collect()
    }

    fn cautions(text: &str) -> Vec<Caution> {
        found(text).into_iter().map(|(caution, _)| caution).collect()
    }

    /// A template without fault, with these members more.
    fn with(members: &str) -> String {
        format!(r#"{{"touser":"${{OPENID}}","template_id":"t",{members}"data":{{}}}}"#)
    }

    #[test]
    fn a_template_as_it_should_be_is_above_doubt() {
        for text in [
            &*with(r#""url":"http://x/${a}?b=${b}","topcolor":"\"${c}\"","#),
            r#"{"touser":"${to}","template_id":"t","data":{"character_string2":{"value":"${a}${b}"}}}"#,
            r#"{"touser":"x${OPENID}","template_id":"t","client_msg_id":"m${n}"}"#,
            r#"{"touser":"${OPENID}","template_id":"t","first":1,"list":["${a}",["${b}"],{"c":"${d}"}]}"#,
        ] {
            assert_eq!(cautions(text), [], "{text}");
        }
    }

    #[test]
    fn each_doubt_is_told_by_what_it_is_about() {
        for (text, caution, detail) in [
            (with(r#""n":${n},"m":${OPENID},"o":${n},"#), Caution::Outside, "${n}, ${OPENID}"),
            (with(r#""a":"\\${x}","b":"\\",${y}:1,"#), Caution::Outside, "${y}"),
            (r#"{"template_id":"t"}"#.into(), Caution::NoTouser, ""),
            (r#"{"touser":"","template_id":"t"}"#.into(), Caution::NoTouser, ""),
            (r#"{"touser":7,"template_id":"t"}"#.into(), Caution::NoTouser, ""),
            (r#"{"touser":"o1","template_id":"t"}"#.into(), Caution::FixedTouser, "\"o1\""),
            (r#"{"touser":"${OPENID}","template_id":""}"#.into(), Caution::NoTemplateId, ""),
            (r#"{"touser":"${OPENID}"}"#.into(), Caution::NoTemplateId, ""),
            (r#"{"touser":"${OPENID}","template_id":"t${a}"}"#.into(), Caution::OpenTemplateId, ""),
            (
                r#"{"touser":"${OPENID}","template_id":"${OPENID}"}"#.into(),
                Caution::OpenTemplateId,
                "",
            ),
            (with(r#""${name}":1,"#), Caution::OpenName, ""),
            (with(r#""list":[1,[{"a${OPENID}":1}]],"#), Caution::OpenName, ""),
            (with(r#""client_msg_id":"1","#), Caution::FixedId, ""),
            (with(r#""client_msg_id":null,"#), Caution::FixedId, ""),
            (with(r#""client_msg_id":"m-${OPENID}","#), Caution::FixedId, ""),
            (
                r#"{"touser":"${OPENID}","template_id":"t","data":{"remark":1,"first":2}}"#.into(),
                Caution::Obsolete,
                "first, remark",
            ),
        ] {
            let found = found(&text);
            assert!(found.contains(&(caution, detail.to_owned())), "{text}: {found:?}");
            // `${y}:1` is a name that is no string.
            assert!(found.len() == 1 || text.contains("${y}"), "{text}: {found:?}");
        }
    }

    #[test]
    fn broken_json_is_told_with_its_place_in_the_template_itself() {
        for (text, why) in [
            (
                r#"{"touser":"${OPENID}","标题":"${a}" x}"#,
                "expected `,` or `}` at line 1 column 39",
            ),
            ("{\"a\":\"${长长的名字}\",\n}", "trailing comma at line 2 column 1"),
            ("", "EOF while parsing a value at line 1 column 0"),
            ("[1]", "it is another JSON value"),
            ("\"${a}\"", "it is another JSON value"),
        ] {
            assert_eq!(found(text), [(Caution::NotJson, why.to_owned())], "{text}");
        }
        let found = found("{\"a\":${a},${b}}");
        assert_eq!(found[0], (Caution::Outside, "${a}, ${b}".to_owned()));
        assert_eq!(found[1].0, Caution::NotJson);
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn hostile_texts_are_looked_at_without_harm() {
        for text in [
            "${".repeat(2_000),
            "{".repeat(100_000),
            "[".repeat(100_000),
            r#"{"a":"#.repeat(50_000),
            "${a".repeat(1_000) + "}",
            format!("{{\"a\":${{{}}}}}", "名".repeat(20_000)),
            format!("{{\"touser\":\"{}\"}}", "\\u001b\\n".repeat(5_000)),
            "{\"a\":\"\\".to_owned(),
            "\u{0}\u{1b}[2J${\u{7}}".to_owned(),
        ] {
            for (_, detail) in found(&text) {
                assert!(detail.len() < 700 && !detail.contains(char::is_control), "{detail}");
            }
        }
    }

    #[test]
    fn the_log_has_a_line_for_each_caution_however_many_templates_there_are() {
        let mut summary = Summary::default();
        let fixed = compiled(r#"{"touser":"o1","template_id":"t"}"#);
        for key in ["a", "b", "c\u{1b}[2J", "d", "e"] {
            summary.add(key, &fixed);
        }
        summary.add("f", &compiled("{}"));
        let lines: Vec<String> = summary.lines().collect();
        assert_eq!(
            lines,
            [
                "template \"f\": no touser: WeChat refuses the message",
                "templates \"a\", \"b\", \"c\\u{1b}[2J\" and 2 more (see template check): a fixed \
                 touser: everybody's message goes to one user",
                "template \"f\": no template_id: WeChat refuses the message",
            ]
        );
    }
}
