//! The terminal that `--watch` draws on: each frame over the last one in a single write, on the alternate
//! screen, so that nothing flickers and what was there before is there again in the end.

use super::words::cut;
use rustix::termios::{isatty, tcgetwinsize};
use std::io;

const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const END_LINE: &str = "\x1b[K";
const END_SCREEN: &str = "\x1b[J";

/// Where the kernel does not know.
const USUAL: (usize, usize) = (80, 24);

/// Standard output as a terminal, until it is dropped.
pub struct Screen(());

impl Screen {
    /// None: standard output is no terminal.
    pub fn enter() -> Option<Screen> {
        let terminal = isatty(rustix::stdio::stdout());
        terminal.then(|| {
            // A terminal that goes away meanwhile is noticed by the first frame.
            let _ = put(ENTER);
            Screen(())
        })
    }

    pub fn draw(&self, lines: &[String]) -> io::Result<()> {
        let size = tcgetwinsize(rustix::stdio::stdout());
        let size = size.map(|size| (size.ws_col.into(), size.ws_row.into()));
        put(&frame(lines, size.ok().filter(|(columns, rows)| columns * rows > 0).unwrap_or(USUAL)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is there any more who would see it.
        let _ = put(LEAVE);
    }
}

/// In one write, which the line buffer of `std` would cut in two.
fn put(text: &str) -> io::Result<()> {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let written = rustix::io::write(rustix::stdio::stdout(), rest)?;
        rest = &rest[written..];
    }
    Ok(())
}

/// What draws these lines on a screen of so many columns and rows. The last column stays free: a terminal may
/// begin a new line when it is filled.
fn frame(lines: &[String], (columns, rows): (usize, usize)) -> String {
    let mut text = HOME.to_owned();
    for (n, line) in lines.iter().take(rows).enumerate() {
        if n > 0 {
            text += "\r\n";
        }
        text += &cut(line, columns.saturating_sub(1));
        text += END_LINE;
    }
    text + END_SCREEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_covers_the_last_one_and_stays_within_the_screen() {
        let lines = ["队列 123".to_owned(), "b".to_owned(), "c".to_owned()];
        let drawn = frame(&lines, (7, 2));
        assert_eq!(drawn, "\x1b[H队列 1\x1b[K\r\nb\x1b[K\x1b[J");
        assert_eq!(frame(&[], (80, 24)), "\x1b[H\x1b[J");
    }
}
