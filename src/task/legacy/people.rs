//! Who a row of `mega_task` means: lines of its file, or of `mega_user`. Where the file itself is not the list, a
//! list is written whose lines have the numbers of the file's.

use super::table::{Row, Table, To};
use crate::task::exit::Refused;
use crate::task::list::{Keeper, Kept, Lines};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// uids that are looked up at once.
const BATCH: usize = 500;

/// Where the list is, and which uids of the file nobody has.
pub struct Gathered {
    pub path: PathBuf,
    pub strangers: u64,
    /// A line for each of the first of them.
    pub told: Vec<String>,
}

/// How the row was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Fresh,
    /// The demo has sent to the last so many lines, and to nobody else.
    LastDone(u64),
    /// mega-task has sent to those of the first so many lines; whoever takes the list in leaves them out.
    FirstDone(u64),
}

/// `file`: the row's; `folder`: where a list may be written.
pub fn gather(
    row: &Row,
    left: Left,
    table: &mut Table,
    file: &Path,
    folder: &Path,
) -> Result<Gathered, Refused> {
    let path = folder.join("people");
    let none = |path| Gathered { path, strangers: 0, told: Vec::new() };
    match (row.to, left) {
        (To::Openids, Left::Fresh | Left::FirstDone(_)) => Ok(none(file.to_owned())),
        (To::Everybody, Left::Fresh) => {
            let mut list = List::create(&path)?;
            table.everybody(|openid| list.line(openid))?;
            list.finish()?;
            Ok(none(path))
        }
        (To::Everybody, Left::LastDone(_) | Left::FirstDone(_)) => Err(Refused::unfit([
            "which users were sent to cannot be told from the row: the table of users has changed since (with the \
                 --home of the mega-task that had the row it goes on)",
            "用户表可能已变化，仅凭该行无法判断哪些用户已发送（若原由 mega-task 发送，用当时的 --home 可继续）",
        ])),
        (to, left) => {
            let last = match left {
                Left::Fresh | Left::FirstDone(_) => u64::MAX,
                Left::LastDone(done) => first_undone(file, done)?,
            };
            Ok(copy(file, last, to, table, &path)?)
        }
    }
}

/// Those whose line is one of the first so many are no more in the list that `folder` keeps; how many they were.
pub fn leave_out(folder: &Path, lines: u64) -> io::Result<u64> {
    let (mut all, mut rest) = (Kept::open(folder, 0)?, Keeper::create(folder)?);
    let mut count = 0;
    while let Some(person) = all.person()? {
        match person.line <= lines {
            true => count += 1,
            false => rest.keep(&person)?,
        }
    }
    rest.finish()?;
    Ok(count)
}

/// So many lines that are not blank come before those that are done.
fn first_undone(file: &Path, done: u64) -> Result<u64, String> {
    let (mut lines, mut count) = (open(file)?, 0);
    while let Some(line) = lines.next().map_err(|error| error.to_string())? {
        count += u64::from(!line.trim().is_empty());
    }
    let (file, behind) =
        (file.display(), "the row says that more are done: correct its file_index");
    count.checked_sub(done).ok_or_else(|| format!("{file} has {count} lines, and {behind}"))
}

/// Writes the first `count` lines that are not blank as a list; a uid becomes its openid.
fn copy(
    file: &Path,
    count: u64,
    to: To,
    table: &mut Table,
    path: &Path,
) -> Result<Gathered, String> {
    let mut lines = open(file)?;
    let mut list = List::create(path)?;
    let mut gathered = Gathered { path: path.to_owned(), strangers: 0, told: Vec::new() };
    let (mut batch, mut left, mut first) = (Vec::new(), count, 1);
    loop {
        let line = match left {
            0 => None,
            _ => {
                lines.next().map_err(|error| error.to_string())?.map(|line| line.trim().to_owned())
            }
        };
        let ended = line.is_none();
        if let Some(line) = line {
            left -= u64::from(!line.is_empty());
            batch.push(line);
        }
        if batch.len() == BATCH || ended {
            if to == To::Uids {
                look_up(&mut batch, first, table, &mut gathered)?;
            }
            batch.iter().try_for_each(|line| list.line(line))?;
            first += batch.len() as u64;
            batch.clear();
        }
        if ended {
            list.finish()?;
            return Ok(gathered);
        }
    }
}

