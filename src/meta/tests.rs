//! Bytes on disk, the rule of versions case by case, damage, cost; `model` compares with a model.

mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{Edit, Meta, Reap, ShardRow, View, key, record};
use crate::error::{Error, Result};
use crate::kv::{Batch, KeyRange, Kv, KvUsage, MemoryKv, Order, Rows, Table};
use crate::types::{
    At, ChunkNo, ClassId, Cookie, Dirent, Epoch, Extent, FileKind, Ino, Inode, ShardId, Snapshot,
    SnapshotId, Timestamp,
};

fn sample_inode(size: u64) -> Inode {
    let time = |secs, nanos| Timestamp { secs, nanos };
    Inode {
        kind: FileKind::Symlink,
        perm: 0o7777,
        uid: 1000,
        gid: 100,
        nlink: 2,
        rdev: 0x801,
        size,
        mapped: 200,
        atime: time(-1, 999_999_999),
        mtime: time(1, 0),
        ctime: time(2, 1),
        btime: time(1_700_000_000, 5),
        class: ClassId(7),
        parent: Ino(300),
        home: 0x05dd_8bf7,
        stamp: 0,
        target: (*b"to").into(),
    }
}

fn snapshot(id: u32, name: &str, epoch: Epoch) -> Snapshot {
    let name = name.as_bytes().into();
    Snapshot {
        id: SnapshotId(id),
        name,
        epoch,
        time: Timestamp::default(),
        held: false,
        locked_until: None,
    }
}

/// Takes a snapshot as `volume` does; returns the epoch it sees.
fn take_snapshot(meta: &Meta, id: u32) -> Epoch {
    let mut edit = meta.edit();
    let epoch = edit.view().epoch();
    edit.put_snapshot(&snapshot(id, &format!("s{id}"), epoch));
    edit.advance_epoch();
    epoch
}

fn commit(meta: &Meta, kv: &dyn Kv) {
    meta.freeze();
    kv.write(meta.frozen_batch()).unwrap();
    meta.committed();
}

/// Drops what nobody needs of what is committed; returns how many rows that were.
fn prune_all(meta: &Meta, piece: usize) -> usize {
    let (mut dropped, mut resume) = (0, None);
    loop {
        let (dead, next) = meta.find_dead(resume, piece).unwrap();
        meta.drop_rows(&dead);
        dropped += dead.len();
        resume = next;
        if resume.is_none() {
            return dropped;
        }
    }
}

/// The chunks that committed extents refer to.
fn chunk_refs(meta: &Meta, piece: usize) -> Vec<ChunkNo> {
    let (mut chunks, mut resume) = (Vec::new(), None);
    loop {
        resume = meta.chunk_refs(resume, piece, &mut |chunk| chunks.push(chunk)).unwrap();
        if resume.is_none() {
            return chunks;
        }
    }
}

fn memory() -> (Arc<MemoryKv>, Meta) {
    let kv = Arc::new(MemoryKv::new());
    let meta = Meta::open(kv.clone()).unwrap();
    (kv, meta)
}

fn rows(kv: &dyn Kv, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    kv.scan(table, &KeyRange::all(), Order::Forward)
        .map(|row| row.map(|(key, value)| (key.into_vec(), value.into_vec())).unwrap())
        .collect()
}

// ---- bytes ----

#[test]
fn keys_have_these_bytes() {
    let ino = Ino(0x01_0203_0405);
    assert_eq!(key::inode(ino), [0, 0, 0, 1, 2, 3, 4, 5]);
    let cookie = Cookie::of(b"a");
    assert_eq!(cookie, Cookie(0x05dd_8bf7_765a_6914));
    assert_eq!(
        key::dirent(ino, b"a"),
        [0, 0, 0, 1, 2, 3, 4, 5, 0x05, 0xdd, 0x8b, 0xf7, 0x76, 0x5a, 0x69, 0x14, b'a']
    );
    assert_eq!(key::extent(ino, 0x10_0000), [0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0x10, 0, 0]);
    assert_eq!(key::xattr(ino, b"user.a"), *b"\0\0\0\x01\x02\x03\x04\x05user.a");
    assert_eq!(
        key::history(Table::Inode, &key::inode(ino), Epoch(9)),
        [1, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0, 9]
    );
    assert_eq!(
        key::change(Epoch(9), Table::Inode, &key::inode(ino)),
        [0, 0, 0, 0, 0, 0, 0, 9, 1, 0, 0, 0, 1, 2, 3, 4, 5]
    );
    assert_eq!(key::snapshot(SnapshotId(0x0001_0203)), [0, 1, 2, 3]);
    assert_eq!(key::shard(ShardId(0x0102)), [1, 2]);
}

