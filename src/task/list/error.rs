//! Why a list cannot be read, and why one of its rows is nobody to send to: in English and Chinese, side by side.

use std::fmt;
use std::io;
use std::path::Path;

/// Why a list cannot be read: what, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListError {
    said: [String; 2],
}

impl ListError {
    pub fn new(said: [String; 2]) -> ListError {
        ListError { said }
    }

    /// In English and Chinese.
    pub fn texts(&self) -> &[String; 2] {
        &self.said
    }

    /// The list is said to be in `path`, which cannot be read.
    pub fn unreadable(path: &Path, error: &io::Error) -> ListError {
        let path = path.display();
        ListError::new([
            format!("cannot read the list {path}: {error}"),
            format!("读不了名单 {path}：{error}"),
        ])
    }

    /// A workbook, also what is a zip and no workbook.
    pub fn damaged(path: &Path, error: &dyn fmt::Display) -> ListError {
        let path = path.display();
        ListError::new([
            format!(
                "{path} is no xlsx workbook that can be read: {error}; save it anew as xlsx or CSV"
            ),
            format!("{path} 不是可读的 xlsx 工作簿：{error}；请重新另存为 xlsx 或 CSV"),
        ])
    }

    /// The task's own folder cannot be written to.
    pub fn unwritable(folder: &Path, error: &io::Error) -> ListError {
        let folder = folder.display();
        ListError::new([
            format!("cannot write to the task's folder {folder}: {error} (is there room?)"),
            format!("写不进任务目录 {folder}：{error}（空间够吗？）"),
        ])
    }
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.said[0])
    }
}

/// Bytes that an openid may have.
pub const LONGEST: usize = 128;

/// Bytes that a person's variables may have: mega closes the connection on a message that is much too long, and all
/// others that are out on it would have to go out again.
pub const LONGEST_DATA: usize = 64 << 10;

/// Why a row is nobody to send to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    NoOpenid,
    /// More bytes than an openid may have.
    LongOpenid(usize),
    /// More bytes than somebody's variables may have.
    LongData(usize),
    /// A character that is in no openid.
    Character(char),
    /// As many fields as it has where the header has so many; it ends in that line.
    Fields {
        found: usize,
        wanted: usize,
        end: u64,
    },
    /// A cell shows an error of the spreadsheet.
    Cell {
        column: usize,
        shown: String,
    },
}

impl Fault {
    /// In English and Chinese.
    pub fn texts(&self) -> [String; 2] {
        match self {
            Fault::NoOpenid => ["there is no openid".into(), "没有 openid".into()],
            Fault::LongOpenid(bytes) => {
                let most = LONGEST;
                [
                    format!("the openid has {bytes} bytes, more than {most}"),
                    format!("openid 有 {bytes} 字节，超过 {most}"),
                ]
            }
            Fault::LongData(bytes) => {
                let most = LONGEST_DATA;
                [
                    format!("the variables have {bytes} bytes, more than {most}"),
                    format!("变量共 {bytes} 字节，超过 {most}"),
                ]
            }
            Fault::Character(character) => {
                let shown = character.escape_debug();
                [
                    format!("'{shown}' is in no openid (is this a list without its header?)"),
                    format!("openid 里不会有“{shown}”（是不是缺了表头？）"),
                ]
            }
            Fault::Fields { found, wanted, end } => [
                format!(
                    "{found} fields instead of {wanted}, up to line {end} (is a quote or a separator too many?)"
                ),
                format!(
                    "有 {found} 个字段，应为 {wanted} 个，止于第 {end} 行（是否多了引号或分隔符？）"
                ),
            ],
            Fault::Cell { column, shown } => {
                let column = column + 1;
                [format!("column {column} shows {shown}"), format!("第 {column} 列是 {shown}")]
            }
        }
    }
}
