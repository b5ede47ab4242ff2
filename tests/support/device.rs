//! Filesystems of their own, that run full. Only root can make them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A filesystem in memory.
pub struct Small(PathBuf);

impl Small {
    pub fn mount(at: &Path, size: &str) -> Small {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .output()
            .unwrap();
        assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
        Small(at.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
