//! The metrics that every exporter has of its own process, under their usual names: from /proc, by the
//! metrics thread, each time they are asked for.

use super::text::Text;
use nix::sys::resource::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

pub fn add(text: &mut Text) {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    text.counter("process_cpu_seconds_total", "Processor time used, in the kernel and outside.")
        .value(cpu);
    text.gauge("process_start_time_seconds", "When the process started, in Unix time.")
        .value(crate::clock::started());
    // Where /proc is not mounted these are missing rather than wrong.
    if let Some((virtual_memory, resident)) = memory() {
        text.gauge("process_virtual_memory_bytes", "Address space.").value(virtual_memory);
        text.gauge("process_resident_memory_bytes", "Memory, mapped files that are used included.")
            .value(resident);
    }
    if let Some(open) = entries("/proc/self/fd") {
        // The folder itself is one of them.
        text.gauge("process_open_fds", "Open descriptors.").value(open.saturating_sub(1));
    }
    if let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        text.gauge("process_max_fds", "Descriptors that may be open.").value(limit);
    }
    if let Some(threads) = entries("/proc/self/task") {
        text.gauge("process_threads", "Threads.").value(threads);
    }
}

fn entries(folder: &str) -> Option<usize> {
    Some(std::fs::read_dir(folder).ok()?.count())
}

/// Bytes of address space, and of memory.
fn memory() -> Option<(u64, u64)> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = pages.split(' ').map(|pages| pages.parse::<u64>().ok());
    let page = rustix::param::page_size() as u64;
    Some((pages.next()?? * page, pages.next()?? * page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_this_process_is_plausible() {
        let mut text = Text::default();
        add(&mut text);
        let text = text.finish();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
        };
        let (space, memory) =
            (value("process_virtual_memory_bytes"), value("process_resident_memory_bytes"));
        assert!(space > memory && memory > 1e6, "{text}");
        assert!(value("process_open_fds") >= 3.0 && value("process_threads") >= 2.0, "{text}");
        assert!(value("process_max_fds") >= value("process_open_fds"), "{text}");
        let age = crate::clock::unix_seconds() as f64 - value("process_start_time_seconds");
        assert!((-1.0..3_600.0).contains(&age), "{age}");
        assert!(value("process_cpu_seconds_total") > 0.0, "{text}");
    }
}
