//! What commands print.

/// `println!` for a reader who may have seen enough, as `head` has: the command does its work all
/// the same.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}
