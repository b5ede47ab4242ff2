//! The steps in which failed messages are requeued.

use super::*;

fn add(write: &rusqlite::Connection, id: &str, size: usize) -> rusqlite::Result<()> {
    let (openid, key, data) = (&b"o"[..], &b"k"[..], vec![b'x'; size]);
    let (class, errcode, errmsg) = ("permanent", Some(43004), "43004 require subscribe");
    let (time, enqueued, attempts) = (10_000, None, 1);
    let data = &data[..];
    failed::record(
        write,
        New { id, openid, key, data, time, enqueued, attempts, class, errcode, errmsg },
    )
}

#[test]
fn a_step_takes_as_many_as_its_bytes_have_room_for_and_one_at_least() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = Database::new(&folder.path().join("l.db"));
    let half = order::STEP_BYTES / 2;
    let sizes = [half, half, 1, 2 * order::STEP_BYTES, half, half - 1, 1, 1];
    database
        .write(|write| {
            let mut ids = sizes.iter().enumerate().map(|(index, size)| (index.to_string(), *size));
            ids.try_for_each(|(id, size)| add(write, &id, size))
        })
        .unwrap();
    let mut request = Request { limit: 100, ..Request::default() };
    let mut steps = Vec::new();
    loop {
        let (rows, answer) = claim(&mut database, &request).unwrap();
        assert!(!rows.is_empty() && answer.after > request.after, "no step forward");
        steps.push(rows.len());
        request.after = answer.after;
        if answer.done {
            break;
        }
    }
    assert_eq!(steps, [2, 1, 1, 3, 1]);
}
