//! What is damaged × where: the chunks that are hit are errors, all others stay readable.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::double::{FailingShard, MapKv, noise};
use super::{Bench, CLASS, HINT, SHARD, commit, open_on, with_sealed_container};
use crate::codec::CodecChoice;
use crate::error::Error;
use crate::shard::Shard;
use crate::store::{ChunkRow, ContainerState, Health, NextIds, PutHint, scan_frames};
use crate::types::{ChunkNo, ContainerId};

/// Three frames: one with `a` and `b`, one with `c`, one with `d`; none compressed.
struct Damage {
    t: Bench,
    id: ContainerId,
    chunks: [ChunkNo; 4],
    /// Offsets of the frames.
    frames: Vec<usize>,
}

fn contents() -> [Vec<u8>; 4] {
    [noise(1, 1000), noise(2, 2001), noise(3, 70_000), noise(4, 80_000)]
}

fn bench() -> Damage {
    let mut t = Bench::new();
    let hint = PutHint { codec: CodecChoice::None, ..HINT };
    let mut chunks = [ChunkNo(0); 4];
    for (n, raw) in contents().into_iter().enumerate() {
        chunks[n] = t.store.put(raw.into(), hint).unwrap().chunk;
        if n > 0 {
            t.commit();
        }
    }
    let (id, row) = t.store.containers().unwrap()[0];
    let frames: Vec<usize> = scan_frames(&t.shard, id, row.bytes)
        .map(|frame| usize::try_from(frame.unwrap().offset).unwrap())
        .collect();
    assert_eq!(frames.len(), 3);
    Damage { t, id, chunks, frames }
}

impl Damage {
    fn flip(&self, at: usize) {
        assert!(self.t.shard.damage(self.id, |bytes| bytes[at] ^= 0x20));
    }

    /// Which chunks can be read, with their right bytes.
    fn readable(&self) -> [bool; 4] {
        let contents = contents();
        std::array::from_fn(|n| match self.t.store.read(self.chunks[n]) {
            Ok(bytes) => {
                assert_eq!(bytes, contents[n], "chunk {n}: wrong bytes are worse than none");
                true
            }
            Err(Error::Corrupt { object, .. }) => {
                let want =
                    format!("chunk {} in container {} on shard {SHARD}", self.chunks[n], self.id);
                assert_eq!(object, want);
                false
            }
            Err(other) => panic!("{other}"),
        })
    }
}

#[test]
fn each_part_of_a_frame_hits_only_its_own_chunks() {
    let payload = 32 + 2 * 44;
    let cases = [
        ("magic", 0, [false, false, true, true]),
        ("chunk count", 8, [false, false, true, true]),
        ("lengths", 13, [false, false, true, true]),
        ("payload checksum", 20, [false, false, true, true]),
        ("header checksum", 28, [false, false, true, true]),
        ("directory", 40, [false, false, true, true]),
        ("first chunk", payload + 5, [false, true, true, true]),
        ("second chunk", payload + 1000, [true, false, true, true]),
        ("padding", payload + 3001, [true, true, true, true]),
    ];
    for (what, offset, want) in cases {
        let damage = bench();
        damage.flip(damage.frames[0] + offset);
        assert_eq!(damage.readable(), want, "{what}");
        let report = damage.t.store.verify_container(damage.id).unwrap();
        let damaged: Vec<ChunkNo> = report.damaged.iter().map(|d| d.chunk).collect();
        let expect: Vec<ChunkNo> = (0..4).filter(|n| !want[*n]).map(|n| damage.chunks[n]).collect();
        assert_eq!(damaged, expect, "{what}");
        assert_eq!((report.frames, report.chunks), (3, 4));
    }
}

#[test]
fn a_damaged_compressed_frame_hits_all_its_chunks_and_no_other() {
    let mut t = Bench::new();
    let hit = [t.put(&[1; 5000]), t.put(&[2; 5000])];
    t.commit();
    let fine = t.put(&[3; 5000]);
    t.commit();
    let (id, _) = t.store.containers().unwrap()[0];
    assert!(t.shard.damage(id, |bytes| bytes[64 + 32 + 88 + 2] ^= 0xff));
    for chunk in hit {
        assert!(matches!(t.store.read(chunk), Err(Error::Corrupt { .. })));
    }
    assert_eq!(t.read(fine), [3; 5000]);
    assert!(!t.store.verify_container(id).unwrap().flaws.iter().any(|f| f.contains("footer")));
}