#[test]
fn keys_come_back() {
    let ino = Ino(u64::MAX - 1);
    assert_eq!(key::read_inode(&key::inode(ino)), Ok(ino));
    let name = [0xff; 255];
    let dirent = key::dirent(ino, &name);
    assert_eq!(key::read_dirent(&dirent), Ok((ino, Cookie::of(&name), &name[..])));
    assert_eq!(key::read_extent(&key::extent(ino, u64::MAX)), Ok((ino, u64::MAX)));
    assert_eq!(key::read_xattr(&key::xattr(ino, b"n")), Ok((ino, &b"n"[..])));
    let history = key::history(Table::Dirent, &dirent, Epoch(3));
    assert_eq!(key::read_history(&history), Ok((Table::Dirent, &dirent[..], Epoch(3))));
    assert_eq!(key::read_snapshot(&key::snapshot(SnapshotId(5))), Ok(SnapshotId(5)));
    assert_eq!(key::read_shard(&key::shard(ShardId(5))), Ok(ShardId(5)));

    assert!(key::read_inode(&[0; 7]).is_err());
    assert!(key::read_inode(&[0; 9]).is_err());
    assert!(key::read_dirent(&[0; 16]).is_err(), "no name");
    assert!(key::read_extent(&[0; 15]).is_err());
    assert!(key::read_extent(&[0; 17]).is_err());
    assert!(key::read_xattr(&[0; 8]).is_err(), "no name");
    assert!(key::read_history(&[1, 0, 0]).is_err());
    assert!(key::read_history(&key::history(Table::Chunk, b"k", Epoch(1))).is_err());
    assert!(key::read_history(&key::history(Table::Inode, b"k", Epoch(1 << 56))).is_err());
    assert!(key::read_snapshot(&[0; 3]).is_err());
    assert!(key::read_shard(&[0; 3]).is_err());
}

