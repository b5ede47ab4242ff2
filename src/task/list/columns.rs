//! Which column of a list is the openid, and which variables the others are.

use super::Options;
use super::error::{Fault, LONGEST_DATA, ListError};
use super::openid;
use super::row::Row;
use std::collections::HashSet;
use std::path::Path;

/// What a column of openids is called, in any case; the first of them that is there.
const OPENID: [&str; 3] = ["openid", "touser", "open_id"];

#[derive(Debug)]
pub struct Columns {
    /// The one of openids.
    openid: usize,
    width: usize,
    variables: Vec<Variable>,
}

#[derive(Debug)]
struct Variable {
    column: usize,
    name: String,
    /// As a member of a JSON object begins: `"name":`.
    member: String,
    /// The template wants it.
    wanted: bool,
}

/// Whether it is a name of the column of openids; `chosen` is the user's own.
pub fn names_openid(name: &str, chosen: Option<&str>) -> bool {
    let name = name.trim();
    match chosen {
        Some(chosen) => name.eq_ignore_ascii_case(chosen.trim()),
        None => OPENID.iter().any(|known| name.eq_ignore_ascii_case(known)),
    }
}

/// What a list's first row is.
pub enum First {
    Header(Columns),
    /// Somebody already: the list has no header and no variables.
    Person(Columns),
}

impl Columns {
    pub fn find(row: &Row, options: &Options, path: &Path) -> Result<First, ListError> {
        let (chosen, wanted) = (options.openid_column.as_deref(), &options.wanted[..]);
        let names: Vec<&str> = row.cells().map(str::trim).collect();
        let of = |known: &str| names.iter().position(|name| name.eq_ignore_ascii_case(known));
        let openid = match chosen {
            Some(chosen) => of(chosen.trim()),
            None => OPENID.into_iter().find_map(of),
        };
        match (openid, chosen) {
            (Some(openid), _) => {
                unique(&names, path)?;
                Ok(First::Header(Columns::new(openid, &names, wanted)))
            }
            (None, None) if names.len() == 1 => Ok(First::Person(Columns::new(0, &names, wanted))),
            (None, _) => Err(no_openid(&names, chosen, path)),
        }
    }

    fn new(openid: usize, names: &[&str], wanted: &[String]) -> Columns {
        let variable = |(column, name): (usize, &&str)| {
            let member = format!("{}:", serde_json::Value::from(*name));
            let wanted = wanted.iter().any(|wanted| wanted == name);
            Variable { column, name: (*name).to_owned(), member, wanted }
        };
        let named = names.iter().enumerate().filter(|(_, name)| !name.is_empty());
        let variables = named.filter(|(column, _)| *column != openid).map(variable).collect();
        Columns { openid, width: names.len(), variables }
    }

    /// The names of the variables.
    pub fn names(&self) -> Vec<String> {
        self.variables.iter().map(|variable| variable.name.clone()).collect()
    }

    /// The openid that the row has, if it is a row of this list.
    pub fn openid<'a>(&self, row: &'a Row) -> Result<&'a str, Fault> {
        if let Some(fault) = &row.fault {
            return Err(fault.clone());
        }
        if row.len() != self.width {
            return Err(Fault::Fields { found: row.len(), wanted: self.width, end: row.end });
        }
        let openid = row.cell(self.openid).unwrap_or_default().trim();
        openid::check(openid).map(|()| openid)
    }

    /// A variable that the template wants and the row leaves empty.
    pub fn empty(&self, row: &Row) -> Option<&str> {
        let is_empty = |column| row.cell(column).unwrap_or_default().trim().is_empty();
        let mut wanted = self.variables.iter().filter(|variable| variable.wanted);
        wanted.find(|variable| is_empty(variable.column)).map(|variable| &variable.name[..])
    }

    /// Puts the row's variables into `data` as a JSON object; empty where the list has none.
    pub fn data(&self, row: &Row, data: &mut String) -> Result<(), Fault> {
        data.clear();
        for variable in &self.variables {
            data.push(if data.is_empty() { '{' } else { ',' });
            data.push_str(&variable.member);
            let value = row.cell(variable.column).unwrap_or_default();
            data.push_str(&serde_json::Value::from(value).to_string());
        }
        if !data.is_empty() {
            data.push('}');
        }
        match data.len() <= LONGEST_DATA {
            true => Ok(()),
            false => Err(Fault::LongData(data.len())),
        }
    }
}

