//! Small data, stored small: what a file and a chunk cost beside their bytes, counted.

use std::collections::BTreeSet;

use stratafs::error::Error;
use stratafs::kv::{Batch, KeyRange, Kv, Order, RocksKv, RocksOptions, Table};
use stratafs::store::ChunkRow;
use stratafs::types::ChunkNo;

use crate::testkit::{KIB, MIB, TestVolume, random_bytes, text_bytes};

fn tables(t: &TestVolume) -> RocksKv {
    RocksKv::open(&t.volume_dir().join("meta"), &RocksOptions::default()).unwrap()
}

/// Bytes of keys and values in these tables, by `count`.
fn bytes_each(kv: &RocksKv, tables: &[Table], count: usize) -> usize {
    let rows = tables.iter().flat_map(|table| kv.scan(*table, &KeyRange::all(), Order::Forward));
    let all: usize = rows.map(|row| row.unwrap()).map(|(key, value)| key.len() + value.len()).sum();
    all / count
}

const FILES: usize = 1_000;

/// 1,000 files of 4 KiB, each one chunk.
fn small_files() -> TestVolume {
    let t = TestVolume::new();
    t.mkdir("/src");
    let counted = t.counting(|| {
        for number in 0..FILES {
            t.write_file(&format!("/src/name_{number}.rs"), &text_bytes(number as u64, 4 * KIB));
        }
        t.commit().unwrap();
    });
    assert_eq!(counted.new_chunks, FILES as u64, "{counted:#?}");
    t
}

#[test]
fn rows_of_a_file_and_of_a_chunk_are_short() {
    let mut t = small_files();
    t.close();
    let kv = tables(&t);
    let of_file = bytes_each(&kv, &[Table::Inode, Table::Dirent, Table::Extent], FILES);
    let of_chunk = bytes_each(&kv, &[Table::Chunk, Table::Fingerprint], FILES);
    assert!(of_file <= 130, "{of_file} bytes per file");
    assert!(of_chunk <= 95, "{of_chunk} bytes per chunk");
}

/// A frame has 32 bytes of its own, and each is compressed by itself: few are wanted.
#[test]
fn small_files_of_one_class_share_frames_up_to_the_bound_of_the_class() {
    let mut t = small_files();
    t.close();
    let rows = tables(&t);
    let frames: BTreeSet<_> = rows
        .scan(Table::Chunk, &KeyRange::all(), Order::Forward)
        .map(|row| ChunkRow::parse(ChunkNo(0), &row.unwrap().1).unwrap())
        .map(|row| (row.container, row.frame_offset, row.frame_raw_len))
        .collect();
    drop(rows);
    // Commits in the background close a group early: a slow machine may have a few.
    let raw = FILES * 4 * KIB;
    assert!((raw.div_ceil(512 * KIB)..20).contains(&frames.len()), "{frames:?}");
    t.open_closed();
    for number in [0, 1, 500, 999] {
        let expected = text_bytes(number, 4 * KIB);
        t.assert_content(&format!("/src/name_{number}.rs"), &expected);
    }
    t.assert_sound();
}

#[test]
fn a_volume_goes_on_cutting_as_it_began() {
    let mut t = TestVolume::new();
    let chunks_of = |t: &TestVolume, name: &str, seed| {
        t.counting(|| t.write_file(name, &random_bytes(seed, MIB))).new_chunks
    };
    assert_eq!(chunks_of(&t, "/new.db", 1), 128, "cells of 8 KiB");
    // As if it had been made when nothing was recorded.
    t.close();
    let mut batch = Batch::default();
    batch.delete(Table::Super, &b"cuts"[..]);
    tables(&t).write(batch).unwrap();
    t.open_closed();
    assert_eq!(chunks_of(&t, "/old.db", 2), 64, "cells of 16 KiB");
    assert_eq!(chunks_of(&t, "/copy.db", 2), 0);
    // By a newer program: it would find no duplicate.
    t.close();
    let mut batch = Batch::default();
    batch.put(Table::Super, &b"cuts"[..], b"\x00\x09\x80\x20".to_vec());
    tables(&t).write(batch).unwrap();
    let Err(error) = t.try_open(false) else { panic!("an unknown way to cut") };
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
    let reader = t.try_open(true).unwrap();
    assert_eq!(reader.damage_at_opening().len(), 1);
    reader.shutdown().unwrap();
}
