//! A trial in a process of its own: it may become another user, and is killed at its deadline. What it has
//! found until then comes over a pipe, a JSON line each. To be used while there are no other threads.

use super::{Finding, Level, Step, Trial, plain};
use nix::unistd::{ForkResult, fork};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

#[derive(Serialize, Deserialize)]
enum Line {
    /// What comes next is about this.
    Step(String),
    Found(Finding),
    Done,
}

/// How the child tells what it finds.
pub struct Report(File);

impl Report {
    pub fn take(&mut self, step: &Step, trial: &Trial) {
        self.say(&Line::Step(step.subject.to_owned()));
        let findings = (step.run)(trial);
        // A warning beside the subject leaves it good.
        let concerns =
            |finding: &Finding| finding.level == Level::Wrong || finding.subject == step.subject;
        if !findings.iter().any(concerns) {
            self.found(vec![Finding::ok(step.subject, step.good)]);
        }
        self.found(findings);
    }

    pub fn found(&mut self, findings: Vec<Finding>) {
        findings.into_iter().for_each(|finding| self.say(&Line::Found(finding)));
    }

    fn say(&mut self, line: &Line) {
        let text = serde_json::to_string(line).unwrap_or_default();
        // A parent that is gone needs no news.
        let _ = writeln!(self.0, "{text}");
    }
}

/// Runs `trial` in a child; what hinders that is a finding, too.
pub fn run(patience: Duration, trial: impl FnOnce(&mut Report)) -> Vec<Finding> {
    let failed = |error: std::io::Error| {
        let todo = ["try again", "请重试"];
        vec![Finding::wrong("trial", plain(format!("cannot be tried: {error}")), todo)]
    };
    let (reader, writer) = match pipe_with(PipeFlags::CLOEXEC) {
        Ok((reader, writer)) => (File::from(reader), File::from(writer)),
        Err(error) => return failed(error.into()),
    };
    // SAFETY: there is no other thread that could hold a lock which the child would wait for.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            drop(reader);
            let mut report = Report(writer);
            // A panic has been printed, and its step is left open.
            if catch_unwind(AssertUnwindSafe(|| trial(&mut report))).is_ok() {
                report.say(&Line::Done);
            }
            // SAFETY: it ends the process at once; what the parent would do at its end is not done twice.
            unsafe { nix::libc::_exit(0) }
        }
        Ok(ForkResult::Parent { child }) => {
            drop(writer);
            let said = listen(reader, Instant::now() + patience);
            if let Some(pid) = Pid::from_raw(child.as_raw()) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
                let _ = waitpid(Some(pid), WaitOptions::empty());
            }
            understand(&said, patience)
        }
        Err(error) => failed(error.into()),
    }
}

/// What is said until the end or the deadline.
fn listen(mut reader: File, deadline: Instant) -> Vec<u8> {
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
        match poll(&mut [PollFd::new(&reader, PollFlags::IN)], left.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(1..) => {}
            Ok(0) | Err(_) => return said,
        }
        match reader.read(&mut chunk) {
            Ok(count @ 1..) => said.extend_from_slice(&chunk[..count]),
            Ok(0) | Err(_) => return said,
        }
    }
}

fn understand(said: &[u8], patience: Duration) -> Vec<Finding> {
    let (mut findings, mut open) = (Vec::new(), Some("trial".to_owned()));
    for line in
        said.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
    {
        match line {
            Line::Step(subject) => open = Some(subject),
            Line::Found(finding) => findings.push(finding),
            Line::Done => open = None,
        }
    }
    findings.extend(open.map(|subject| {
        let what = [
            format!("the trial of it did not end within {patience:?}"),
            format!("在 {patience:?} 内未能检查完"),
        ];
        let todo = [
            "see whether the disk, the network or the database it needs answers at all",
            "检查所需的磁盘、网络或数据库是否有响应",
        ];
        Finding::wrong(subject, what, todo)
    }));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_before_the_end_counts_and_the_step_that_hung_is_named() {
        let found = Finding::ok("a.b", ["fine", "好"]);
        let lines =
            [Line::Step("a.b".into()), Line::Found(found.clone()), Line::Step("c.d".into())];
        let mut said: Vec<String> =
            lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
        said.push(r#"{"Found":{"lev"#.into());
        let patience = Duration::from_secs(9);
        let findings = understand(said.join("\n").as_bytes(), patience);
        assert_eq!(findings[0], found);
        assert_eq!(findings[1].subject, "c.d");
        assert!(findings[1].what[0].contains("within 9s"), "{findings:?}");
        said[3] = serde_json::to_string(&Line::Done).unwrap();
        assert_eq!(understand(said.join("\n").as_bytes(), patience), [found]);
        assert_eq!(understand(b"", patience)[0].subject, "trial");
    }
}