/// A shorter name sorts before its extensions in history as it does live, whatever the epochs.
#[test]
fn history_keeps_the_order_of_live_keys() {
    let names: [&[u8]; 4] = [b"a", b"a\x01", b"a\x01\x01", b"b"];
    let keys: Vec<_> = names.iter().map(|name| key::xattr(Ino(1), name)).collect();
    let mut history = Vec::new();
    for key in &keys {
        for end in [Epoch(1), Epoch(0x0101), Epoch((1 << 56) - 1)] {
            history.push(key::history(Table::Xattr, key, end));
        }
    }
    assert!(history.is_sorted());
    let range = key::versions_after(Table::Xattr, &keys[0], Epoch(1));
    let upper = range.upper.unwrap();
    let inside: Vec<_> = history.iter().filter(|k| **k >= range.lower && **k < upper).collect();
    assert_eq!(inside, [&history[1], &history[2]]);
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

#[test]
fn records_have_these_bytes() {
    let inode = sample_inode(300);
    let bytes = encoded(|out| record::put_inode(out, &inode));
    let golden = [
        1, 3, 0xff, 0x1f, 0xe8, 7, 100, 2, 0x81, 0x10, 0xac, 2, 0xc8, 1, // fixed fields
        1, 0xff, 0x93, 0xeb, 0xdc, 3, 2, 0, 4, 1, 0x80, 0xc4, 0x9f, 0xd5, 0xc, 5, // times
        7, 0xac, 2, 0x05, 0xdd, 0x8b, 0xf7, 2, b't', b'o',
    ];
    assert_eq!(bytes, golden);
    assert_eq!(record::inode(&bytes), Ok(inode.clone()));
    // As it was before an inode knew its home.
    let homeless = [&[0][..], &golden[1..33], &golden[37..]].concat();
    let inode = Inode { home: 0, ..inode };
    assert_eq!(encoded(|out| record::put_inode(out, &inode)), homeless);
    assert_eq!(record::inode(&homeless), Ok(inode));

    // As an import makes it.
    let inode = Inode { stamp: 0x0102_0304_0506_0708, ..sample_inode(300) };
    let stamp = [1, 2, 3, 4, 5, 6, 7, 8];
    let stamped = [&[3][..], &golden[1..37], &stamp, &golden[37..]].concat();
    assert_eq!(encoded(|out| record::put_inode(out, &inode)), stamped);
    assert_eq!(record::inode(&stamped), Ok(inode));

    let dirent = Dirent { ino: Ino(300), kind: FileKind::Directory };
    let bytes = encoded(|out| record::put_dirent(out, dirent));
    assert_eq!(bytes, [0xac, 2, 2]);
    assert_eq!(record::dirent(&bytes), Ok(dirent));

    let extent = Extent { offset: 77, len: 128, chunk: ChunkNo(300), chunk_offset: 5 };
    let bytes = encoded(|out| record::put_extent(out, &extent));
    assert_eq!(bytes, [0xac, 2, 5, 0x80, 1]);
    assert_eq!(record::extent(77, &bytes), Ok(extent));

    let mut row = snapshot(1, "daily", Epoch(300));
    row.time = Timestamp { secs: -2, nanos: 9 };
    let bytes = encoded(|out| record::put_snapshot(out, &row));
    assert_eq!(bytes, *b"\xac\x02\x03\x09\0daily");
    assert_eq!(record::snapshot(row.id, &bytes), Ok(row.clone()));
    row.held = true;
    let bytes = encoded(|out| record::put_snapshot(out, &row));
    assert_eq!(bytes, *b"\xac\x02\x03\x09\x01daily");
    assert_eq!(record::snapshot(row.id, &bytes), Ok(row.clone()));
    row.locked_until = Some(-200);
    let bytes = encoded(|out| record::put_snapshot(out, &row));
    assert_eq!(bytes, *b"\xac\x02\x03\x09\x03\x8f\x03daily");
    assert_eq!(record::snapshot(row.id, &bytes), Ok(row));

    let reap = Reap { from: 300, delete: true };
    let bytes = encoded(|out| record::put_reap(out, reap));
    assert_eq!(bytes, [0xac, 2, 1]);
    assert_eq!(record::reap(&bytes), Ok(reap));

    let row = ShardRow { name: "big".into(), path: "/mnt/b".into(), weight: 300 };
    let bytes = encoded(|out| record::put_shard(out, &row));
    assert_eq!(bytes, *b"\xac\x02\x03big/mnt/b");
    assert_eq!(record::shard(&bytes), Ok(row));

    let bytes = encoded(|out| record::put_numbers(out, &[0, 300]));
    assert_eq!(bytes, [0, 0xac, 2]);
    assert_eq!(record::numbers(&bytes), Ok(vec![0, 300]));
    assert_eq!(encoded(|out| record::put_birth(out, Epoch(300))), [0xac, 2]);
}

/// No prefix of a record reads, nor a record with a byte more (but for those that end in bytes).
#[test]
fn cut_and_grown_records_are_refused() {
    type Check = fn(&[u8]) -> bool;
    let inode = encoded(|out| record::put_inode(out, &sample_inode(1)));
    let dirent = [0xac, 2, 2];
    let extent = [0xac, 2, 5, 0x80, 1];
    let cases: [(&[u8], Check); 4] = [
        (&inode, |b| record::inode(b).is_err()),
        (&dirent, |b| record::dirent(b).is_err()),
        (&extent, |b| record::extent(0, b).is_err()),
        (&[0xac, 2, 1], |b| record::reap(b).is_err()),
    ];
    for (bytes, refused) in cases {
        assert!(!refused(bytes));
        for len in 0..bytes.len() {
            assert!(refused(&bytes[..len]), "{bytes:?} cut to {len}");
        }
        assert!(refused(&[bytes, &[0]].concat()), "{bytes:?} grown");
    }
}

#[test]
fn values_out_of_bounds_are_refused() {
    let patched = |at: usize, byte: u8| {
        let mut bytes = encoded(|out| record::put_inode(out, &sample_inode(300)));
        bytes[at] = byte;
        record::inode(&bytes)
    };
    assert_eq!(patched(0, 4), Err("an inode flag is unknown"));
    assert_eq!(patched(0, 5), Err("an inode flag is unknown"));
    assert_eq!(patched(1, 8), Err("the file kind is unknown"));
    assert_eq!(patched(3, 0x20), Err("the permissions are invalid"));
    assert_eq!(patched(16, 0x94), Err("a time is invalid"));
    assert_eq!(patched(37, 3), Err("it ends too early"));
    let mut bytes = encoded(|out| record::put_inode(out, &sample_inode(300)));
    bytes[33..37].fill(0);
    assert_eq!(record::inode(&bytes), Err("the home is 0"));
    let huge = encoded(|out| record::put_inode(out, &sample_inode(1 << 63)));
    assert_eq!(record::inode(&huge), Err("the size is too large"));
    assert!(record::dirent(&[1, 0]).is_err());
    assert!(record::extent(0, &[1, 0, 0]).is_err(), "empty extent");
    assert!(record::extent(0, &[1, 1, 0x80, 0x80, 0x40]).is_err(), "beyond the largest chunk");
    assert!(record::extent(u64::MAX, &[1, 0, 1]).is_err(), "beyond the largest file");
    assert!(record::snapshot(SnapshotId(1), &[1, 0, 0, 4, b'n']).is_err(), "unknown flag");
    assert!(record::reap(&[1, 2]).is_err());
    assert!(record::shard(&[1, 1, 0xff]).is_err(), "not UTF-8");
    assert!(record::shard(&[1, 9, b'a']).is_err(), "name too short");
    assert!(record::numbers(&[0x80]).is_err());
    assert!(record::split_birth(&encoded(|o| record::put_birth(o, Epoch(1 << 56)))).is_err());
}

// ---- versions ----

/// What happens to one inode, told in order; its size is the version.
#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u64),
    Delete,
    Snap(u32),
    Unsnap(u32),
    Pin(u64),
    Unpin(u64),
    Prune,
    Commit,
}

use Step::{Commit, Delete, Pin, Prune, Put, Snap, Unpin, Unsnap};

const INO: Ino = Ino(7);

