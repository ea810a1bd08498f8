//! The operations, and where they aim.

use proptest::prelude::*;
use stratafs::volume::RenameMode;

use crate::testkit::{random_bytes, text_bytes};

/// Names from a tiny alphabet; two of them are of a class with fixed cells, one of one that is
/// never compressed.
pub const NAMES: [&[u8]; 7] = [b"a", b"b", b"ab", b"a.db", b"b.db", b"a.c", b"b.log"];
pub const SNAPSHOTS: [&[u8]; 3] = [b"s", b"t", b"\xff"];
pub const XATTRS: [&[u8]; 2] = [b"user.a", b"user.ab"];
pub const SLOTS: usize = 3;

/// How much is written at a time.
#[derive(Clone, Copy, Debug)]
pub enum Sizes {
    Small,
    Large,
}

/// A file: by number among those with a name, or one that is held open.
#[derive(Clone, Copy, Debug)]
pub enum Who {
    Named(u8),
    Held(u8),
}

/// A place for a name: a directory by number, and a name of the alphabet.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub dir: u8,
    pub name: u8,
}

#[derive(Clone, Copy, Debug)]
pub enum Fill {
    Random(u8),
    Text(u8),
    Zeros,
    /// Zeros with a little in between.
    Sparse(u8),
}

impl Fill {
    pub fn bytes(self, len: usize) -> Vec<u8> {
        match self {
            Self::Random(seed) => random_bytes(seed.into(), len),
            Self::Text(seed) => text_bytes(seed.into(), len),
            Self::Zeros => vec![0; len],
            Self::Sparse(seed) => {
                let mut data = vec![0; len];
                for (place, byte) in data.iter_mut().step_by(30_001).enumerate() {
                    *byte = seed + u8::try_from(place % 200).unwrap() + 1;
                }
                data
            }
        }
    }
}

#[derive(Clone, Debug)]
pub enum Op {
    Create(Place),
    Mkdir(Place),
    Symlink(Place, u8),
    Special(Place),
    Write { who: Who, offset: u64, len: usize, fill: Fill, finish: bool },
    Append { who: Who, len: usize, fill: Fill },
    Truncate { who: Who, size: u64 },
    Punch { who: Who, offset: u64, len: u64, keep_size: bool },
    Allocate { who: Who, offset: u64, len: u64, keep_size: bool },
    Copy { from: Who, to: Who, source: u64, offset: u64, len: u64 },
    Read { who: Who, offset: u64, len: usize },
    Seek { who: Who, offset: u64 },
    Finish(Who),
    Hold { slot: u8, file: u8 },
    HoldPast { slot: u8, snapshot: u8, file: u8 },
    Release { slot: u8 },
    Link { who: Who, to: Place },
    Rename { from: Place, to: Place, mode: RenameMode },
    Unlink(Place),
    Rmdir(Place),
    Attributes { inode: u8, perm: u16, uid: u32, gid: u32, secs: i64 },
    SetXattr { inode: u8, name: u8, len: usize },
    RemoveXattr { inode: u8, name: u8 },
    Commit,
    SnapshotCreate(u8),
    SnapshotDelete(u8),
    SnapshotRename(u8, u8),
    Gc,
    Reopen,
    Crash,
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![4 => any::<u8>().prop_map(Who::Named), 1 => any::<u8>().prop_map(Who::Held)]
}

fn place() -> impl Strategy<Value = Place> {
    (any::<u8>(), any::<u8>()).prop_map(|(dir, name)| Place { dir, name })
}

fn fill() -> impl Strategy<Value = Fill> {
    prop_oneof![
        4 => (0..4u8).prop_map(Fill::Random),
        2 => (0..4u8).prop_map(Fill::Text),
        1 => Just(Fill::Zeros),
        1 => (0..4u8).prop_map(Fill::Sparse),
    ]
}

/// Byte offsets at, before and after the edges of cells and zero runs.
fn offset(sizes: Sizes) -> BoxedStrategy<u64> {
    let edges = match sizes {
        Sizes::Small => 0..20u64,
        Sizes::Large => 0..800,
    };
    prop_oneof![
        1 => Just(0u64),
        5 => (edges, 0..3u64).prop_map(|(edge, near)| (edge * 4096 + near).saturating_sub(1)),
        1 => 0..100_000u64,
    ]
    .boxed()
}