#[test]
fn missing_and_cut_containers_are_damage() {
    let damage = bench();
    let cut = damage.frames[2] + 100;
    damage.t.shard.damage(damage.id, |bytes| bytes.truncate(cut));
    assert_eq!(damage.readable(), [true, true, true, false]);
    let damage = bench();
    damage.t.shard.delete(damage.id).unwrap();
    assert_eq!(damage.readable(), [false; 4]);
}

#[test]
fn damaged_edges_hit_no_chunk_but_are_reported() {
    let (t, id, chunks) = with_sealed_container();
    assert!(t.store.verify_container(id).unwrap().is_clean());
    for at in [10, usize::MAX] {
        let flip = |bytes: &mut Vec<u8>| {
            let at = at.min(bytes.len() - 5);
            bytes[at] ^= 1;
        };
        assert!(t.shard.damage(id, flip));
        let report = t.store.verify_container(id).unwrap();
        assert_eq!((report.flaws.len(), report.damaged.len()), (1, 0), "{report:?}");
        assert!(t.shard.damage(id, flip));
    }
    assert_eq!(t.read(chunks[0]), b"one");
}

#[test]
fn putting_the_bytes_again_heals_under_the_same_number() {
    for committed in [false, true] {
        let mut damage = bench();
        damage.flip(damage.frames[0] + 32 + 88);
        assert_eq!(damage.readable(), [false, true, true, true]);
        if committed {
            // The mark survives a restart.
            damage.t.commit();
            damage.t = damage.t.power_cut();
        }
        let [raw, ..] = contents();
        let put = damage.t.store.put(Bytes::from(raw.clone()), HINT).unwrap();
        assert!(!put.known, "damage does not spread");
        assert_eq!(put.chunk, damage.chunks[0]);
        assert_eq!(damage.readable(), [true; 4]);
        assert!(damage.t.store.put(Bytes::from(raw), HINT).unwrap().known);
        damage.t.commit();
        damage.t = damage.t.power_cut();
        assert_eq!(damage.readable(), [true; 4]);
        let good = |_, row: &ChunkRow| {
            assert_eq!(row.health, Health::Good);
            Ok(())
        };
        damage.t.store.each_chunk(ChunkNo(0), 1000, good).unwrap();
    }
}

#[test]
fn an_open_container_that_cannot_be_continued_is_closed_and_stays_readable() {
    for cut in [false, true] {
        let mut damage = bench();
        let second = damage.frames[1];
        damage.t.shard.damage(damage.id, |bytes| {
            if cut { bytes.truncate(second) } else { bytes[second] ^= 1 }
        });
        damage.t = damage.t.power_cut();
        assert_eq!(damage.readable(), [true, true, false, !cut]);
        let new = damage.t.put(b"new");
        damage.t.commit();
        let containers = damage.t.store.containers().unwrap();
        let states: Vec<_> = containers.iter().map(|(_, row)| row.state).collect();
        assert_eq!(states, [ContainerState::Sealed, ContainerState::Open]);
        assert!(containers.iter().all(|(_, row)| row.class == CLASS));
        damage.t = damage.t.power_cut();
        assert_eq!(damage.t.read(new), b"new");
    }
}