/// Runs the steps; returns rows of (history, change) and what each epoch up to now sees.
fn tell(steps: &[Step]) -> (usize, usize, Vec<Option<u64>>) {
    let (kv, meta) = memory();
    for step in steps {
        match *step {
            Put(size) => meta.edit().put_inode(INO, &sample_inode(size)).unwrap(),
            Delete => meta.edit().delete_inode(INO).unwrap(),
            Snap(id) => drop(take_snapshot(&meta, id)),
            Unsnap(id) => meta.edit().delete_snapshot(SnapshotId(id)),
            Pin(epoch) => meta.pin(Epoch(epoch)),
            Unpin(epoch) => meta.unpin(Epoch(epoch)),
            Prune => {
                commit(&meta, &*kv);
                prune_all(&meta, 1);
            }
            Commit => commit(&meta, &*kv),
        }
    }
    let view = meta.read();
    let size = |at| view.inode(at, INO).unwrap().map(|inode| inode.size);
    let mut seen: Vec<_> = (1..view.epoch().0).map(|e| size(At::Epoch(Epoch(e)))).collect();
    seen.push(size(At::Live));
    drop(view);
    commit(&meta, &*kv);
    (rows(&*kv, Table::History).len(), rows(&*kv, Table::Change).len(), seen)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn rows_move_to_history_only_when_somebody_looks_back() {
    type Case<'a> = (&'a str, &'a [Step], usize, usize, &'a [Option<u64>]);
    let cases: &[Case] = &[
        ("no snapshot", &[Put(1), Put(2), Delete, Put(3)], 0, 0, &[Some(3)]),
        ("unchanged", &[Put(1), Snap(1)], 0, 0, &[Some(1), Some(1)]),
        ("born later", &[Snap(1), Put(1)], 0, 1, &[None, Some(1)]),
        ("overwritten", &[Put(1), Snap(1), Put(2)], 1, 1, &[Some(1), Some(2)]),
        ("twice in one epoch", &[Put(1), Snap(1), Put(2), Put(3)], 1, 1, &[Some(1), Some(3)]),
        ("same value", &[Put(1), Snap(1), Put(1)], 0, 0, &[Some(1), Some(1)]),
        ("deleted", &[Put(1), Snap(1), Delete], 1, 1, &[Some(1), None]),
        ("deleted twice", &[Put(1), Snap(1), Delete, Delete], 1, 1, &[Some(1), None]),
        ("recreated", &[Put(1), Snap(1), Delete, Put(2)], 1, 1, &[Some(1), Some(2)]),
        (
            "recreated over a commit",
            &[Put(1), Snap(1), Commit, Delete, Commit, Put(2), Commit, Delete],
            1,
            1,
            &[Some(1), None],
        ),
        ("born and gone", &[Snap(1), Put(1), Delete], 0, 1, &[None, None]),
        (
            "every epoch",
            &[Put(1), Snap(1), Put(2), Snap(2), Put(3), Snap(3), Delete],
            3,
            3,
            &[Some(1), Some(2), Some(3), None],
        ),
        (
            "one life over two snapshots",
            &[Put(1), Snap(1), Snap(2), Put(2)],
            1,
            1,
            &[Some(1), Some(1), Some(2)],
        ),
        (
            "a gap between lives",
            &[Put(1), Snap(1), Delete, Snap(2), Put(3)],
            1,
            2,
            &[Some(1), None, Some(3)],
        ),
        (
            "born after the last snapshot that is left",
            &[Snap(1), Put(1), Snap(2), Unsnap(2), Put(2)],
            0,
            2,
            &[None, None, Some(2)],
        ),
        ("snapshot gone first", &[Put(1), Snap(1), Unsnap(1), Put(2)], 0, 0, &[None, Some(2)]),
        ("pruned", &[Put(1), Snap(1), Put(2), Unsnap(1), Prune], 0, 0, &[None, Some(2)]),
        (
            "pruned between two",
            &[Put(1), Snap(1), Put(2), Snap(2), Put(3), Snap(3), Delete, Unsnap(2), Prune],
            2,
            3,
            &[Some(1), None, Some(3), None],
        ),
        (
            "pruned below the oldest",
            &[Put(1), Snap(1), Put(2), Snap(2), Put(3), Unsnap(1), Prune],
            1,
            1,
            &[None, Some(2), Some(3)],
        ),
        (
            "pinned",
            &[Put(1), Snap(1), Pin(1), Unsnap(1), Put(2), Prune, Commit],
            1,
            0,
            &[Some(1), Some(2)],
        ),
        (
            "pinned twice, unpinned once",
            &[Put(1), Snap(1), Put(2), Pin(1), Pin(1), Unsnap(1), Unpin(1), Prune],
            1,
            1,
            &[Some(1), Some(2)],
        ),
        (
            "unpinned",
            &[Put(1), Snap(1), Put(2), Pin(1), Unsnap(1), Unpin(1), Prune],
            0,
            0,
            &[None, Some(2)],
        ),
    ];
    for (name, steps, history, changes, seen) in cases {
        let got = tell(steps);
        assert_eq!((got.0, got.1, &got.2[..]), (*history, *changes, *seen), "{name}: {steps:?}");
    }
}

