//! What `/metrics` shows. Labels come from the program's own tables, so their number is bounded.

use super::Links;
use super::process;
use super::text::Text;
use std::sync::atomic::Ordering;

pub fn page(links: &Links) -> String {
    let mut text = Text::default();
    text.gauge("mega_build_info", "The version that runs.")
        .with(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.gauge("mega_queue_messages", "Pushes in the queue.")
        .value(links.stats.depth.load(Ordering::Relaxed));
    process::add(&mut text);
    text.finish()
}
