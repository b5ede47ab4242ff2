//! Filesystems of their own, that run full or lose blocks. Only root can make them.

use std::fs::{File, OpenOptions};
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

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(name: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(name).args(arguments).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(said)
}

/// What an `Ext4` holds, in blocks of 4 KiB: all of them in one group, so that what the filesystem
/// needs for itself is at the beginning.
const BLOCKS: u64 = 32_000;
const BLOCK: u64 = 4096;

/// An ext4 in a file, behind a loop device.
pub struct Ext4 {
    at: PathBuf,
    image: PathBuf,
    device: Option<String>,
}

impl Ext4 {
    /// None where there are no loop devices.
    pub fn mount(image: PathBuf, at: &Path) -> Option<Ext4> {
        File::create(&image).unwrap().set_len(BLOCKS * BLOCK).unwrap();
        let options = ["-q", "-b", "4096", "-O", "^has_journal", "-E", "nodiscard"];
        run("mkfs.ext4", &[&options[..], &[image.to_str()?]].concat())?;
        std::fs::create_dir_all(at).unwrap();
        let mut ext4 = Ext4 { at: at.to_owned(), image, device: None };
        ext4.attach(BLOCKS)?;
        Some(ext4)
    }

    /// Mounts it. Of its blocks those beyond `there` are lost: the device has them, the file below
    /// has not, and to read one is an I/O error.
    fn attach(&mut self, there: u64) -> Option<()> {
        let device = run("losetup", &["--find", "--show", self.image.to_str()?])?;
        let image = OpenOptions::new().write(true).open(&self.image).unwrap();
        image.set_len(there * BLOCK).unwrap();
        let device = self.device.insert(device);
        run("mount", &[device, self.at.to_str()?]).map(|_| ())
    }

    /// What the files hold in these blocks is lost. Nobody may have one open.
    pub fn lose(&mut self, blocks: &[(String, u64)]) {
        assert!(run("umount", &[self.at.to_str().unwrap()]).is_some());
        run("losetup", &["-d", &self.device.take().unwrap()]).unwrap();
        let there = BLOCKS - blocks.len() as u64;
        for ((name, block), at) in blocks.iter().zip(there..) {
            for request in [format!("bmap {name} {block} {at}"), format!("setb {at}")] {
                run("debugfs", &["-w", "-R", &request, self.image.to_str().unwrap()]).unwrap();
            }
        }
        self.attach(there).unwrap();
        for (name, block) in blocks {
            let file = File::open(self.at.join(name)).unwrap();
            let mut bytes = [0; BLOCK as usize];
            let read = std::os::unix::fs::FileExt::read_at(&file, &mut bytes, block * BLOCK);
            let error = read.expect_err("a block that cannot be read").raw_os_error();
            assert_eq!(error, Some(rustix::io::Errno::IO.raw_os_error()));
        }
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
        if let Some(device) = &self.device {
            let _ = Command::new("losetup").arg("-d").arg(device).status();
        }
    }
}
