//! The result file: CSV as spreadsheet programs open it, one line for each person who is answered. Written by the
//! clerk's thread; its length is kept in the journal (J1), and what a killed run wrote beyond that is cut off. Others
//! may remove or change it at any time: that is looked for before each block, and a new one is made of what journal and
//! list know. A file of somebody else is never written over.

mod remake;

use super::event::{Loss, Remade, Status};
use super::exit::Refused;
use super::journal::{Journal, Stage, State};
use super::plan::{Encoding, Plan};
use crate::cli::language::Language;
use encoding_rs::GBK;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const HEADER: &str = "line,openid,status,errcode,errmsg,meaning,msgid,time\r\n";

/// Excel takes a file without it for one in the machine's own encoding.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// What became of one person.
pub struct Row<'a> {
    pub line: u64,
    pub openid: &'a str,
    pub status: Status,
    pub errcode: Option<i64>,
    pub errmsg: &'a str,
    pub meaning: &'a str,
    /// RFC 3339.
    pub time: &'a str,
}

/// Appends a row; mega's answer to what was sent names no msgid, so its column stays empty.
pub fn put(out: &mut String, row: &Row) {
    write!(out, "{},", row.line).expect("invariant: writing to a String does not fail");
    cell(out, row.openid);
    out.push(',');
    out.push_str(row.status.name());
    out.push(',');
    // A number is no formula, even below zero.
    if let Some(errcode) = row.errcode {
        write!(out, "{errcode}").expect("invariant: writing to a String does not fail");
    }
    out.push(',');
    cell(out, row.errmsg);
    out.push(',');
    cell(out, row.meaning);
    out.push_str(",,");
    out.push_str(row.time);
    out.push_str("\r\n");
}

/// A cell, quoted where it must be. One that a spreadsheet program would take for a formula begins with an
/// apostrophe.
fn cell(out: &mut String, text: &str) {
    let guarded = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let quoted = text.contains(['"', ',', '\r', '\n']);
    if quoted {
        out.push('"');
    }
    if guarded {
        out.push('\'');
    }
    match quoted {
        true => {
            for piece in text.split_inclusive('"') {
                out.push_str(piece);
                if piece.ends_with('"') {
                    out.push('"');
                }
            }
            out.push('"');
        }
        false => out.push_str(text),
    }
}

/// Refuses a file that a new task would have to write over.
pub fn is_free(path: &Path) -> Result<(), Refused> {
    match path.symlink_metadata().is_ok() && !own_beginning(path) {
        true => Err(taken(path)),
        false => Ok(()),
    }
}

/// There is a file already, whose ever it is.
pub fn taken(path: &Path) -> Refused {
    let path = path.display();
    Refused::unfit([
        format!(
            "the result file {path} is there already, and is not written over (--result FILE names another)"
        ),
        format!("结果文件 {path} 已存在，不会覆盖（可用 --result FILE 另行指定）"),
    ])
}

fn unfit(path: &Path, error: &io::Error) -> Refused {
    let path = path.display();
    Refused::unfit([
        format!("cannot write the result file {path}: {error} (--result FILE names another)"),
        format!("无法写结果文件 {path}：{error}（可用 --result FILE 另行指定）"),
    ])
}

pub struct Results {
    /// Of a lost one, nothing is written any more.
    file: Result<File, Loss>,
    path: PathBuf,
    encoding: Encoding,
    bytes: u64,
    /// Where the task's list is, and the language of the column of meanings: to make a lost one anew.
    folder: PathBuf,
    language: Language,
}