/// A history row is the old value as it was, under the epoch in which it ended.
#[test]
fn history_rows_have_these_bytes() {
    let (kv, meta) = memory();
    meta.edit().put_xattr(INO, b"user.a", b"old").unwrap();
    take_snapshot(&meta, 1);
    meta.edit().put_xattr(INO, b"user.a", b"new").unwrap();
    commit(&meta, &*kv);
    let key = *b"\x04\0\0\0\0\0\0\0\x07user.a\0\0\0\0\0\0\0\x02";
    assert_eq!(rows(&*kv, Table::History), [(key.to_vec(), b"\x01old".to_vec())]);
    assert_eq!(rows(&*kv, Table::Xattr)[0].1, b"\x02new");
    assert_eq!(rows(&*kv, Table::Super), [(b"epoch".to_vec(), vec![2])]);
    assert_eq!(rows(&*kv, Table::Change), [], "xattrs are found through nothing yet");
}

/// An extent that begins before the range is found, in every layer and at every epoch.
#[test]
fn extents_reach_into_the_range() {
    let (kv, meta) = memory();
    let extent = |offset, len| Extent { offset, len, chunk: ChunkNo(offset), chunk_offset: 0 };
    let mib = 1 << 20;
    let all = [extent(0, mib), extent(2 << 20, mib), extent(3 << 20, 10)];
    for extent in &all {
        meta.edit().put_extent(INO, extent).unwrap();
    }
    meta.edit().put_extent(Ino(6), &extent(5, 5)).unwrap();
    meta.edit().put_extent(Ino(8), &extent(0, 5)).unwrap();
    let check = |at| {
        let view = meta.read();
        let get = |from, to, limit| view.extents(at, INO, from..to, limit).unwrap();
        assert_eq!(get(0, u64::MAX, 9), all);
        assert_eq!(get(0, 1, 9), all[..1]);
        assert_eq!(get((1 << 20) - 1, 1 << 20, 9), all[..1]);
        assert_eq!(get(1 << 20, 2 << 20, 9), [], "a hole");
        assert_eq!(get((3 << 20) - 1, 3 << 20, 9), all[1..2]);
        assert_eq!(get((3 << 20) - 1, 4 << 20, 9), all[1..]);
        assert_eq!(get((3 << 20) - 1, 4 << 20, 1), all[1..2], "the limit keeps the first");
        assert_eq!(get((3 << 20) + 10, u64::MAX, 9), []);
        assert_eq!(get(5, 5, 9), []);
        assert_eq!(get(0, 9, 0), []);
    };
    check(At::Live);
    meta.freeze();
    check(At::Live);
    kv.write(meta.frozen_batch()).unwrap();
    check(At::Live);
    meta.committed();
    check(At::Live);
    let epoch = take_snapshot(&meta, 1);
    check(At::Epoch(epoch));
    for extent in &all {
        meta.edit().delete_extent(INO, extent.offset).unwrap();
    }
    check(At::Epoch(epoch));
    commit(&meta, &*kv);
    check(At::Epoch(epoch));
    assert_eq!(meta.read().extents(At::Live, INO, 0..u64::MAX, 9).unwrap(), []);
    assert_eq!(chunk_refs(&meta, 99).len(), 5, "live and old references both count");
}

/// Rows without versions, and what a new `Meta` finds in the database.
#[test]
fn plain_rows_survive_reopening() {
    let (kv, meta) = memory();
    let shard = ShardRow { name: "main".into(), path: "".into(), weight: 1 };
    {
        let mut edit = meta.edit();
        edit.put_shard(ShardId(0), &shard);
        for ino in [3, 1, 2] {
            edit.put_reap(Ino(ino), Reap { from: ino, delete: ino == 1 });
        }
        edit.delete_reap(Ino(2));
        edit.super_put(b"id", b"raw");
        edit.super_put_numbers(b"next", &[1, 1 << 40]);
    }
    let epoch = take_snapshot(&meta, 4);
    let mut renamed = snapshot(4, "other", epoch);
    meta.edit().put_snapshot(&renamed);
    assert!(meta.overlay_bytes() > 0);
    commit(&meta, &*kv);
    assert_eq!(meta.overlay_bytes(), 0);

    let meta = Meta::open(kv.clone()).unwrap();
    let view = meta.read();
    assert_eq!(view.epoch(), Epoch(2));
    assert_eq!(view.snapshots(), [renamed.clone()]);
    assert_eq!(view.snapshot_named(b"other"), Some(renamed.clone()));
    assert_eq!(view.snapshot_named(b"s4"), None);
    assert_eq!(view.shards().unwrap(), [(ShardId(0), shard)]);
    let first = (Ino(1), Reap { from: 1, delete: true });
    let last = (Ino(3), Reap { from: 3, delete: false });
    assert_eq!(view.reaps(None, 9).unwrap(), [first, last]);
    assert_eq!(view.reaps(None, 1).unwrap(), [first]);
    assert_eq!(view.reaps(Some(Ino(1)), 9).unwrap(), [last]);
    assert_eq!(view.reap(Ino(2)).unwrap(), None);
    assert_eq!(view.super_get(b"id").unwrap().unwrap(), b"raw");
    assert_eq!(view.super_numbers(b"next").unwrap().unwrap(), [1, 1 << 40]);
    assert_eq!(view.super_numbers(b"none").unwrap(), None);
    drop(view);

    renamed.name = (*b"third").into();
    meta.edit().put_snapshot(&renamed);
    meta.edit().delete_snapshot(SnapshotId(4));
    commit(&meta, &*kv);
    assert_eq!(Meta::open(kv).unwrap().read().snapshots(), []);
}

