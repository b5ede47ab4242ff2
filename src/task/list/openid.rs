//! What an openid may be: what a word of the protocol can carry, and what no list has between its words. Whether
//! WeChat knows it is WeChat's to say.

use super::error::{Fault, LONGEST};

/// What stands between the fields of a list.
pub const SEPARATORS: [char; 3] = [',', ';', '\t'];

/// Why it is none.
pub fn check(openid: &str) -> Result<(), Fault> {
    if openid.is_empty() {
        return Err(Fault::NoOpenid);
    }
    let strange = |c: &char| {
        c.is_whitespace()
            || c.is_control()
            || SEPARATORS.contains(c)
            || *c == '"'
            || *c == '\u{fffd}'
    };
    if let Some(character) = openid.chars().find(strange) {
        return Err(Fault::Character(character));
    }
    match openid.len() <= LONGEST {
        true => Ok(()),
        false => Err(Fault::LongOpenid(openid.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_openid_is_one_word_of_bounded_length() {
        let longest = "o".repeat(LONGEST);
        for good in ["o", "oABC-_123", &longest] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        assert_eq!(check(""), Err(Fault::NoOpenid));
        assert_eq!(check(&"o".repeat(129)), Err(Fault::LongOpenid(129)));
        for bad in ['\0', ' ', '\u{a0}', '\u{3000}', '\u{7f}', ',', ';', '\t', '"', '\u{fffd}'] {
            assert_eq!(check(&format!("o{bad}1")), Err(Fault::Character(bad)));
        }
    }
}