impl Results {
    /// Makes the file of a new task, with its header.
    pub fn create(path: &Path, encoding: Encoding) -> Result<(), Refused> {
        is_free(path)?;
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path);
        let header = header(encoding);
        file.and_then(|mut file| file.write_all(&header)).map_err(|error| unfit(path, &error))
    }

    /// That of a task that goes on, which is in `folder`.
    pub fn take_up(
        folder: &Path,
        plan: &Plan,
        state: &State,
        language: Language,
    ) -> Result<Results, String> {
        let (path, bytes) = (&plan.result, state.result_bytes);
        let failed = |error: io::Error| unfit(path, &error).why[0].clone();
        // What is appended to a file that others shorten leaves a length that tells.
        let file = match OpenOptions::new().append(true).open(path) {
            Ok(file) => found(file, path, state).map_err(failed)?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Err(_) if bytes > 0 => Err(Loss::Nothing),
            Err(_) => {
                Ok(OpenOptions::new().append(true).create_new(true).open(path).map_err(failed)?)
            }
        };
        let (path, folder) = (path.clone(), folder.to_owned());
        let mut results = Results { file, path, encoding: plan.encoding, bytes, folder, language };
        if results.file.is_ok() {
            results.cut().map_err(failed)?;
            if bytes == 0 {
                results.write(&header(plan.encoding))?;
            }
        }
        Ok(results)
    }

    /// What is wrong with the file, if anything is.
    fn loss(&self) -> io::Result<Option<Loss>> {
        let own = match &self.file {
            Ok(file) => file.metadata()?,
            Err(loss) => return Ok(Some(*loss)),
        };
        let there = match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(Loss::Nothing));
            }
            there => there?,
        };
        Ok(match (there.dev(), there.ino()) == (own.dev(), own.ino()) {
            false => Some(Loss::Another),
            true if own.len() == self.bytes => None,
            true => Some(Loss::Size(own.len())),
        })
    }

    /// Looks whether the file is as it was left, and otherwise makes a new one; the journal knows it then.
    pub fn mend(&mut self, journal: &mut Journal) -> Result<Option<Remade>, String> {
        let loss = self.loss().map_err(|error| unfit(&self.path, &error).why[0].clone())?;
        loss.map(|loss| remake::remake(self, journal, loss)).transpose()
    }

    fn cut(&mut self) -> io::Result<()> {
        let Ok(file) = &mut self.file else { return Ok(()) };
        file.set_len(self.bytes)
    }

    /// Writes rows, and returns when they are on the disk.
    pub fn keep(&mut self, rows: &str) -> Result<(), String> {
        if rows.is_empty() {
            return Ok(());
        }
        self.write(&encode(rows, self.encoding))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Ok(file) = &mut self.file else {
            return Err(format!("the result file {} was lost", self.path.display()));
        };
        let written = file.write_all(bytes).and_then(|()| file.sync_data());
        match written {
            Ok(()) => {
                self.bytes += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // What was written of it is cut off by the next run, if not now.
                let _ = self.cut();
                Err(format!("cannot write the result file {}: {error}", self.path.display()))
            }
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The file of a task that goes on, as it was found; beyond what the journal knows there may only be rows of a run that
/// was killed.
fn found(file: File, path: &Path, state: &State) -> io::Result<Result<File, Loss>> {
    let (found, wrote) = (file.metadata()?.len(), state.result_bytes);
    Ok(match state.stage {
        _ if wrote == 0 && own_beginning(path) => Ok(file),
        _ if wrote == 0 => Err(Loss::Another),
        Stage::Running if found >= wrote => Ok(file),
        _ if found == wrote => Ok(file),
        _ => Err(Loss::Size(found)),
    })
}

fn header(encoding: Encoding) -> Vec<u8> {
    let mark = if encoding == Encoding::Utf8 { MARK } else { b"" };
    [mark, HEADER.as_bytes()].concat()
}

fn encode(rows: &str, encoding: Encoding) -> Cow<'_, [u8]> {
    match encoding {
        Encoding::Utf8 => Cow::Borrowed(rows.as_bytes()),
        Encoding::Gbk => encode_gbk(rows),
    }
}

/// Characters that GBK lacks become question marks: a number would be taken for what WeChat said.
fn encode_gbk(text: &str) -> Cow<'_, [u8]> {
    let (bytes, _, lossy) = GBK.encode(text);
    if !lossy {
        return bytes;
    }
    let has = |c: char| !GBK.encode(c.encode_utf8(&mut [0; 4])).2;
    let plain: String = text.chars().map(|c| if has(c) { c } else { '?' }).collect();
    GBK.encode(&plain).0.into_owned().into()
}

