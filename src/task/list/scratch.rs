//! Files for what does not fit into memory while a list is read. They have no name: nothing is left of them after a
//! crash.

use std::fs::{self, File};
use std::io;
use std::path::Path;

pub fn file(folder: &Path) -> io::Result<File> {
    let path = folder.join("list.scratch");
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}
