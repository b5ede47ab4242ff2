//! How much room is left where the daemon writes. Asked by the command, not by the daemon, which must not wait
//! for a disk that does not answer.

use serde_json::{Map, Value, json};

/// Adds what is free in each of the daemon's `folders`, as far as this process may look.
pub fn add(status: &mut Value) {
    let folders = status["folders"].as_object().cloned().unwrap_or_default();
    let disks = folders.iter().filter_map(|(name, folder)| {
        let disk = rustix::fs::statvfs(folder.as_str()?).ok()?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        Some((name.clone(), json!({"free_bytes": free, "total_bytes": total})))
    });
    let disks: Map<String, Value> = disks.collect();
    status["disk"] = disks.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_are_there_have_room_and_others_are_left_out() {
        let mut status =
            json!({"folders": {"queue": "/", "ledger": "/nowhere/at/all", "log": null}});
        add(&mut status);
        let disk = status["disk"].as_object().unwrap();
        assert_eq!(disk.keys().collect::<Vec<_>>(), ["queue"]);
        let number = |name: &str| disk["queue"][name].as_u64().unwrap();
        assert!(number("total_bytes") > 0 && number("free_bytes") <= number("total_bytes"));
    }
}