/// A file that holds no more than the header: a run that was killed before its first answer.
fn own_beginning(path: &Path) -> bool {
    let header = HEADER.as_bytes();
    let longest = (MARK.len() + header.len()) as u64;
    crate::file::read(path, longest).is_ok_and(|found| {
        [MARK, header].concat().starts_with(&found) || header.starts_with(&found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(errcode: Option<i64>, openid: &str, errmsg: &str) -> String {
        let mut out = String::new();
        let status = if errcode.is_some() { Status::Failed } else { Status::Sent };
        let (meaning, time) = ("含义", "2026-11-11T00:00:00+08:00");
        put(&mut out, &Row { line: 7, openid, status, errcode, errmsg, meaning, time });
        out
    }

    #[test]
    fn no_cell_is_taken_for_a_formula_or_for_two() {
        let time = "含义,,2026-11-11T00:00:00+08:00\r\n";
        assert_eq!(row(None, "o1", ""), format!("7,o1,sent,,,{time}"));
        assert_eq!(row(Some(-1), "-o", "=1+1"), format!("7,'-o,failed,-1,'=1+1,{time}"));
        let told = row(Some(5), "@x", "=a,\"b\"\r\n");
        assert_eq!(told, format!("7,'@x,failed,5,\"'=a,\"\"b\"\"\r\n\",{time}"));
    }

    use super::super::exit;
    use super::super::journal::Open;
    use super::super::list::{Keeper, Person};
    use super::super::{Failure, plan};

    /// A task of four people: the first two are answered, the second failed, the third is open.
    fn task() -> (tempfile::TempDir, Journal, Plan) {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::create(folder.path()).unwrap();
        for line in 1..=4 {
            let (openid, data) = (format!("o{line}"), String::new());
            keeper.keep(&Person { line, openid, data }).unwrap();
        }
        keeper.finish().unwrap();
        let plan = Plan { total: 4, result: folder.path().join("r.csv"), ..plan::tests::plan() };
        let mut journal = Journal::create(&folder.path().join("journal.db"), &plan).unwrap();
        let mut results = take_up(&folder, &journal);
        let (sent, failed) = (row(None, "o1", ""), row(Some(43004), "o2", "no"));
        results.keep(&(sent + &failed)).unwrap();
        let mut state = journal.state().unwrap();
        (state.stage, state.next, state.result_bytes) = (Stage::Paused, 3, results.bytes());
        state.open.push(Open { index: 2, offset: 0, since: Some(1), turn: 0 });
        let failure = Failure {
            index: 1,
            offset: 0,
            line: 2,
            openid: "o2".into(),
            status: Status::Failed,
            errcode: Some(43004),
            errmsg: "no".into(),
        };
        journal.keep(&state, &[failure]).unwrap();
        (folder, journal, plan)
    }

    fn take_up(folder: &tempfile::TempDir, journal: &Journal) -> Results {
        let (plan, state) = (journal.plan().unwrap(), journal.state().unwrap());
        Results::take_up(folder.path(), &plan, &state, Language::English).unwrap()
    }

    /// The lines without meaning and time.
    fn lines(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.strip_prefix(&format!("\u{feff}{HEADER}")).expect("mark and header");
        text.lines().map(|line| line.split(',').take(5).collect::<Vec<_>>().join(",")).collect()
    }

    #[test]
    fn what_a_killed_run_wrote_is_cut_off_and_what_others_wrote_is_kept() {
        let (folder, mut journal, plan) = task();
        assert_eq!(take_up(&folder, &journal).mend(&mut journal), Ok(None));
        let whole = std::fs::read_to_string(&plan.result).unwrap();
        std::fs::write(&plan.result, whole.clone() + "7,o3").unwrap();
        let mut state = journal.state().unwrap();
        state.stage = Stage::Running;
        journal.keep(&state, &[]).unwrap();
        assert_eq!(take_up(&folder, &journal).mend(&mut journal), Ok(None));
        assert_eq!(std::fs::read_to_string(&plan.result).unwrap(), whole);
        state.stage = Stage::Paused;
        journal.keep(&state, &[]).unwrap();
        std::fs::write(&plan.result, whole.clone() + "a note").unwrap();
        let remade = take_up(&folder, &journal).mend(&mut journal).unwrap().unwrap();
        assert!(matches!(remade.loss, Loss::Size(_)), "{remade:?}");
        assert_eq!(std::fs::read_to_string(&plan.result).unwrap(), whole + "a note");
        assert_eq!(remade.new, folder.path().join("r-2.csv"));
    }

    #[test]
    fn a_file_that_was_lost_at_any_time_is_made_anew_with_everybody_who_is_answered() {
        type Harm = fn(&Path);
        let harms: [(Harm, &str); 5] = [
            (|path| std::fs::remove_file(path).unwrap(), "r.csv"),
            (|path| std::fs::rename(path, path.with_extension("old")).unwrap(), "r.csv"),
            (|path| std::fs::write(path, "").unwrap(), "r-2.csv"),
            (|path| std::fs::write(path, "x".repeat(9_999)).unwrap(), "r-2.csv"),
            (
                |path| {
                    std::fs::rename(path, path.with_extension("old")).unwrap();
                    std::fs::copy(path.with_extension("old"), path).unwrap();
                },
                "r-2.csv",
            ),
        ];
        for (harm, name) in harms {
            let (folder, mut journal, plan) = task();
            // While it runs; a copy of the same length would pass when it goes on, and is as good.
            let mut results = take_up(&folder, &journal);
            harm(&plan.result);
            let remade = results.mend(&mut journal).unwrap().expect("it was harmed");
            assert_eq!((remade.rows, &remade.new), (2, &folder.path().join(name)));
            assert_eq!(journal.plan().unwrap().result, remade.new);
            results.keep(&row(None, "o3", "")).unwrap();
            assert_eq!(results.mend(&mut journal), Ok(None));
            let expected = ["1,o1,sent,,", "2,o2,failed,43004,no", "7,o3,sent,,"];
            assert_eq!(lines(&remade.new), expected);
            // The row of o3 is not in the journal: it is as after a kill between the two.
            let mut state = journal.state().unwrap();
            state.stage = Stage::Running;
            journal.keep(&state, &[]).unwrap();
            drop(take_up(&folder, &journal));
            assert_eq!(lines(&remade.new), expected[..2]);
        }
    }

    #[test]
    fn a_file_of_somebody_else_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.csv");
        Results::create(&path, Encoding::Utf8).unwrap();
        Results::create(&path, Encoding::Utf8).unwrap();
        std::fs::write(&path, "precious").unwrap();
        let refused = Results::create(&path, Encoding::Utf8).err().unwrap();
        assert_eq!(refused.code, exit::REFUSED);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn gbk_holds_what_it_can() {
        assert_eq!(&*encode_gbk("用户"), b"\xd3\xc3\xbb\xa7");
        assert_eq!(&*encode_gbk("a😀用"), b"a?\xd3\xc3");
    }
}