/// Of two columns of one name nobody could say which is meant.
fn unique(names: &[&str], path: &Path) -> Result<(), ListError> {
    let mut seen = HashSet::new();
    match names.iter().find(|name| !name.is_empty() && !seen.insert(**name)) {
        None => Ok(()),
        Some(name) => {
            let path = path.display();
            Err(ListError::new([
                format!("{path}: two columns are named \"{name}\"; rename one of them"),
                format!("{path}：有两列都叫“{name}”，请改掉其中一个"),
            ]))
        }
    }
}

fn no_openid(names: &[&str], chosen: Option<&str>, path: &Path) -> ListError {
    let columns = crate::output::brief(&names.join(" | "));
    let path = path.display();
    match chosen {
        Some(chosen) => ListError::new([
            format!("{path} has no column \"{chosen}\"; its first line is: {columns}"),
            format!("{path} 没有“{chosen}”这一列，首行是：{columns}"),
        ]),
        None => ListError::new([
            format!(
                "{path} has no column openid, touser or open_id; its first line is: {columns} \
                 (name the column with --openid-column)"
            ),
            format!(
                "{path} 没有 openid、touser 或 open_id 列，首行是：{columns}（用 --openid-column 指定）"
            ),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Row {
        let mut row = Row::default();
        row.begin(1);
        cells.iter().for_each(|cell| row.push(cell));
        row
    }

    fn find(cells: &[&str], chosen: Option<&str>) -> Result<First, String> {
        let openid_column = chosen.map(str::to_owned);
        let options = Options { openid_column, wanted: vec!["水".into()] };
        let found = Columns::find(&row(cells), &options, Path::new("l.csv"));
        found.map_err(|error| error.to_string())
    }

    #[test]
    fn the_openid_is_found_by_its_names_or_the_one_that_is_given() {
        for (cells, chosen, column) in [
            (&["name", " OpenID "][..], None, 1),
            (&["touser", "open_id", "openid"], None, 2),
            (&["x", "Open_Id"], None, 1),
            (&["openid", "用户"], Some("用户"), 1),
            (&["openid", "User"], Some("user"), 1),
        ] {
            let Ok(First::Header(columns)) = find(cells, chosen) else { panic!("{cells:?}") };
            assert_eq!(columns.openid, column, "{cells:?}");
        }
        assert!(matches!(find(&["o1"], None), Ok(First::Person(_))));
    }

    #[test]
    fn a_list_without_openids_is_refused_with_what_it_has() {
        let error = find(&["编号", "姓名"], None).err().unwrap();
        assert!(error.contains("编号 | 姓名") && error.contains("--openid-column"), "{error}");
        for cells in [&["o1"][..], &["openid", "name"]] {
            let error = find(cells, Some("用户")).err().unwrap();
            assert!(error.contains("no column \"用户\"") && error.contains(cells[0]), "{error}");
        }
        let error = find(&["openid", "a", "a"], None).err().unwrap();
        assert!(error.contains("two columns are named \"a\""), "{error}");
        let error = find(&vec!["x\u{1b}"; 10_000], None).err().unwrap();
        assert!(error.len() < 3_000 && !error.contains('\u{1b}'), "{error}");
    }

    #[test]
    fn a_row_gives_its_openid_and_the_others_as_variables() {
        let Ok(First::Header(columns)) = find(&["a\"b", "openid", "", "水"], None) else {
            panic!()
        };
        assert_eq!(columns.names(), ["a\"b", "水"]);
        let mut data = String::new();
        let person = row(&["1\n\"", " o1 ", "unnamed", ""]);
        assert_eq!(columns.data(&person, &mut data), Ok(()));
        assert_eq!(data, r#"{"a\"b":"1\n\"","水":""}"#);
        assert_eq!(columns.empty(&person), Some("水"));
        assert_eq!(columns.empty(&row(&["", "o1", "", "3"])), None);
        let long = "x".repeat(LONGEST_DATA);
        let found = columns.data(&row(&[&long, "o1", "", ""]), &mut data);
        assert_eq!(found, Err(Fault::LongData(LONGEST_DATA + 20)));
        assert_eq!(columns.openid(&row(&["x", " o1 ", "", ""])), Ok("o1"));
        assert_eq!(
            columns.openid(&row(&["x", "o1"])),
            Err(Fault::Fields { found: 2, wanted: 4, end: 1 })
        );
    }
}