/// Each uid becomes its openid; one that nobody has becomes a blank line, and is told. `first` is the first line's
/// number.
fn look_up(
    uids: &mut [String],
    first: u64,
    table: &mut Table,
    gathered: &mut Gathered,
) -> Result<(), String> {
    let wanted: Vec<String> = uids.iter().filter(|uid| !uid.is_empty()).cloned().collect();
    let known: std::collections::HashMap<_, _> = table.openids(&wanted)?.into_iter().collect();
    for (number, uid) in (first..).zip(uids) {
        match known.get(uid) {
            Some(openid) => uid.clone_from(openid),
            None if uid.is_empty() => {}
            None => {
                gathered.strangers += 1;
                if gathered.told.len() < crate::task::list::FEW {
                    gathered
                        .told
                        .push(format!("line {number}: no openid of uid {uid} in mega_user"));
                }
                uid.clear();
            }
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<Lines, String> {
    let file = File::open(path);
    let file = file.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Lines::open(file, path).map_err(|error| error.to_string())
}

/// A list that is being written.
struct List {
    file: BufWriter<File>,
    path: PathBuf,
}

impl List {
    fn create(path: &Path) -> Result<List, String> {
        match File::create(path) {
            Ok(file) => Ok(List { file: BufWriter::new(file), path: path.to_owned() }),
            Err(error) => Err(format!("cannot write {}: {error}", path.display())),
        }
    }

    fn line(&mut self, text: &str) -> Result<(), String> {
        let written =
            self.file.write_all(text.as_bytes()).and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }

    fn finish(mut self) -> Result<(), String> {
        self.file.flush().map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::table;
    use super::*;

    fn row(to: To) -> Row {
        use super::super::table::{Counts, Status};
        Row {
            key: "k".into(),
            file: "people.txt".into(),
            to,
            status: Status::Waiting,
            is_deleted: false,
            pid: 0,
            counts: Counts::default(),
            information: String::new(),
        }
    }

    #[test]
    fn each_way_to_name_people_gives_a_list_with_the_numbers_of_the_file() {
        let users = "INSERT INTO PREFIX_mega_user (uid, openid) VALUES (3, 'o3'), (1, 'o1');";
        let Some(mut table) = table("who_", users) else { return };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("people.txt");
        let mut gathered = |to, left| {
            let gathered = gather(&row(to), left, &mut table, &file, folder.path());
            gathered
                .map_err(|refused| refused.why[0].clone())
                .map(|gathered| (std::fs::read_to_string(gathered.path).unwrap(), gathered.told))
        };
        let error = gathered(To::Uids, Left::Fresh).unwrap_err();
        assert!(error.contains("cannot read") && error.contains("people.txt"), "{error}");
        std::fs::write(&file, "3\n\n9\r\n 1 \n").unwrap();
        let stranger = vec!["line 3: no openid of uid 9 in mega_user".to_owned()];
        assert_eq!(gathered(To::Uids, Left::Fresh), Ok(("o3\n\n\no1\n".into(), stranger)));
        assert_eq!(gathered(To::Uids, Left::LastDone(2)), Ok(("o3\n".into(), vec![])));
        assert_eq!(gathered(To::Everybody, Left::Fresh), Ok(("o1\no3\n".into(), vec![])));
        assert!(gathered(To::Everybody, Left::LastDone(1)).is_err());
        assert!(gathered(To::Everybody, Left::FirstDone(1)).is_err());
        std::fs::write(&file, "oa\nob\n\noc\nod\n\n").unwrap();
        let all = Ok(("oa\nob\n\noc\nod\n\n".into(), vec![]));
        assert_eq!(gathered(To::Openids, Left::Fresh), all);
        let first = Ok(("oa\nob\n\noc\n".into(), vec![]));
        assert_eq!(gathered(To::Openids, Left::LastDone(1)), first);
        assert_eq!(gathered(To::Openids, Left::LastDone(4)), Ok((String::new(), vec![])));
        let error = gathered(To::Openids, Left::LastDone(5)).unwrap_err();
        assert!(error.contains("has 4 lines"), "{error}");
    }
}
