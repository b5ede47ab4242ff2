//! Whole lists: encodings by formats, a workbook that LibreOffice wrote, and bytes that are no list at all.

use super::*;
use encoding_rs::GB18030;
use std::io::{Cursor, Read, Write};
use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

/// Written by LibreOffice 7.4: an empty sheet, and one of people.
const WORKBOOK: &[u8] = include_bytes!("../../../tests/data/people.xlsx");

fn import_bytes(bytes: &[u8], column: Option<&str>) -> Result<(Survey, Vec<Person>), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("given");
    std::fs::write(&path, bytes).unwrap();
    let openid_column = column.map(str::to_owned);
    let options = Options { openid_column, wanted: vec!["姓名".into(), "水".into()] };
    let survey = match import(Input::File(&path), &options, folder.path()) {
        Ok(survey) => survey,
        Err(error) => {
            assert!(Kept::open(folder.path(), 0).is_err(), "a list is there after: {error}");
            assert!(error.texts().iter().all(|text| text.contains("given")), "{error:?}");
            return Err(error.to_string());
        }
    };
    let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    left.retain(|entry| entry.as_ref().unwrap().file_name() != "given");
    assert_eq!(left.len(), 1, "{left:?}");
    let mut kept = Kept::open(folder.path(), 0).unwrap();
    let mut people = Vec::new();
    while let Some(person) = kept.person().unwrap() {
        people.push(person);
    }
    assert_eq!(survey.people, people.len() as u64);
    assert_eq!(survey.lines, survey.people + survey.duplicates.count + survey.malformed.count);
    Ok((survey, people))
}

fn person(line: u64, openid: &str, data: &str) -> Person {
    Person { line, openid: openid.to_owned(), data: data.to_owned() }
}

