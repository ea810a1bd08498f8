//! Known data is found without a look per chunk, and never through what is not true any more.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::double::noise;
use super::{Bench, HINT, SHARD};
use crate::store::neighbours::Neighbours;
use crate::types::{ChunkNo, ContainerId, Fingerprint};

fn small(number: u64) -> Bytes {
    Bytes::from(noise(number, 200))
}

/// Puts chunks; how many were known, looked up and scanned for.
fn put_all(t: &Bench, numbers: impl Iterator<Item = u64>) -> (u64, u64, u64) {
    let activity = &t.stats.activity;
    let before = activity.copy();
    let known = numbers.filter(|n| t.store.put(small(*n), HINT).unwrap().known).count();
    let counted = activity.copy().since(&before);
    (known as u64, counted.index_gets, counted.index_scans)
}

/// A bench that has loaded the fingerprints of chunks 2 to 65 of those it holds.
fn loaded(chunks: u64) -> Bench {
    let mut t = Bench::new();
    assert_eq!(put_all(&t, 0..chunks), (0, chunks, 0), "new data: one look each");
    t.commit();
    assert_eq!(put_all(&t, 0..2), (2, 2, 1));
    t
}

fn seal_container(t: &mut Bench) -> ContainerId {
    t.store.close_open();
    t.commit();
    t.store.containers().unwrap()[0].0
}

#[test]
fn known_data_in_order_costs_a_scan_per_thousand_chunks() {
    let t = loaded(20_000);
    let (known, gets, scans) = put_all(&t, 2..20_000);
    assert_eq!(known, 19_998);
    // 64 of them are loaded; then 128, 256, 512 and a thousand per scan.
    assert_eq!((gets, scans), (22, 22));
    assert!(t.store.load().neighbour_bytes <= Neighbours::BOUND as u64);
    // The last chunks are still there.
    assert_eq!(put_all(&t, 19_000..20_000), (1000, 0, 0));
}

/// Two files that come in at the same time, with new data in between.
#[test]
fn streams_do_not_disturb_each_other() {
    let t = loaded(8_000);
    let mixed = (100..3_000).flat_map(|n| [n, 4_000 + n, 1_000_000 + n]);
    let (known, gets, scans) = put_all(&t, mixed);
    assert_eq!(known, 2 * 2_900);
    assert!(gets - 2_900 < 20, "{gets} looks, 2,900 of them for what is new");
    assert!(scans < 20, "{scans} scans");
}

#[test]
fn known_data_in_no_order_is_scanned_for_in_vain_rarely() {
    let t = loaded(20_000);
    let mixed = (0..2_000).map(|n| 100 + n * 7_919 % 19_000);
    let (known, gets, scans) = put_all(&t, mixed);
    assert_eq!(known, 2_000);
    assert!(gets <= 2_000 && scans < 200, "{gets} looks, {scans} scans");
}

/// P4: what is known to be bad is not found, whoever loaded it before.
#[test]
fn a_chunk_found_bad_is_not_found_nearby() {
    for committed in [false, true] {
        let mut t = loaded(50);
        let chunk = t.store.put(small(30), HINT).unwrap().chunk;
        let row = t.store.row_of(chunk).unwrap().unwrap();
        assert_eq!(put_all(&t, 30..31), (1, 0, 0));
        let payload = (row.frame_offset + row.frame_len) as usize - 1;
        assert!(t.shard.damage(row.container, |bytes| bytes[payload] ^= 1));
        assert!(t.store.read(ChunkNo(49)).is_err(), "the last one of the frame");
        if committed {
            t.commit();
        }
        let healed = t.store.put(small(49), HINT).unwrap();
        assert!(!healed.known, "committed: {committed}");
        assert_eq!(healed.chunk, ChunkNo(49), "under its old number");
        t.commit();
        assert_eq!(t.read(ChunkNo(49)), small(49));
    }
}

#[test]
fn a_forgotten_chunk_is_not_found_nearby() {
    for commits in 0..3 {
        let mut t = loaded(50);
        let id = seal_container(&mut t);
        assert_eq!(put_all(&t, 30..31), (1, 0, 0));
        t.store.doom(id).unwrap();
        (0..commits).for_each(|_| t.commit());
        let again = t.store.put(small(30), HINT).unwrap();
        assert!(!again.known && again.chunk.0 >= 50, "{again:?} after {commits} commits");
        t.commit();
        assert_eq!(t.read(again.chunk), small(30));
    }
}

#[test]
fn a_chunk_on_a_shard_that_is_away_is_not_found_nearby() {
    let mut t = loaded(50);
    assert_eq!(put_all(&t, 30..31), (1, 0, 0));
    t.store.set_away(SHARD, "a test".into());
    let error = t.store.put(small(30), HINT).unwrap_err();
    assert!(error.to_string().contains("a test"), "there is no other shard: {error}");
    t.store.add_shard(SHARD, std::sync::Arc::new(t.shard.clone())).unwrap();
    assert_eq!(put_all(&t, 30..31), (1, 0, 0), "found again when it is back");
    t.commit();
}

/// Rows that were read before a commit may be of chunks that it took away.
#[test]
fn what_was_read_before_a_commit_is_not_taken_after_it() {
    let mut t = Bench::new();
    put_all(&t, 0..50);
    t.commit();
    let core = std::sync::Arc::clone(&t.store.core);
    let commits = core.pending.lock().commits;
    let rows = core.good_chunks(ChunkNo(0)..=ChunkNo(49)).unwrap();
    assert_eq!(rows.len(), 50);
    let id = seal_container(&mut t);
    t.store.doom(id).unwrap();
    t.commit();
    core.take_neighbours(rows, commits);
    let found = core.pending.lock().neighbours.find(&Fingerprint::of(&small(30)));
    assert_eq!(found, None);
    assert_eq!(core.stats.activity.index_scans.load(Relaxed), 0);
    assert!(!t.store.put(small(30), HINT).unwrap().known);
}