#[test]
fn a_bad_sector_closes_an_open_container_and_a_disk_in_trouble_or_away_does_not() {
    for (errno, gone, closes) in
        [(libc::EIO, false, true), (libc::ENOMEM, false, false), (libc::EIO, true, false)]
    {
        let (shard, kv) = (Arc::new(FailingShard::default()), Arc::<MapKv>::default());
        let open = |next| open_on(&kv, Arc::clone(&shard) as _, next);
        let store = open(NextIds::default());
        let kept = store.put(Bytes::from_static(b"kept"), HINT).unwrap().chunk;
        let next = commit(&store, &kv).unwrap();
        drop(store);
        shard.fail_reads(Some(errno), gone);
        let store = open(next);
        store.put(Bytes::from_static(b"new"), HINT).unwrap();
        let done = commit(&store, &kv);
        assert_eq!(done.is_ok(), closes, "{done:?}");
        assert_eq!(matches!(done, Err(Error::ShardMissing { .. })), gone, "{done:?}");
        let states: Vec<_> = store.containers().unwrap().iter().map(|(_, row)| row.state).collect();
        let closed = [ContainerState::Sealed, ContainerState::Open];
        assert_eq!(states, if closes { &closed[..] } else { &closed[1..] });
        shard.fail_reads(None, false);
        assert_eq!(store.read(kept).unwrap(), b"kept"[..]);
    }
}

#[test]
fn a_bad_sector_in_a_payload_does_not_end_the_walk_over_short_frames() {
    let (shard, kv) = (Arc::new(FailingShard::default()), Arc::<MapKv>::default());
    let store = open_on(&kv, Arc::clone(&shard) as _, NextIds::default());
    for n in 0..12 {
        store.put(noise(n, 10_000).into(), HINT).unwrap();
        commit(&store, &kv).unwrap();
    }
    let (id, row) = store.containers().unwrap()[0];
    let walk = || -> Vec<u32> {
        scan_frames(&*shard, id, row.bytes).map(|frame| frame.unwrap().offset).collect()
    };
    let all = walk();
    assert_eq!(all.len(), 12);
    shard.spoil_sector(u64::from(all[6]) + 8_000);
    assert_eq!(walk(), all);
}

#[test]
fn what_gc_would_close_leaves_out_an_open_container_that_damage_has_closed() {
    let mut damage = bench();
    let (id, row) = damage.t.store.containers().unwrap()[0];
    damage.t = damage.t.power_cut();
    let whole = damage.t.store.if_closed().unwrap();
    assert_eq!(whole.keys().collect::<Vec<_>>(), [&id]);
    assert!(whole[&id] > row.bytes, "with its footer");
    damage.flip(damage.frames[1]);
    damage.t = damage.t.power_cut();
    assert!(damage.t.store.if_closed().unwrap().is_empty());
    damage.t.commit();
    let now = damage.t.store.containers().unwrap()[0].1;
    assert_eq!((now.state, now.bytes), (ContainerState::Sealed, row.bytes));
}

#[test]
fn scans_step_over_zeros_to_the_next_block() {
    let damage = bench();
    let first = damage.frames[0];
    let len = usize::try_from(damage.t.shard.len(damage.id).unwrap()).unwrap();
    let shard = crate::shard::MemoryShard::new();
    let mut bytes = vec![0; len];
    damage.t.shard.read_at(damage.id, 0, &mut bytes).unwrap();
    let mut spread = bytes[..damage.frames[1]].to_vec();
    spread.resize(spread.len().next_multiple_of(4096), 0);
    let moved = spread.len();
    spread.extend_from_slice(&bytes[damage.frames[1]..damage.frames[2]]);
    spread.resize(spread.len().next_multiple_of(4096), 0);
    shard.create(damage.id).unwrap().append(&[&spread]).unwrap();
    let frames: Vec<usize> = scan_frames(&shard, damage.id, spread.len() as u64)
        .map(|frame| frame.unwrap().offset as usize)
        .collect();
    assert_eq!(frames, [first, moved]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever happens to a container's bytes: no panic, no wrong bytes, and it opens again.
    #[test]
    fn random_damage_never_gives_wrong_bytes(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut damage = bench();
        damage.t.shard.damage(damage.id, |bytes| {
            for (at, mask) in &flips {
                let at = at.index(bytes.len());
                bytes[at] ^= mask;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
        });
        let before = damage.readable();
        damage.t.store.verify_container(damage.id).unwrap();
        damage.t = damage.t.power_cut();
        prop_assert_eq!(damage.readable(), before);
    }
}