/// The second txg may change what the first has frozen; each commit writes its own.
#[test]
fn frozen_changes_stay_as_they_were() {
    let (kv, meta) = memory();
    meta.edit().put_inode(INO, &sample_inode(1)).unwrap();
    meta.edit().put_inode(Ino(8), &sample_inode(1)).unwrap();
    meta.freeze();
    meta.edit().put_inode(INO, &sample_inode(2)).unwrap();
    meta.edit().delete_inode(Ino(8)).unwrap();
    kv.write(meta.frozen_batch()).unwrap();
    let size = |meta: &Meta, ino| meta.read().inode(At::Live, ino).unwrap().map(|i| i.size);
    assert_eq!((size(&meta, INO), size(&meta, Ino(8))), (Some(2), None));
    let crashed = Meta::open(kv.clone()).unwrap();
    assert_eq!((size(&crashed, INO), size(&crashed, Ino(8))), (Some(1), Some(1)));
    meta.committed();
    assert_eq!((size(&meta, INO), size(&meta, Ino(8))), (Some(2), None));
    assert_eq!(meta.read().inodes(At::Live, Ino(0), 9).unwrap().len(), 1);
}

// ---- damage ----

#[test]
fn damaged_rows_are_named() {
    let (kv, meta) = memory();
    let mut batch = Batch::default();
    batch.put(Table::Inode, key::inode(Ino(0x1f)), [1, 9]);
    batch.put(Table::Dirent, key::dirent(Ino(2), b"x"), [0xff; 12]);
    batch.put(Table::Extent, *b"short", [1]);
    batch.put(Table::History, [1, 2], [1]);
    kv.write(batch).unwrap();
    let view = meta.read();
    let object = |error: Error| match error {
        Error::Corrupt { object, .. } => object,
        other => panic!("{other:?}"),
    };
    let error = view.inode(At::Live, Ino(0x1f)).unwrap_err();
    assert_eq!(object(error), "row 000000000000001f of metadata table inode");
    assert!(object(view.dirent(At::Live, Ino(2), b"x").unwrap_err()).contains("dirent"));
    let error = view.dirents(At::Live, Ino(2), Cookie(0), 9).unwrap_err();
    assert!(object(error).contains("dirent"));
    assert!(view.inode(At::Live, Ino(1)).unwrap().is_none(), "neighbours stay readable");
    drop(view);
    let error = meta.chunk_refs(None, 9, &mut |_| ()).unwrap_err();
    assert!(object(error).contains("extent"));
    assert!(object(meta.find_dead(None, 9).unwrap_err()).contains("history"));
    take_snapshot(&meta, 1);
    let error = meta.edit().put_dirent(Ino(2), b"x", dirent(1)).unwrap_err();
    assert!(object(error).contains("dirent"));

    for (name, value) in [(&b"epoch"[..], &[0][..]), (b"epoch", &[1, 2]), (b"epoch", &[0x80])] {
        let kv = MemoryKv::new();
        let mut batch = Batch::default();
        batch.put(Table::Super, name, value);
        kv.write(batch).unwrap();
        assert!(matches!(Meta::open(Arc::new(kv)), Err(Error::Corrupt { .. })), "{value:?}");
    }
}

fn dirent(ino: u64) -> Dirent {
    Dirent { ino: Ino(ino), kind: FileKind::Regular }
}

// ---- cost ----

/// Counts what reaches the database.
#[derive(Default)]
struct CountingKv {
    inner: MemoryKv,
    gets: AtomicUsize,
    scans: AtomicUsize,
}

impl Kv for CountingKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.gets.fetch_add(1, Relaxed);
        self.inner.get(table, key)
    }
    fn scan(&self, table: Table, range: &KeyRange, order: Order) -> Rows<'_> {
        self.scans.fetch_add(1, Relaxed);
        self.inner.scan(table, range, order)
    }
    fn write(&self, batch: Batch) -> Result<()> {
        self.inner.write(batch)
    }
    fn usage(&self) -> KvUsage {
        self.inner.usage()
    }
    fn snapshot(&self) -> Box<dyn Kv + '_> {
        self.inner.snapshot()
    }
}

