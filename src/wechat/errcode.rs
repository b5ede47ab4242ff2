//! What WeChat's answers mean for a message: one table from errcode to class, which the section
//! `[errcode]` of the configuration overrides. Pure data.
//!
//! Source: WeChat's documents of the template message and subscription message interfaces and of
//! the global return codes, and what SDKs and operators report of them.

use std::collections::HashMap;

pub use crate::class::Class;

/// Sent already within the last 60 seconds: counted apart from an ordinary success.
pub const DUPLICATE: i64 = 40241;
/// The account's calls for the day are used up.
pub const DAILY_QUOTA: i64 = 45009;
/// The operator must confirm the address in the WeChat console; asking again within an hour, or a
/// day, is punished.
pub const CONFIRM_WITHIN_DAY: i64 = 89506;
pub const CONFIRM_WITHIN_HOUR: i64 = 89507;

#[rustfmt::skip]
const TABLE: [(Class, &[i64]); 7] = [
    (Class::Ok, &[0, DUPLICATE]),
    (Class::Token, &[40001, 40014, 41001, 42001]),
    (Class::Later, &[-1, 61450, 61503]),
    (Class::Rate, &[DAILY_QUOTA, 45011, 45047, 45102, 43100]),
    (Class::OpenidRate, &[43117]),
    (Class::Permanent, &[
        40003, 40033, 40034, 40035, 40036, 40038, 40039, 40097, 40165, 40166, 40173, 40249,
        41009, 41011, 41028, 41030, 43004, 43019, 43116, 44002, 45002, 45012, 45013, 45014, 45015,
        46004, 47001, 47002, 47003, 48002, 48011, 50005, 61451,
    ]),
    (Class::Config, &[
        40002, 40013, 40066, 40125, 40164, 40243, 41002, 41004, 43001, 43002, 43003, 43102, 43104,
        43106, 45103, 45109, 48001, 48004, 48008, 48009, 50001, 50002, 50003, 50004, 61003, 61004,
        61005, 61006, 61007, 61014, 61015, 61016, 61017, 61023, 89501, 89502, 89503, 89504, 89505,
        CONFIRM_WITHIN_DAY, CONFIRM_WITHIN_HOUR,
    ]),
];

/// The table with the configuration's overrides.
pub struct Errcodes(HashMap<i64, Class>);

impl Errcodes {
    pub fn new(overrides: &[(i64, Class)]) -> Errcodes {
        let listed = TABLE.iter().flat_map(|(class, codes)| codes.iter().map(|c| (*c, *class)));
        Errcodes(listed.chain(overrides.iter().copied()).collect())
    }

    /// Codes that nobody has listed (40037 and 43101, which may pass, are among them) are tried
    /// once more.
    pub fn class(&self, errcode: i64) -> Class {
        self.0.get(&errcode).copied().unwrap_or(Class::Once)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_stands_in_two_classes() {
        let listed: usize = TABLE.iter().map(|(_, codes)| codes.len()).sum();
        assert_eq!(Errcodes::new(&[]).0.len(), listed);
    }

    #[test]
    fn an_override_wins_and_unknown_codes_are_tried_once_more() {
        let errcodes = Errcodes::new(&[(43004, Class::Later)]);
        assert_eq!(errcodes.class(43004), Class::Later);
        assert_eq!(errcodes.class(43101), Class::Once);
        assert_eq!(errcodes.class(12345), Class::Once);
        assert_eq!(errcodes.class(40013), Class::Config);
    }
}