fn utf16(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn every_format_is_read_in_every_encoding() {
    let named = [r#"{"姓名":"张三","水":"3桶, \"大\""}"#, r#"{"姓名":"李四","水":""}"#];
    let csv = |separator| Format::Csv { separator, encoding: Encoding::Utf8 };
    for (text, format, data) in [
        ("oA1\n\n  oA2 \n", Format::Plain(Encoding::Utf8), ["", ""]),
        ("openid\noA1\noA2", csv(','), ["", ""]),
        ("姓名,OpenID,水\n张三,oA1,\"3桶, \"\"大\"\"\"\n李四, oA2,\n", csv(','), named),
        ("touser;姓名;水\noA1;张三;\"3桶, \"\"大\"\"\"\noA2;李四;\n", csv(';'), named),
        ("open_id\t姓名\t水\noA1\t张三\t\"3桶, \"\"大\"\"\"\noA2\t李四\t\n", csv('\t'), named),
    ] {
        for end in ["\n", "\r\n"] {
            let text = text.replace('\n', end);
            for (bytes, encoding) in [
                (text.clone().into_bytes(), Encoding::Utf8),
                (format!("\u{feff}{text}").into_bytes(), Encoding::Utf8),
                (utf16(&text), Encoding::Utf16),
                (GB18030.encode(&text).0.into_owned(), Encoding::Gb18030),
            ] {
                let encoding = if text.is_ascii() && encoding == Encoding::Gb18030 {
                    Encoding::Utf8
                } else {
                    encoding
                };
                let (survey, people) = import_bytes(&bytes, None).unwrap();
                let lines: Vec<u64> = people.iter().map(|person| person.line).collect();
                let expected = [person(lines[0], "oA1", data[0]), person(lines[1], "oA2", data[1])];
                assert_eq!(people, expected, "{text} {encoding:?}");
                let found = match (survey.format, &format) {
                    (Format::Plain(found), Format::Plain(_)) => found,
                    (
                        Format::Csv { separator, encoding },
                        Format::Csv { separator: wanted, .. },
                    ) if separator == *wanted => encoding,
                    (other, _) => panic!("{other:?} instead of {format:?}"),
                };
                assert_eq!(found, encoding, "{text}");
                assert_eq!((survey.malformed.count, survey.duplicates.count), (0, 0));
            }
        }
    }
}

#[test]
fn a_csv_of_gbk_with_one_short_name_is_read_as_it_was_written() {
    let bytes = b"openid,name\r\no1,\xd5\xc5\xc8\xfd\r\no2,abc\r\n";
    let (survey, people) = import_bytes(bytes, None).unwrap();
    let expected = Format::Csv { separator: ',', encoding: Encoding::Gb18030 };
    assert_eq!(survey.format, expected);
    assert_eq!(survey.columns, ["name"]);
    assert_eq!(people[0], person(2, "o1", r#"{"name":"张三"}"#));
}

#[test]
fn what_is_twice_or_nobody_is_told_with_its_line_and_left_out() {
    let long = "o".repeat(129);
    let text = format!(
        "openid,a\no1,1\n,2\no 2,3\n{long},4\no3\no4,5,6\n\no1,7\n\"o5\nx\",8\no6,9\no1,10\no6,11\n"
    );
    let (survey, people) = import_bytes(text.as_bytes(), None).unwrap();
    assert_eq!(people, [person(2, "o1", r#"{"a":"1"}"#), person(12, "o6", r#"{"a":"9"}"#)]);
    let duplicate = |line, openid: &str, before| Duplicate { line, openid: openid.into(), before };
    assert_eq!(survey.duplicates.count, 3);
    assert_eq!(
        survey.duplicates.first,
        [duplicate(9, "o1", 2), duplicate(13, "o1", 2), duplicate(14, "o6", 12)]
    );
    let malformed = |line, why| Malformed { line, why };
    let fields = |found, line| Fault::Fields { found, wanted: 2, end: line };
    assert_eq!(
        survey.malformed.first,
        [
            malformed(3, Fault::NoOpenid),
            malformed(4, Fault::Character(' ')),
            malformed(5, Fault::LongOpenid(129)),
            malformed(6, fields(1, 6)),
            malformed(7, fields(3, 7)),
            malformed(10, Fault::Character('\n')),
        ]
    );
    let all = survey.malformed.first.iter().flat_map(|malformed| malformed.why.texts());
    assert!(all.into_iter().all(|text| !text.is_empty() && !text.contains('\n')));
    assert_eq!(survey.malformed.count, 6);
}

#[test]
fn a_cell_that_the_template_wants_and_is_empty_is_told_with_its_line() {
    let text =
        "openid,姓名,水,other\no1,张三,3,\no2, ,\u{3000},x\no3,李四,,x\no4,王五,1,\no 5,,,\n";
    let (survey, people) = import_bytes(text.as_bytes(), None).unwrap();
    assert_eq!(people.len(), 4);
    let empty = |line, variable: &str| Empty { line, variable: variable.to_owned() };
    assert_eq!(survey.empty, Noted { count: 2, first: vec![empty(3, "姓名"), empty(4, "水")] });
    let (survey, _) = import_bytes(b"o1\no2\n", None).unwrap();
    assert_eq!(survey.empty, Noted::none());
}

#[test]
fn only_the_first_few_are_told_and_all_are_counted() {
    let text = format!("{}{}", "o1\n".repeat(500), "o 2\n".repeat(300));
    let (survey, people) = import_bytes(text.as_bytes(), None).unwrap();
    assert_eq!((people.len(), survey.lines), (1, 800));
    assert_eq!((survey.duplicates.count, survey.duplicates.first.len()), (499, FEW));
    assert_eq!((survey.malformed.count, survey.malformed.first.len()), (300, FEW));
    let lines: Vec<u64> = survey.duplicates.first.iter().map(|found| found.line).collect();
    assert_eq!(lines, (2..12).collect::<Vec<_>>());
}

#[test]
fn a_workbook_of_libreoffice_reads_as_its_sheet_shows_it() {
    let (survey, people) = import_bytes(WORKBOOK, None).unwrap();
    assert_eq!(survey.format, Format::Xlsx("名单".into()));
    assert_eq!(survey.columns, ["姓名", "桶数", "金额", "日期", "送达", "时长", "会员"]);
    let data = |values: [&str; 7]| {
        let members = survey.columns.iter().zip(values);
        let members: serde_json::Map<_, _> =
            members.map(|(name, value)| (name.clone(), value.into())).collect();
        serde_json::Value::from(members).to_string()
    };
    let first = ["张三", "3", "39.80", "2026-11-25", "11/25 09:05", "25:00:01", "TRUE"];
    let second =
        ["李\"四\"", "13912345678", "0.30", "2026年2月9日", "12/31 23:59", "1:00:00", "FALSE"];
    let third = ["王五", "", "", "", "", "", ""];
    let last = [""; 7];
    assert_eq!(
        people,
        [
            person(3, "oA1", &data(first)),
            person(4, "oA2", &data(second)),
            person(6, "oA3", &data(third)),
            person(10, "1000000000000000", &data(last)),
        ]
    );
    let cell = Fault::Cell { column: 2, shown: "#DIV/0!".into() };
    assert_eq!(
        survey.malformed.first,
        [Malformed { line: 7, why: cell }, Malformed { line: 9, why: Fault::NoOpenid }]
    );
    let again = Duplicate { line: 8, openid: "oA1".into(), before: 3 };
    assert_eq!(survey.duplicates, Noted { count: 1, first: vec![again] });
    let (survey, _) = import_bytes(WORKBOOK, Some("姓名")).unwrap();
    assert_eq!(survey.columns[0], "openid");
    assert!(import_bytes(WORKBOOK, Some("nick")).unwrap_err().contains("no column \"nick\""));
}

#[test]
fn what_has_nobody_in_it_is_refused() {
    for empty in [&b""[..], b"\n \r\n", b"\xef\xbb\xbf", b"\xff\xfe"] {
        let error = import_bytes(empty, None).unwrap_err();
        assert!(error.contains("is empty: there is nobody to send to"), "{error}");
    }
    let workbook = changed(|name, part| {
        if name.contains("sheet2") {
            let text = String::from_utf8(std::mem::take(part)).unwrap();
            let (begin, end) = (text.find("<sheetData>"), text.find("</sheetData>"));
            *part = [&text[..begin.unwrap() + 11], &text[end.unwrap()..]].concat().into_bytes();
        }
    });
    assert!(import_bytes(&workbook, None).unwrap_err().contains("is empty"));
}

#[test]
fn what_a_template_wants_and_a_list_lacks_is_missing() {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let wanted = own(&["first", "remark", "first2"]);
    assert_eq!(missing(&own(&["remark", "x"]), &wanted), ["first", "first2"]);
    assert!(missing(&wanted, &wanted).is_empty());
}

/// The workbook with its parts changed, and packed again.
fn changed(mut change: impl FnMut(&str, &mut Vec<u8>)) -> Vec<u8> {
    let mut from = ZipArchive::new(Cursor::new(WORKBOOK)).unwrap();
    let mut to = ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..from.len() {
        let mut part = from.by_index(index).unwrap();
        let name = part.name().unwrap().into_owned();
        let mut bytes = Vec::new();
        part.read_to_end(&mut bytes).unwrap();
        change(&name, &mut bytes);
        to.start_file(name, SimpleFileOptions::default()).unwrap();
        to.write_all(&bytes).unwrap();
    }
    to.finish().unwrap().into_inner()
}

/// The workbook with one piece of the part of that name replaced.
fn replaced(part: &str, from: &str, to: &str) -> Vec<u8> {
    let mut found = false;
    let workbook = changed(|name, bytes| {
        if name.ends_with(part) {
            let text = String::from_utf8(std::mem::take(bytes)).unwrap();
            found |= text.contains(from);
            *bytes = text.replacen(from, to, 1).into_bytes();
        }
    });
    assert!(found, "{part} has no {from}");
    workbook
}

const SHEET: &str = "sheet2.xml";

#[test]
fn what_a_workbook_claims_to_have_is_not_believed() {
    for claim in ["4000000000000", "18446744073709551615", "99999999999999999999999"] {
        let claim = format!("uniqueCount=\"{claim}\" other=\"");
        let workbook = replaced("sharedStrings.xml", "uniqueCount=\"", &claim);
        let (survey, _) = import_bytes(&workbook, None).unwrap();
        assert_eq!(survey.people, 4);
    }
}

#[test]
fn a_workbook_cannot_make_the_reader_take_all_memory() {
    let long = "x".repeat(2 * lines::LONGEST);
    let many = |piece: &str| piece.repeat(2 * lines::LONGEST / piece.len());
    let formats = format!("<cellXfs>{}", "<xf/>".repeat(70_000));
    let code = format!("<numFmt numFmtId=\"200\" formatCode=\"{}\"/>", "0".repeat(5_000));
    let blank = " ".repeat(30 << 20);
    for (part, from, to) in [
        ("styles.xml", "<cellXfs", &blank[..]),
        ("styles.xml", "<cellXfs", &formats),
        ("styles.xml", "<numFmt ", &code),
        ("sharedStrings.xml", "<si>", &format!("<si><t>{long}</t></si><si>")),
        ("sharedStrings.xml", "<si>", &format!("<si>{}", many("<r><t>x</t></r>"))),
        (SHEET, "<sheetData>", &format!("<sheetData><row><c x=\"{long}\"/></row>")),
        (SHEET, "<sheetData>", &format!("<sheetData><row><c t=\"str\"><v>{long}</v></c></row>")),
        (SHEET, "<sheetData>", &format!("<sheetData><row><c>{}</c></row>", many("<f>1</f>"))),
        (SHEET, "<sheetData>", &format!("<sheetData><!--{long}-->")),
        (SHEET, "<sheetData>", &format!("<sheetData><{long}")),
    ] {
        let workbook = replaced(part, from, to);
        assert!(workbook.len() < 1 << 20, "{part} {}", &to[..20]);
        let error = import_bytes(&workbook, None).unwrap_err();
        assert!(error.contains("larger unpacked than any list"), "{part} {}: {error}", &to[..20]);
    }
}

#[test]
fn fonts_and_fills_of_any_size_are_not_looked_at() {
    let fonts =
        format!("<fonts><font><name val=\"{}\"/></font></fonts><cellXfs", "x".repeat(900_000));
    let workbook = replaced("styles.xml", "<cellXfs", &fonts);
    assert_eq!(import_bytes(&workbook, None).unwrap().0.people, 4);
}

#[test]
fn a_row_is_as_wide_and_as_long_as_rows_may_be() {
    let row = |cells: &str| format!("<sheetData><row r=\"1\">{cells}</row>");
    let cell = |place: &str, text: &str| {
        format!("<c r=\"{place}\" t=\"inlineStr\"><is><t>{text}</t></is></c>")
    };
    let sheet = |cells: &str| replaced(SHEET, "<sheetData>", &row(cells));
    let widest = sheet(&(cell("A1", "openid") + &cell("XFD1", "last")));
    assert_eq!(import_bytes(&widest, None).unwrap().0.columns, ["last"]);
    for place in ["XFE1", "ZZZZZZ1", "ZZZZZZZZZZZZZZZ1"] {
        let error = import_bytes(&sheet(&cell(place, "openid")), None).unwrap_err();
        assert!(error.contains("is no xlsx workbook that can be read"), "{place}: {error}");
    }
    let long = cell("", &"x".repeat(100_000)).replace(" r=\"\"", "").repeat(12);
    let error = import_bytes(&sheet(&long), None).unwrap_err();
    assert!(error.contains("line 1: it is longer than 1 MiB"), "{error}");
}

#[test]
fn a_cell_whose_text_is_not_there_is_told() {
    let cell = |number| format!("<sheetData><row r=\"1\"><c t=\"s\"><v>{number}</v></c></row>");
    for number in ["999", "-1", "99999999999999999999", "x"] {
        let error = import_bytes(&replaced(SHEET, "<sheetData>", &cell(number)), None).unwrap_err();
        assert!(error.contains(&format!("a cell has the text \"{number}\"")), "{error}");
    }
}

#[test]
fn a_text_that_is_no_list_is_refused_with_its_line_in_bounded_memory() {
    let long = "x".repeat(3 * lines::LONGEST);
    for (text, said) in [
        (format!("openid,a\no1,{long}\n"), "line 2: it is longer than 1 MiB"),
        (format!("openid,a\no1,\"{long}\n"), "line 2: it is longer than 1 MiB"),
        (format!("o1\r{long}"), "line 2: it is longer than 1 MiB"),
        ("openid,a\no1,1\no2,\"x\n".into(), "in the row of line 3 and never closed"),
    ] {
        for bytes in [text.clone().into_bytes(), utf16(&text)] {
            let error = import_bytes(&bytes, None).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
    let columns = format!("openid{}\no1\n", ",a".repeat(500_000));
    let error = import_bytes(columns.as_bytes(), None).unwrap_err();
    assert!(error.contains("two columns are named \"a\""), "{error}");
}

#[test]
fn an_openid_that_wechat_cannot_have_given_is_told_with_its_line() {
    let long = "o".repeat(129);
    for (openid, why) in [
        ("o 1", Fault::Character(' ')),
        ("o\u{0}1", Fault::Character('\0')),
        ("o\u{1b}[2J", Fault::Character('\u{1b}')),
        ("o\"1", Fault::Character('"')),
        ("o\u{3000}1", Fault::Character('\u{3000}')),
        (&long, Fault::LongOpenid(129)),
    ] {
        for end in ["\n", "\r\n", "\r"] {
            let text = format!("o1{end}{openid}{end}o2{end}");
            let (survey, people) = import_bytes(text.as_bytes(), None).unwrap();
            assert_eq!(people, [person(1, "o1", ""), person(3, "o2", "")], "{openid:?} {end:?}");
            assert_eq!(survey.malformed.first, [Malformed { line: 2, why: why.clone() }]);
        }
    }
}

#[test]
fn any_bytes_are_a_list_or_an_error() {
    let mut random = fastrand::Rng::with_seed(11);
    let pieces: [&[u8]; 16] = [
        b"openid",
        b",",
        b"\n",
        b"\r",
        b"\"",
        b"o1",
        b"\xff",
        b"\xd5\xc5",
        b"\xef\xbb\xbf",
        b"\0",
        b";",
        b"\t",
        "张".as_bytes(),
        b"\xff\xfe",
        b"PK\x03\x04",
        b" ",
    ];
    for _ in 0..2_000 {
        let count = random.usize(0..40);
        let bytes: Vec<u8> =
            (0..count).flat_map(|_| pieces[random.usize(0..16)]).copied().collect();
        let _ = import_bytes(&bytes, None);
    }
    for _ in 0..100 {
        let mut bytes = WORKBOOK.to_vec();
        for _ in 0..random.usize(1..8) {
            let at = random.usize(0..bytes.len());
            bytes[at] = random.u8(..);
        }
        bytes.truncate(random.usize(bytes.len() / 2..2 * bytes.len()).min(bytes.len()));
        let _ = import_bytes(&bytes, None);
    }
    let words = [
        "<c>",
        "</c>",
        "\"",
        "r=\"A0\"",
        "s=\"-1\"",
        "s=\"99\"",
        "<v>1e999</v>",
        "<row r=\"0\">",
        "&#x0;",
        ">",
    ];
    for _ in 0..100 {
        let chosen = random.u8(..);
        let workbook = changed(|name, part| {
            if name.len() as u8 % 3 == chosen % 3 && !part.is_empty() {
                let at = random.usize(0..part.len());
                let word = words[random.usize(0..words.len())].bytes();
                let end = (at + random.usize(0..30)).min(part.len());
                part.splice(at..end, word);
            }
        });
        let _ = import_bytes(&workbook, None);
    }
}