/// What a path through the code costs in the database: (gets, scans).
#[test]
fn the_fast_paths_stay_fast() {
    let kv = Arc::new(CountingKv::default());
    let meta = Meta::open(kv.clone()).unwrap();
    let cost = |what: &dyn Fn(&mut Edit<'_>)| {
        kv.gets.store(0, Relaxed);
        kv.scans.store(0, Relaxed);
        what(&mut meta.edit());
        (kv.gets.load(Relaxed), kv.scans.load(Relaxed))
    };
    let make = |edit: &mut Edit<'_>| {
        edit.put_inode(INO, &sample_inode(1)).unwrap();
        edit.put_dirent(Ino::ROOT, b"name", dirent(7)).unwrap();
        let extent = Extent { offset: 0, len: 5, chunk: ChunkNo(1), chunk_offset: 0 };
        edit.put_extent(INO, &extent).unwrap();
    };
    let read = |edit: &mut Edit<'_>| {
        assert!(edit.view().inode(At::Live, INO).unwrap().is_some());
        assert!(edit.view().dirent(At::Live, Ino::ROOT, b"name").unwrap().is_some());
    };
    let extents = |edit: &mut Edit<'_>| {
        assert_eq!(edit.view().extents(At::Live, INO, 0..9, 9).unwrap().len(), 1);
    };
    assert_eq!(cost(&make), (0, 0), "nobody looks back: no reading before writing");
    assert_eq!(cost(&read), (0, 0), "the open txg answers");
    assert_eq!(cost(&extents), (0, 1), "nothing can begin before the first extent found");
    commit(&meta, &*kv);
    assert_eq!(cost(&read), (2, 0), "one point lookup each");
    take_snapshot(&meta, 1);
    assert_eq!(cost(&make), (3, 0), "with a snapshot, one lookup of the old row each");
}

/// Copying programs ask about what is new: names that are not taken, files without attributes.
#[test]
fn what_belongs_to_new_inodes_is_not_looked_for_in_the_database() {
    let kv = Arc::new(CountingKv::default());
    let meta = Meta::open(kv.clone()).unwrap();
    meta.none_from(Ino(100));
    let cost = |what: &dyn Fn(&View<'_>)| {
        kv.gets.store(0, Relaxed);
        kv.scans.store(0, Relaxed);
        what(&meta.read());
        (kv.gets.load(Relaxed), kv.scans.load(Relaxed))
    };
    let ask = |view: &View<'_>, ino: Ino| {
        let known = view.inode(At::Live, ino).unwrap().is_some();
        assert_eq!(view.dirent(At::Live, ino, b"name").unwrap(), None);
        assert_eq!(view.has_dirents(At::Live, ino).unwrap(), known);
        assert_eq!(view.extents(At::Live, ino, 0..9, 9).unwrap(), []);
        assert_eq!(view.xattr(At::Live, ino, b"user.a").unwrap(), None);
        assert_eq!(view.xattr_names(At::Live, ino).unwrap().len(), 0);
        assert_eq!(view.reap(ino).unwrap(), None);
    };
    assert_eq!(cost(&|view| ask(view, Ino(100))), (0, 0));
    assert_eq!(cost(&|view| ask(view, Ino(99))), (3, 2), "but for attributes: nobody has any");

    let make = |ino: u64| {
        let mut edit = meta.edit();
        edit.put_inode(Ino(ino), &sample_inode(1)).unwrap();
        edit.put_dirent(Ino(ino), b"other", dirent(1)).unwrap();
    };
    make(100);
    assert_eq!(cost(&|view| ask(view, Ino(100))), (0, 0), "the open txg answers");
    meta.freeze();
    make(200);
    kv.write(meta.frozen_batch()).unwrap();
    assert_eq!(cost(&|view| ask(view, Ino(100))), (0, 0), "it is frozen, so it is in memory");
    meta.committed();
    assert_eq!(cost(&|view| ask(view, Ino(100))), (2, 1), "now it is in the database");
    assert_eq!(cost(&|view| ask(view, Ino(101))), (0, 0));

    meta.edit().put_xattr(Ino(5), b"user.b", b"").unwrap();
    commit(&meta, &*kv);
    assert_eq!(cost(&|view| drop(view.xattr_names(At::Live, Ino(5)))), (0, 1));
    assert_eq!(cost(&|view| drop(view.xattr_names(At::Live, Ino(6)))), (0, 0));
    let meta = Meta::open(kv.clone()).unwrap();
    kv.scans.store(0, Relaxed);
    assert_eq!(meta.read().xattr_names(At::Live, Ino(5)).unwrap().len(), 1);
    assert_eq!(meta.read().xattr_names(At::Live, Ino(6)).unwrap().len(), 0);
    assert_eq!(kv.scans.load(Relaxed), 1);
}

/// A file is made under another name and renamed: nothing of that reaches the database.
#[test]
fn what_comes_and_goes_between_two_commits_leaves_no_trace() {
    let (kv, meta) = memory();
    meta.none_from(Ino(100));
    let come_and_go = |parent: u64| {
        let before = meta.overlay_bytes();
        let mut edit = meta.edit();
        edit.put_dirent(Ino(parent), b".name.Xyz123", dirent(7)).unwrap();
        edit.delete_dirent(Ino(parent), b".name.Xyz123").unwrap();
        drop(edit);
        meta.overlay_bytes() - before
    };
    assert_eq!(come_and_go(100), 0);
    assert!(!meta.is_clean(), "a commit is due all the same: it says that nothing is missing");
    assert_ne!(come_and_go(99), 0, "an old directory may have such a name");
    commit(&meta, &*kv);

    // A row that is being committed must be deleted again.
    meta.edit().put_dirent(Ino(100), b"frozen", dirent(7)).unwrap();
    meta.freeze();
    meta.edit().delete_dirent(Ino(100), b"frozen").unwrap();
    kv.write(meta.frozen_batch()).unwrap();
    meta.committed();
    assert_eq!(meta.read().dirent(At::Live, Ino(100), b"frozen").unwrap(), None);
    commit(&meta, &*kv);
    assert_eq!(meta.read().dirent(At::Live, Ino(100), b"frozen").unwrap(), None);
}

