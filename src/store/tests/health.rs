//! What is recorded of the health of chunks and containers, and when it is taken back.

use bytes::Bytes;

use super::double::noise;
use super::{Bench, HINT, with_sealed_container};
use crate::error::Error;
use crate::kv::{Kv, Table};
use crate::shard::Shard;
use crate::store::rows::{FingerprintRow, chunk_key};
use crate::store::{Health, ScrubRow, Store};
use crate::types::{ChunkNo, ContainerId};

/// A committed chunk in a frame of its own, and where its bytes begin.
fn bench() -> (Bench, ChunkNo, ContainerId, usize) {
    let mut t = Bench::new();
    let chunk = t.put(&noise(7, 70_000));
    t.commit();
    let row = t.store.row_of(chunk).unwrap().unwrap();
    let at = row.frame_offset as usize + 32 + 44 + 100;
    (t, chunk, row.container, at)
}

fn recorded(t: &Bench, chunk: ChunkNo) -> (Health, Health, bool) {
    let row = t.store.row_of(chunk).unwrap().unwrap();
    let by_fingerprint = t.kv.get(Table::Fingerprint, &row.fingerprint.0).unwrap().unwrap();
    let by_fingerprint = FingerprintRow::parse(row.fingerprint, &by_fingerprint).unwrap();
    let listed = t.kv.get(Table::Damaged, &chunk_key(chunk)).unwrap().is_some();
    assert_eq!(t.store.damaged(None, 10).unwrap().contains(&chunk), listed);
    (row.health, by_fingerprint.health, listed)
}

const BAD: (Health, Health, bool) = (Health::Bad, Health::Bad, true);
const GOOD: (Health, Health, bool) = (Health::Good, Health::Good, false);

fn flip(t: &Bench, id: ContainerId, at: usize) {
    assert!(t.shard.damage(id, |bytes| bytes[at] ^= 1));
}

fn verify(store: &Store, id: ContainerId) -> (usize, u64) {
    let report = store.verify_container(id).unwrap();
    (report.damaged.len(), report.recovered)
}

/// A disk that was away, a transient error: what reads well again is good again.
#[test]
fn a_bad_chunk_that_verifies_again_is_good_again() {
    for by_reading in [false, true] {
        let (mut t, chunk, id, at) = bench();
        flip(&t, id, at);
        assert!(t.store.read(chunk).is_err());
        t.commit();
        t = t.power_cut();
        assert_eq!(recorded(&t, chunk), BAD);
        assert!(t.store.read(chunk).is_err(), "and its frame is in the cache now");
        t.commit();
        flip(&t, id, at);

        if by_reading {
            t = t.power_cut();
            t.read(chunk);
        } else {
            assert_eq!(verify(&t.store, id), (0, 1));
        }
        t.commit();

        assert_eq!(recorded(&t, chunk), GOOD, "by reading: {by_reading}");
        assert_eq!(t.read(chunk), noise(7, 70_000), "not what the cache held");
        assert!(t.store.is_committed());
        t = t.power_cut();
        assert_eq!(recorded(&t, chunk), GOOD);
        assert!(t.store.put(noise(7, 70_000).into(), HINT).unwrap().known);
    }
}

#[test]
fn restoring_takes_the_right_bytes_only() {
    let (mut t, chunk, id, at) = bench();
    let right = Bytes::from(noise(7, 70_000));
    assert!(!t.store.restore(chunk, right.clone(), HINT).unwrap(), "it is good");
    flip(&t, id, at);
    assert_eq!(verify(&t.store, id), (1, 0));
    t.commit();
    assert_eq!(recorded(&t, chunk), BAD);

    assert!(!t.store.restore(chunk, noise(8, 70_000).into(), HINT).unwrap());
    assert!(!t.store.restore(ChunkNo(99), right.clone(), HINT).unwrap());
    assert!(t.store.restore(chunk, right.clone(), HINT).unwrap());
    assert!(!t.store.restore(chunk, right, HINT).unwrap(), "on its way");
    assert_eq!(t.read(chunk), noise(7, 70_000));
    t.commit();

    assert_eq!(recorded(&t, chunk), GOOD);
    t = t.power_cut();
    assert_eq!(t.read(chunk), noise(7, 70_000));
    assert_eq!(verify(&t.store, id), (0, 0), "nothing points at the bad frame");
}