fn len(sizes: Sizes) -> BoxedStrategy<usize> {
    let small = prop_oneof![
        prop::sample::select(vec![1, 100, 4095, 4096, 4097, 8192, 16_384, 20_000, 32_768, 65_536]),
        1..50_000usize,
    ];
    match sizes {
        Sizes::Small => small.boxed(),
        Sizes::Large => prop_oneof![3 => small, 2 => 500_000..2_600_000usize].boxed(),
    }
}

/// Operations on bytes.
fn content_op(sizes: Sizes) -> BoxedStrategy<Op> {
    let long = len(sizes).prop_map(|len| len as u64).boxed();
    let (offset, len) = (offset(sizes), len(sizes));
    prop_oneof![
        8 => (who(), offset.clone(), len.clone(), fill(), any::<bool>()).prop_map(
            |(who, offset, len, fill, finish)| Op::Write { who, offset, len, fill, finish }),
        4 => (who(), len.clone(), fill()).prop_map(
            |(who, len, fill)| Op::Append { who, len, fill }),
        3 => (who(), offset.clone()).prop_map(|(who, size)| Op::Truncate { who, size }),
        2 => (who(), offset.clone(), long.clone(), any::<bool>()).prop_map(
            |(who, offset, len, keep_size)| Op::Punch { who, offset, len, keep_size }),
        1 => (who(), offset.clone(), long.clone(), any::<bool>()).prop_map(
            |(who, offset, len, keep_size)| Op::Allocate { who, offset, len, keep_size }),
        3 => (who(), who(), offset.clone(), offset.clone(), long).prop_map(
            |(from, to, source, offset, len)| Op::Copy { from, to, source, offset, len }),
        1 => (who(), offset.clone(), len).prop_map(
            |(who, offset, len)| Op::Read { who, offset, len }),
        1 => (who(), offset).prop_map(|(who, offset)| Op::Seek { who, offset }),
        2 => who().prop_map(Op::Finish),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(slot, file)| Op::Hold { slot, file }),
        1 => (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(
            |(slot, snapshot, file)| Op::HoldPast { slot, snapshot, file }),
        1 => any::<u8>().prop_map(|slot| Op::Release { slot }),
    ]
    .boxed()
}

/// Operations on names and attributes.
fn name_op() -> impl Strategy<Value = Op> {
    let mode = prop::sample::select(vec![
        RenameMode::Replace,
        RenameMode::Replace,
        RenameMode::NoReplace,
        RenameMode::Exchange,
    ]);
    prop_oneof![
        7 => place().prop_map(Op::Create),
        3 => place().prop_map(Op::Mkdir),
        1 => (place(), any::<u8>()).prop_map(|(place, target)| Op::Symlink(place, target)),
        1 => place().prop_map(Op::Special),
        2 => (who(), place()).prop_map(|(who, to)| Op::Link { who, to }),
        5 => (place(), place(), mode).prop_map(|(from, to, mode)| Op::Rename { from, to, mode }),
        3 => place().prop_map(Op::Unlink),
        2 => place().prop_map(Op::Rmdir),
        2 => (any::<u8>(), 0..0o10000u16, 0..3u32, 0..3u32, -5..5i64).prop_map(
            |(inode, perm, uid, gid, secs)| Op::Attributes { inode, perm, uid, gid, secs }),
        2 => (any::<u8>(), 0..2u8, prop::sample::select(vec![0, 5, 65_536])).prop_map(
            |(inode, name, len)| Op::SetXattr { inode, name, len }),
        1 => (any::<u8>(), 0..2u8).prop_map(|(inode, name)| Op::RemoveXattr { inode, name }),
    ]
}

/// Operations on the volume.
fn volume_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::Commit),
        4 => any::<u8>().prop_map(Op::SnapshotCreate),
        2 => any::<u8>().prop_map(Op::SnapshotDelete),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(old, new)| Op::SnapshotRename(old, new)),
        2 => Just(Op::Gc),
        2 => Just(Op::Reopen),
        2 => Just(Op::Crash),
    ]
}

pub fn op(sizes: Sizes) -> impl Strategy<Value = Op> {
    prop_oneof![12 => content_op(sizes), 8 => name_op(), 3 => volume_op()]
}
