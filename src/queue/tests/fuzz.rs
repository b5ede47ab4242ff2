//! Folders that were damaged in every way a generator can think of. Runs for a second, or for
//! MEGA_FUZZ_SECONDS (scripts/fuzz).

use super::simulated::Simulated;
use super::{append, drain, open_at, run_chores};
use crate::queue::Durability;
use crate::queue::inspect::inspect;
use fastrand::Rng;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// How long a generator may run.
pub fn budget() -> Duration {
    let seconds = std::env::var("MEGA_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
}

fn folder(rng: &mut Rng) -> (Simulated, HashSet<String>) {
    let disk = Simulated::default();
    let mut queue = open_at(&disk, 1_000).unwrap();
    let sent: HashSet<String> = (0..rng.usize(1..150)).map(|n| format!("m{n}")).collect();
    for openid in &sent {
        append(&mut queue, openid);
        if rng.u8(..4) == 0
            && let Some(message) = queue.take(1_000)
        {
            match rng.bool() {
                true => queue.done(message.ticket().unwrap()),
                false => queue.retry(&message, 2_000, 1_000),
            }
            queue.commit(Durability::Later).unwrap();
        }
        if rng.u8(..20) == 0 {
            queue.commit(Durability::Now).unwrap();
            run_chores(&mut queue);
        }
    }
    run_chores(&mut queue);
    (disk, sent)
}

fn damage(disk: &Simulated, rng: &mut Rng) {
    let names = disk.names();
    let name = &names[rng.usize(..names.len())];
    let mut bytes = disk.read(name);
    let size = bytes.len();
    if size < 4 {
        return;
    }
    let at = if rng.bool() { rng.usize(..size) } else { rng.usize(..size.min(400)) };
    let end = (at + rng.usize(1..600)).min(size);
    match rng.u8(..9) {
        0 => bytes[at] ^= 1 << rng.u8(..8),
        1 => bytes[at..end].fill(0),
        2 => bytes[at..end].fill(0xFF),
        3 => rng.fill(&mut bytes[at..end]),
        4 => bytes.truncate(at),
        5 => {
            let from = rng.usize(..size);
            let length = (end - at).min(size - from);
            bytes.copy_within(from..from + length, at.min(size - length));
        }
        6 => {
            let word = [u32::MAX, 0, 1, size as u32, rng.u32(..)][rng.usize(..5)].to_le_bytes();
            let at = at.min(size - 4);
            bytes[at..at + 4].copy_from_slice(&word);
        }
        7 => {
            let other = disk.read(&names[rng.usize(..names.len())]);
            let end = end.min(other.len());
            if at < end {
                bytes[at..end].copy_from_slice(&other[at..end]);
            }
        }
        _ => bytes.extend(std::iter::repeat_n(rng.u8(..), rng.usize(1..5_000))),
    }
    if !bytes.is_empty() || rng.bool() {
        disk.write(name, &bytes);
    }
}

#[test]
fn no_damage_stops_the_queue_or_makes_up_a_message() {
    let (started, mut count) = (Instant::now(), 0_u64);
    for case in super::Case::series("MEGA_FUZZ_SEED", &[], u64::MAX / 4) {
        if started.elapsed() >= budget() {
            break;
        }
        let mut rng = Rng::with_seed(case.seed);
        let (disk, sent) = folder(&mut rng);
        for _ in 0..rng.usize(1..6) {
            damage(&disk, &mut rng);
        }
        inspect(&disk, |_| {}, |_, _, _| {}).unwrap();
        // A version from the future is refused; everything else is opened.
        let Ok(mut queue) = open_at(&disk, 5_000) else {
            count += 1;
            continue;
        };
        for message in drain(&mut queue) {
            let openid = String::from_utf8(message.openid().to_vec()).unwrap();
            assert!(sent.contains(&openid), "{openid} was never sent");
        }
        append(&mut queue, "afterwards");
        queue.sync_all().unwrap();
        drop(queue);
        let mut queue = open_at(&disk, 6_000).unwrap();
        assert_eq!(drain(&mut queue).len(), 1);
        assert_eq!(queue.depth(), 0);
        count += 1;
    }
    println!("{count} damaged folders in {:?}", started.elapsed());
}
