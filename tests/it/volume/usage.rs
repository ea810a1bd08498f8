//! What snapshots hold, compared with what becomes unused when they go. Every number to the byte.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use stratafs::gc;
use stratafs::types::SnapshotId;
use stratafs::volume::{Amount, Volume};

use crate::testkit::{KIB, MIB, TestVolume, random_bytes, text_bytes};

/// Seeds of the random histories.
const SEEDS: [u64; 4] = [1, 2, 3, 4];

/// What nothing refers to, when gc has done all it does.
fn unused(t: &Volume) -> Amount {
    loop {
        let report = gc::run(t).unwrap();
        if report.freed_bytes == 0 && report.repacked_bytes == 0 {
            return report.unused;
        }
    }
}

fn minus(more: Amount, less: Amount) -> Amount {
    Amount {
        chunks: more.chunks - less.chunks,
        raw_bytes: more.raw_bytes - less.raw_bytes,
        stored_bytes: more.stored_bytes - less.stored_bytes,
    }
}

fn alone(t: &Volume, id: SnapshotId) -> Amount {
    t.snapshot_usage().unwrap().into_iter().find(|usage| usage.id == id).unwrap().alone
}

/// A number source that a seed replays.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Files of few contents are written, overwritten in places, cut, removed, copied and snapshotted.
fn live_a_while(t: &TestVolume, dice: &mut Dice, rounds: u64, names: &mut Vec<String>) {
    for _ in 0..rounds {
        let path = format!("/{}", dice.below(6));
        let exists = t.resolve(stratafs::types::At::Live, path.as_bytes()).is_ok();
        let content = dice.below(9);
        let data = match content % 3 {
            0 => random_bytes(content, 300 * KIB),
            1 => text_bytes(content, 200 * KIB),
            _ => text_bytes(content, 3 * KIB),
        };
        match (exists, dice.below(6)) {
            (false, _) => t.write_file(&path, &data),
            (true, 0) => t.remove(&path),
            (true, 1) => t.truncate(&path, dice.below(200_000)),
            (true, 2) => t.open(&path).write(dice.below(100_000), &data[..2000]).unwrap(),
            (true, 3) => {
                t.remove(&path);
                t.write_file(&path, &data);
            }
            (true, 4) => {
                let (from, to) = (t.open(&path), t.open(&path));
                to.copy_from(100_000 + dice.below(400_000), &from, 0, 100_000).unwrap();
            }
            (true, _) => {
                let name = format!("s{}", names.len());
                t.snapshot_create(name.as_bytes()).unwrap();
                names.push(name);
            }
        }
    }
}

/// The promise itself: sets of snapshots are deleted for real until none is left, and each time
/// exactly what was foretold becomes unused. So do snapshots one by one, as the list says.
/// SEMANTICS §4.10.
#[test]
fn what_is_foretold_becomes_unused_to_the_byte() {
    for seed in SEEDS {
        println!("seed {seed}");
        let mut dice = Dice(seed);
        let mut t = TestVolume::new();
        let mut names = Vec::new();
        live_a_while(&t, &mut dice, 120, &mut names);
        assert!(names.len() >= 8, "seed {seed}: {} snapshots", names.len());
        let mut sets = 0;
        let mut freed = 0;
        let mut left: BTreeSet<String> = names.iter().cloned().collect();
        while !left.is_empty() {
            // Only counted: the same on a volume that was opened again, and read-only.
            let before = unused(&t);
            let set: Vec<String> = match sets % 3 {
                0 => left.iter().next().cloned().into_iter().collect(),
                _ => left.iter().filter(|_| dice.below(3) == 0).cloned().collect(),
            };
            sets += 1;
            let ids: Vec<SnapshotId> =
                set.iter().map(|name| t.snapshot_named(name.as_bytes()).unwrap().id).collect();
            let foretold = t.would_free(&ids).unwrap();
            if let [only] = ids[..] {
                assert_eq!(alone(&t, only), foretold, "seed {seed}: list and set disagree");
            }
            t.reopen();
            assert_eq!(t.would_free(&ids).unwrap(), foretold, "seed {seed}: after reopening");
            let bytes: Vec<&[u8]> = set.iter().map(String::as_bytes).collect();
            t.snapshots_delete(&bytes).unwrap();
            let found = minus(gc::run(&t).unwrap().unused, before);
            assert_eq!(found, foretold, "seed {seed}: deleting {set:?}");
            freed += found.stored_bytes;
            set.iter().for_each(|name| assert!(left.remove(name)));
        }
        assert!(freed > 100_000, "seed {seed}: only {freed} bytes were ever at stake");
        t.assert_sound();
    }
}