/// Most files have one extent.
#[test]
fn one_extent_is_found_by_its_key() {
    let kv = Arc::new(CountingKv::default());
    let meta = Meta::open(kv.clone()).unwrap();
    let extent = |offset, len| Extent { offset, len, chunk: ChunkNo(1), chunk_offset: 0 };
    let all = |mapped| {
        kv.gets.store(0, Relaxed);
        kv.scans.store(0, Relaxed);
        let found = meta.read().all_extents(INO, mapped, 9).unwrap();
        (found, kv.gets.load(Relaxed), kv.scans.load(Relaxed))
    };
    assert_eq!(all(0), (vec![], 0, 0));
    meta.edit().put_extent(INO, &extent(0, 5)).unwrap();
    commit(&meta, &*kv);
    assert_eq!(all(5), (vec![extent(0, 5)], 1, 0));
    meta.edit().put_extent(INO, &extent(8, 3)).unwrap();
    commit(&meta, &*kv);
    assert_eq!(all(8).0, [extent(0, 5), extent(8, 3)]);
    meta.edit().delete_extent(INO, 0).unwrap();
    assert_eq!(all(3).0, [extent(8, 3)], "a hole in front");
}

/// A kernel asks for an inode again when it lists, opens, reads and has read a file.
#[test]
fn a_committed_inode_is_read_from_the_database_once_until_it_changes() {
    let kv = Arc::new(CountingKv::default());
    let meta = Meta::open(kv.clone()).unwrap();
    let set = |size| {
        let target = Box::default();
        meta.edit().put_inode(INO, &Inode { target, ..sample_inode(size) }).unwrap();
    };
    let size_at = |at| meta.read().inode(at, INO).unwrap().map(|inode| inode.size);
    set(1);
    commit(&meta, &*kv);
    let past = take_snapshot(&meta, 1);
    kv.gets.store(0, Relaxed);
    for _ in 0..3 {
        assert_eq!((size_at(At::Live), size_at(At::Epoch(past))), (Some(1), Some(1)));
    }
    assert_eq!(kv.gets.load(Relaxed), 1);

    set(2);
    let seen = || (size_at(At::Live), size_at(At::Epoch(past)));
    assert_eq!(seen(), (Some(2), Some(1)), "staged");
    meta.freeze();
    assert_eq!(seen(), (Some(2), Some(1)), "frozen");
    kv.write(meta.frozen_batch()).unwrap();
    assert_eq!(seen(), (Some(2), Some(1)), "written, and not yet known to be");
    meta.committed();
    assert_eq!((seen(), seen()), ((Some(2), Some(1)), (Some(2), Some(1))), "committed");

    meta.edit().delete_inode(INO).unwrap();
    commit(&meta, &*kv);
    assert_eq!(seen(), (None, Some(1)), "removed");
}

/// A read of a few bytes costs one look at the extents, wherever they begin.
#[test]
fn few_bytes_take_one_scan_and_a_whole_file_a_lookup() {
    let kv = Arc::new(CountingKv::default());
    let meta = Meta::open(kv.clone()).unwrap();
    let extent = |n: u64| Extent { offset: n * 10, len: 8, chunk: ChunkNo(n), chunk_offset: 0 };
    for n in 1..=20 {
        meta.edit().put_extent(INO, &extent(n)).unwrap();
    }
    commit(&meta, &*kv);
    let found = |range: std::ops::Range<u64>, limit| {
        kv.scans.store(0, Relaxed);
        let found = meta.read().extents(At::Live, INO, range, limit).unwrap();
        let offsets: Vec<u64> = found.iter().map(|e| e.offset / 10).collect();
        (offsets, kv.scans.load(Relaxed))
    };
    assert_eq!(found(35..52, 9), (vec![3, 4, 5], 1));
    assert_eq!(found(40..41, 9), (vec![4], 1));
    assert_eq!(found(38..50, 9), (vec![4], 1), "between two, up to the edge of the next");
    assert!(found(0..10, 9).0.is_empty());
    assert!(found(209..300, 9).0.is_empty());
    assert_eq!(found(35..200, 3).0, [3, 4, 5], "the first ones, when they are too many");
    kv.scans.store(0, Relaxed);
    let first = |offset| meta.read().extent_at(At::Live, INO, offset).unwrap();
    assert_eq!((first(10), first(0)), (Some(extent(1)), None));
    assert_eq!(kv.scans.load(Relaxed), 0);
}
