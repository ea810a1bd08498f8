//! Gc beside everything else, on a real volume with threads: what is there stays whole.
//!
//! Each round, writers fill, overwrite, cut and remove files out of a small stock of contents, so
//! that most writes find duplicates and many find content that has just died; one takes snapshots,
//! looks at them again later and deletes them; one reads; gc runs in a loop. Then everything is
//! compared with what the threads remember, and checked with all data read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::ScopedJoinHandle;

use stratafs::gc;
use stratafs::types::{At, Ino, Snapshot};

use super::gc_runs::TINY_CONTAINERS;
use crate::testkit::{KIB, TestVolume, assert_same_bytes, random_bytes, read_all};

const ROUNDS: u64 = 3;
const WRITERS: u64 = 2;
const STEPS: u64 = 150;
const CONTENTS: u64 = 24;

/// Decides what the writers do; printed with a failure.
fn seed() -> u64 {
    std::env::var("STRATAFS_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7)
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Path → number of its content.
type Tree = BTreeMap<String, u64>;

/// Half of what a round uses was used in the round before; the other half dies for good.
fn stock() -> Vec<Vec<u8>> {
    let contents = 0..CONTENTS * (ROUNDS + 1) / 2;
    contents.map(|n| random_bytes(n, (4 + 29 * (n % CONTENTS) as usize) * KIB)).collect()
}

fn write_some(t: &TestVolume, stock: &[Vec<u8>], writer: u64, round: u64, tree: &mut Tree) {
    let mut random = Random(seed() * 1000 + round * 10 + writer);
    for step in 0..STEPS {
        let path = format!("/{writer}/{}", random.below(20));
        let content = round * CONTENTS / 2 + random.below(CONTENTS);
        match (random.below(10), tree.contains_key(&path)) {
            (0..4, true) => {
                t.remove(&path);
                tree.remove(&path);
            }
            (4..7, true) => {
                // In place: cut off, written again.
                t.truncate(&path, 0);
                let file = t.open(&path);
                file.write(0, &stock[content as usize]).unwrap();
                file.finish().unwrap();
                tree.insert(path, content);
            }
            (_, true) => {
                // By name: a new file over the old one, as rsync does.
                let new = format!("/{writer}/.new");
                t.write_file(&new, &stock[content as usize]);
                t.move_to(&new, &path);
                tree.insert(path, content);
            }
            (_, false) => {
                t.write_file(&path, &stock[content as usize]);
                tree.insert(path, content);
            }
        }
        if step % 25 == 24 {
            t.commit().unwrap();
        }
    }
}

/// Everything in a snapshot, by path.
fn content_of(t: &TestVolume, snapshot: &Snapshot) -> BTreeMap<String, Vec<u8>> {
    let at = At::Epoch(snapshot.epoch);
    let mut found = BTreeMap::new();
    for dir in t.list(at, Ino::ROOT, stratafs::types::Cookie(0), 100).unwrap() {
        for entry in t.list(at, dir.ino, stratafs::types::Cookie(0), 1000).unwrap() {
            let path = format!(
                "{}/{}",
                String::from_utf8_lossy(&dir.name),
                String::from_utf8_lossy(&entry.name)
            );
            found.insert(path, read_all(&t.open_file(at, entry.ino).unwrap()));
        }
    }
    found
}

/// Takes, looks at and deletes snapshots until `done`; three live at a time.
fn look_back(t: &TestVolume, round: u64, done: &AtomicBool) {
    let mut kept = std::collections::VecDeque::new();
    for number in 0.. {
        let name = format!("r{round}-{number}");
        let snapshot = t.snapshot_create(name.as_bytes()).unwrap();
        let content = content_of(t, &snapshot);
        kept.push_back((name, snapshot, content));
        if kept.len() > 2 || done.load(Relaxed) {
            let (name, snapshot, content) = kept.pop_front().unwrap();
            let now = content_of(t, &snapshot);
            assert!(now.keys().eq(content.keys()), "names in {name}");
            for (path, bytes) in &now {
                assert_same_bytes(bytes, &content[path], &format!("{path} in {name}"));
            }
            t.snapshot_delete(name.as_bytes()).unwrap();
        }
        if done.load(Relaxed) {
            break;
        }
    }
    kept.iter().for_each(|(name, ..)| t.snapshot_delete(name.as_bytes()).unwrap());
}

fn assert_tree(t: &TestVolume, stock: &[Vec<u8>], trees: &[Tree]) {
    for (path, content) in trees.iter().flatten() {
        t.assert_content(path, &stock[*content as usize]);
    }
    for (writer, tree) in (0..).zip(trees) {
        let dir = t.ino(&format!("/{writer}"));
        assert_eq!(t.list_all(At::Live, dir).len(), tree.len(), "files of writer {writer}");
    }
}

#[test]
fn everything_at_once_beside_gc_stays_whole() {
    println!("STRATAFS_TEST_SEED={}", seed());
    let mut t = TestVolume::with_config(TINY_CONTAINERS);
    let stock = stock();
    let mut trees = vec![Tree::new(); WRITERS as usize];
    for writer in 0..WRITERS {
        t.mkdir(&format!("/{writer}"));
    }
    let (freed, repacked) = (AtomicU64::new(0), AtomicU64::new(0));
    for round in 0..ROUNDS {
        let done = AtomicBool::new(false);
        let (volume, stock_ref, done_ref) = (&t, &stock, &done);
        std::thread::scope(|threads| {
            let writers: Vec<_> = (0..)
                .zip(&mut trees)
                .map(|(writer, tree)| {
                    threads.spawn(move || write_some(volume, stock_ref, writer, round, tree))
                })
                .collect();
            let others = [
                threads.spawn(move || look_back(volume, round, done_ref)),
                threads.spawn(|| {
                    while !done.load(Relaxed) {
                        let report = gc::run(volume).unwrap();
                        freed.fetch_add(report.containers_freed, Relaxed);
                        repacked.fetch_add(report.containers_repacked, Relaxed);
                    }
                }),
            ];
            let ended: Vec<_> = writers.into_iter().map(ScopedJoinHandle::join).collect();
            done.store(true, Relaxed);
            others.into_iter().for_each(|other| other.join().unwrap());
            ended.into_iter().for_each(|ended| ended.unwrap());
        });
        let report = gc::run(&t).unwrap();
        freed.fetch_add(report.containers_freed, Relaxed);
        repacked.fetch_add(report.containers_repacked, Relaxed);
        assert_tree(&t, &stock, &trees);
        t.assert_sound();
        if round % 2 == 0 {
            t.crash();
        } else {
            t.reopen();
        }
        assert_tree(&t, &stock, &trees);
        t.assert_sound();
    }
    let (freed, repacked) = (freed.into_inner(), repacked.into_inner());
    // How often gc comes round beside the writers, the scheduler decides: no number is to be had.
    assert!(freed > 0 && repacked > 0, "gc had nothing to do: {freed} freed, {repacked} repacked");
    let report = gc::run(&t).unwrap();
    assert_tree(&t, &stock, &trees);
    // All snapshots are gone: nothing but what the trees need is left in the books.
    let needed = trees.iter().flat_map(BTreeMap::values).collect::<std::collections::BTreeSet<_>>();
    let needed: usize = needed.into_iter().map(|n| stock[*n as usize].len()).sum();
    assert!(t.stats_report().unwrap().unique_bytes <= 2 * needed as u64 + 2_000_000, "{report:#?}");
}