/// Found bad and written again before the commit: the batch must not list it as damaged.
#[test]
fn healing_in_the_same_txg_leaves_no_mark() {
    let (mut t, chunk, id, at) = bench();
    flip(&t, id, at);
    assert!(t.store.read(chunk).is_err());
    assert!(!t.store.put(noise(7, 70_000).into(), HINT).unwrap().known);
    t.commit();
    assert_eq!(recorded(&t, chunk), GOOD);
    assert!(t.store.is_committed());
}

/// Read errors of the device hit the bytes they hit, and are damage, not the end.
#[test]
fn sectors_that_cannot_be_read_are_damage_of_their_chunks() {
    let mut t = Bench::new();
    let chunks = [t.put(&noise(1, 70_000)), t.put(&noise(2, 70_000))];
    t.commit();
    let row = t.store.row_of(chunks[0]).unwrap().unwrap();
    let bad = u64::from(row.frame_offset)..u64::from(row.frame_offset + row.frame_len);
    t.shard.fail_reads(row.container, Some(bad));
    let error = t.store.read(chunks[0]).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { .. }), "{error}");
    assert_eq!(t.read(chunks[1]), noise(2, 70_000));
    let report = t.store.verify_container(row.container).unwrap();
    assert_eq!((report.damaged.len(), report.chunks, report.flaws.len()), (1, 2, 0));
    t.commit();
    assert_eq!(recorded(&t, chunks[0]), BAD);
    t.shard.fail_reads(row.container, None);
    assert_eq!(verify(&t.store, row.container), (0, 1));
}

#[test]
fn a_verification_can_be_stopped_between_frames() {
    let mut t = Bench::new();
    for seed in 0..4 {
        t.put(&noise(seed, 70_000));
    }
    t.commit();
    let mut frames = Vec::new();
    let mut pace = |len| {
        frames.push(len);
        frames.len() < 3
    };
    assert!(t.store.verify_paced(ContainerId(0), &mut pace).unwrap().is_none());
    assert_eq!(frames.len(), 3);
    assert!(frames.iter().all(|len| *len > 70_000));
}

/// Gc frees the container between two frames: what is missing then is no damage.
#[test]
fn a_container_that_is_freed_meanwhile_is_not_damaged() {
    let (t, id, _) = with_sealed_container();
    t.store.doom(id).unwrap();
    t.store.freeze();
    let mut sealed = Some(t.store.seal().unwrap());
    let mut free = |_| {
        if let Some(sealed) = sealed.take() {
            t.kv.write_parts(&[&sealed]).unwrap();
            t.store.committed(sealed);
        }
        true
    };
    let outcome = t.store.verify_paced(id, &mut free);
    assert!(matches!(outcome, Err(Error::NotFound { .. })), "{outcome:?}");
    assert!(!t.shard.list().unwrap().contains(&id), "it was freed");
    assert!(t.store.is_committed(), "and nothing was found bad");
}

/// Gc moves a chunk while its container is verified, and the old place cannot be read any more.
#[test]
fn a_chunk_that_moves_meanwhile_is_not_damaged() {
    let (t, chunk, id, at) = bench();
    let mut move_away = |_| {
        let mut rows = t.store.rows_of(id).unwrap();
        rows.retain(|(number, _)| *number == chunk);
        assert!(t.store.rewrite(&rows, HINT).unwrap() > 0);
        flip(&t, id, at);
        true
    };
    let report = t.store.verify_paced(id, &mut move_away).unwrap().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(t.read(chunk), noise(7, 70_000));
}

#[test]
fn verifications_are_recorded_with_the_commit_and_go_with_the_container() {
    let (mut t, id, _) = with_sealed_container();
    let row = ScrubRow { time_micros: 5, bytes: 1, damaged: 0, flaws: 0 };
    let last = |t: &Bench| {
        let mut all = Vec::new();
        t.store.each_verified(|id, _, row| all.push((id, row))).unwrap();
        all.into_iter().find(|(found, _)| *found == id).map(|(_, row)| row)
    };
    assert_eq!(last(&t), Some(None));
    t.store.note_verified(id, row);
    assert_eq!(last(&t), Some(Some(row)));
    assert!(!t.store.is_committed());
    t.commit();
    t = t.power_cut();
    assert_eq!(last(&t), Some(Some(row)));
    t.store.doom(id).unwrap();
    t.store.note_verified(id, ScrubRow { time_micros: 6, ..row });
    t.commit();
    assert_eq!((last(&t), t.kv.rows(Table::Scrub)), (None, 0));
    t.store.note_verified(id, row);
    t.commit();
    assert_eq!(t.kv.rows(Table::Scrub), 0, "nothing is said of a container that is gone");
    assert!(t.store.is_committed());
}
