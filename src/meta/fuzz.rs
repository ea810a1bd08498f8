//! This room's parsers, for `crate::fuzz`.

use super::record::{self, Reap, ShardRow};
use super::{key, record::split_birth};
use crate::kv::Table;
use crate::types::{
    ChunkNo, ClassId, Dirent, Epoch, Extent, FileKind, Ino, Inode, Snapshot, SnapshotId, Timestamp,
};

/// Values and keys of all tables of this room.
#[must_use]
pub fn rows(bytes: &[u8]) -> usize {
    let payload = split_birth(bytes).map_or(bytes, |(_, payload)| payload);
    let mut built = [0; 6];
    for bytes in [bytes, payload] {
        let inode = record::inode(bytes).map_or(0, |inode| size_of::<Inode>() + inode.target.len());
        built[0] = built[0].max(inode);
        let _ = record::dirent(bytes);
        let _ = record::extent(u64::from(u32::MAX), bytes);
    }
    let snapshot = record::snapshot(SnapshotId(1), bytes);
    built[1] = snapshot.map_or(0, |s| size_of::<Snapshot>() + s.name.len());
    built[2] = record::reap(bytes).map_or(0, |_| size_of::<Reap>());
    let shard = record::shard(bytes);
    built[3] = shard.map_or(0, |s| size_of::<ShardRow>() + s.name.len() + s.path.as_os_str().len());
    built[4] = record::numbers(bytes).map_or(0, |numbers| numbers.capacity() * 8);
    let _ = key::read_inode(bytes);
    let _ = key::read_dirent(bytes);
    let _ = key::read_extent(bytes);
    let _ = key::read_xattr(bytes);
    let _ = key::read_history(bytes);
    let _ = key::read_change(bytes);
    let _ = key::read_snapshot(bytes);
    let _ = key::read_shard(bytes);
    built.into_iter().max().unwrap_or(0)
}

/// Valid ones.
#[must_use]
pub fn golden_rows() -> Vec<Vec<u8>> {
    let time = Timestamp { secs: -1, nanos: 999_999_999 };
    let inode = Inode {
        kind: FileKind::Symlink,
        perm: 0o777,
        uid: 1000,
        gid: 1000,
        nlink: 1,
        rdev: 0,
        size: 6,
        mapped: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        class: ClassId(1),
        parent: Ino(300),
        home: 0x05dd_8bf7,
        stamp: 0x0123_4567_89ab_cdef,
        target: b"target"[..].into(),
    };
    let versioned = |put: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        record::put_birth(&mut out, Epoch(3));
        put(&mut out);
        out
    };
    let plain = |put: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        put(&mut out);
        out
    };
    let dirent = Dirent { ino: Ino(300), kind: FileKind::Regular };
    let extent = Extent { offset: 0, len: 4096, chunk: ChunkNo(70_000), chunk_offset: 1 };
    let snapshot = Snapshot {
        id: SnapshotId(1),
        name: b"name"[..].into(),
        epoch: Epoch(2),
        time,
        held: true,
        locked_until: Some(5),
    };
    let shard = ShardRow { name: "bulk".to_owned(), path: "/disk".into(), weight: 4 };
    let extent_key = key::extent(Ino(5), 4096);
    vec![
        versioned(&|out| record::put_inode(out, &inode)),
        versioned(&|out| record::put_dirent(out, dirent)),
        versioned(&|out| record::put_extent(out, &extent)),
        plain(&|out| record::put_snapshot(out, &snapshot)),
        plain(&|out| record::put_reap(out, Reap { from: 9, delete: true })),
        plain(&|out| record::put_shard(out, &shard)),
        plain(&|out| record::put_numbers(out, &[1, 300, u64::MAX])),
        key::inode(Ino(5)).to_vec(),
        key::dirent(Ino(5), b"name"),
        extent_key.to_vec(),
        key::xattr(Ino(5), b"user.x"),
        key::history(Table::Extent, &extent_key, Epoch(9)),
        key::change(Epoch(4), Table::Dirent, &key::dirent(Ino(5), b"name")),
    ]
}