/// Two snapshots of the same data: neither holds it alone, both together do.
/// SEMANTICS §4.10.
#[test]
fn what_two_share_belongs_to_the_set_and_not_to_one() {
    let t = TestVolume::new();
    t.write_file("/a.bin", &random_bytes(1, MIB));
    let one = t.snapshot_create(b"one").unwrap().id;
    let two = t.snapshot_create(b"two").unwrap().id;
    t.remove("/a.bin");
    t.write_file("/b.bin", &random_bytes(2, MIB));
    let three = t.snapshot_create(b"three").unwrap().id;
    let nothing = Amount::default();
    for usage in t.snapshot_usage().unwrap() {
        assert_eq!(usage.alone, nothing, "{usage:?}");
        assert_eq!(usage.referenced_bytes, MIB as u64, "{usage:?}");
    }
    let both = t.would_free(&[one, two]).unwrap();
    assert_eq!(both.raw_bytes, MIB as u64);
    assert!(both.stored_bytes > MIB as u64, "with its frames' headers: {both:?}");
    assert!(both.stored_bytes < (MIB + 16 * KIB) as u64, "{both:?}");
    assert_eq!(t.would_free(&[one, two, three]).unwrap(), both, "the live tree has the rest");
    assert_eq!(t.would_free(&[]).unwrap(), nothing);
    t.snapshot_delete(b"one").unwrap();
    assert_eq!(alone(&t, two), both);
}

/// A deleted file that is still open is in use; when it is closed, the snapshot alone has it.
/// SEMANTICS §4.10.
#[test]
fn an_open_file_without_a_name_still_counts() {
    let mut t = TestVolume::new();
    t.write_file("/a.bin", &random_bytes(1, MIB));
    let id = t.snapshot_create(b"s").unwrap().id;
    let file = t.open("/a.bin");
    t.remove("/a.bin");
    assert_eq!(alone(&t, id), Amount::default(), "somebody reads it");
    drop(file);
    assert_eq!(alone(&t, id).raw_bytes, MIB as u64);
    t.reopen();
    assert_eq!(alone(&t, id).raw_bytes, MIB as u64);
}

/// Tails and files that the reaper has still to remove are nobody's already.
#[test]
fn what_waits_for_the_reaper_counts_as_removed() {
    let mut t = TestVolume::new();
    // More extents than are removed at once: fixed cells of 8 KiB.
    t.write_file("/shop.db", &random_bytes(1, 40 * MIB));
    let id = t.snapshot_create(b"s").unwrap().id;
    t.truncate("/shop.db", 16 * KIB as u64);
    let cut = alone(&t, id).raw_bytes;
    assert_eq!(cut, 40 * MIB as u64 - 16 * KIB as u64);
    t.remove("/shop.db");
    assert_eq!(alone(&t, id).raw_bytes, 40 * MIB as u64);
    t.crash();
    assert_eq!(alone(&t, id).raw_bytes, 40 * MIB as u64);
    let before = alone(&t, id);
    t.finish_removals().unwrap();
    assert_eq!(alone(&t, id), before);
}

/// Writers change what they like: what old snapshots hold stays the same number all the time.
#[test]
fn counting_among_writers_sees_one_state() {
    let t = TestVolume::new();
    t.write_file("/old.bin", &random_bytes(1, 2 * MIB));
    let id = t.snapshot_create(b"old").unwrap().id;
    t.remove("/old.bin");
    t.commit().unwrap();
    let expected = alone(&t, id);
    assert_eq!(expected.raw_bytes, 2 * MIB as u64);
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let writer = threads.spawn(|| {
            for round in 0..60_u64 {
                t.write_file(&format!("/{round}"), &random_bytes(100 + round, 200 * KIB));
                if round % 5 == 4 {
                    t.remove(&format!("/{}", round - 3));
                    t.snapshot_create(format!("{round}").as_bytes()).unwrap();
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut rounds = 0;
        while !done.load(Ordering::Relaxed) || rounds < 5 {
            assert_eq!(alone(&t, id), expected);
            assert_eq!(t.would_free(&[id]).unwrap(), expected);
            rounds += 1;
        }
        writer.join().unwrap();
    });
    t.assert_sound();
}
