//! Orders of administrators as they come over the socket: what they mean, or why they mean nothing. Carries
//! out the one that concerns no other thread.

use crate::config::{Level, Named};
use crate::logger;
use crate::queue::Purpose;
use crate::traffic::steer::{Cancel, LogLevel, Steering};

/// Bytes of a key or of the beginning of an openid: orders are kept until they are carried out.
const LONGEST: usize = 1024;

/// The body of the question `cancel`.
pub fn cancelling(body: &[u8]) -> Result<Steering, String> {
    let Cancel { which, dry_run, number } =
        serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if let Some(number) = number {
        return Ok(Steering::Progress(number));
    }
    if which.is_any() {
        return Err("nothing says which messages".into());
    }
    if which.has_empty() {
        return Err("a key or an openid is empty, which would mean all of them".into());
    }
    let longest = [&which.key, &which.openid].into_iter().flatten().map(|text| text.len()).max();
    if longest > Some(LONGEST) {
        return Err(format!("a key or an openid has at most {LONGEST} bytes"));
    }
    let purpose = if dry_run { Purpose::Count } else { Purpose::End };
    Ok(Steering::Cancel { which, purpose })
}

/// The body of the question `log-level`: it holds until a restart or a reload. Returns how it was, as JSON.
pub fn log_level(body: &[u8], by: &str) -> Result<String, String> {
    let LogLevel { level } = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut names = Level::NAMES.iter();
    let found = names.find(|(name, _)| name.eq_ignore_ascii_case(&level));
    let (name, wanted) = found.ok_or_else(|| format!("{level} is no level"))?;
    let before = logger::level();
    let tell = || crate::notice!("log_level is {name} until a restart or reload, by {by}");
    // In the log that shows more of the two.
    if (*wanted as u8) < before as u8 {
        logger::set_level(*wanted);
        tell();
    } else {
        tell();
        logger::set_level(*wanted);
    }
    Ok(serde_json::json!({ "level": before.name() }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_to_cancel_says_which_messages() {
        for empty in ["{}", r#"{"which":{}}"#, r#"{"dry_run":true}"#] {
            assert_eq!(cancelling(empty.as_bytes()), Err("nothing says which messages".into()));
        }
        for wrong in ["", "[]", r#"{"which":{"kye":"k"}}"#, r#"{"which":{"since":-1}}"#] {
            assert!(cancelling(wrong.as_bytes()).is_err(), "{wrong}");
        }
        for all in [r#"{"openid":""}"#, r#"{"key":""}"#, r#"{"openid":"","key":"k"}"#] {
            for dry_run in [false, true] {
                let body = format!(r#"{{"which":{all},"dry_run":{dry_run}}}"#);
                assert!(cancelling(body.as_bytes()).unwrap_err().contains("is empty"), "{body}");
            }
        }
        let order = cancelling(br#"{"which":{"key":"k"},"dry_run":true}"#);
        assert!(matches!(order, Ok(Steering::Cancel { purpose: Purpose::Count, .. })), "{order:?}");
        let long = format!(r#"{{"which":{{"openid":"{}"}}}}"#, "o".repeat(LONGEST + 1));
        assert!(cancelling(long.as_bytes()).is_err());
        let order = cancelling(br#"{"which":{"openid":"o"}}"#);
        assert!(matches!(order, Ok(Steering::Cancel { purpose: Purpose::End, .. })), "{order:?}");
        assert_eq!(cancelling(br#"{"number":7}"#), Ok(Steering::Progress(7)));
    }
}
