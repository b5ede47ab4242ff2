//! The language of what people read on a terminal, by the environment's locale. Texts stand as pairs
//! `[english, chinese]` beside each other, where they are used. What scripts read has no language.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    English,
    Chinese,
}

impl Language {
    /// As setlocale(3) finds the locale of messages: the first of the three that is set and not empty.
    pub fn of_environment() -> Language {
        let locale = |name| std::env::var(name).unwrap_or_default();
        Language::of_locale(["LC_ALL", "LC_MESSAGES", "LANG"].map(locale))
    }

    fn of_locale(locales: [String; 3]) -> Language {
        let locale = locales.into_iter().find(|locale| !locale.is_empty()).unwrap_or_default();
        let language = locale.split(['_', '.', '@', '-']).next().unwrap_or_default();
        match language.eq_ignore_ascii_case("zh") {
            true => Language::Chinese,
            false => Language::English,
        }
    }

    /// The text of this language.
    pub fn pick<T>(self, [english, chinese]: [T; 2]) -> T {
        match self {
            Language::English => english,
            Language::Chinese => chinese,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(locales: [&str; 3]) -> Language {
        Language::of_locale(locales.map(str::to_owned))
    }

    #[test]
    fn the_first_locale_that_is_set_decides() {
        use Language::{Chinese, English};
        for (locales, language) in [
            (["", "", ""], English),
            (["", "", "zh_CN.UTF-8"], Chinese),
            (["", "zh_TW", "en_US.UTF-8"], Chinese),
            (["", "en_US.UTF-8", "zh_CN.UTF-8"], English),
            (["C", "zh_CN", "zh_CN.UTF-8"], English),
            (["zh", "C", "C"], Chinese),
            (["ZH-hans", "", ""], Chinese),
            (["zhuang", "", ""], English),
        ] {
            assert_eq!(of(locales), language, "{locales:?}");
            assert_eq!(language.pick([English, Chinese]), language);
        }
    }
}
