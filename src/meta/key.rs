//! Keys of the metadata tables. Numbers are big-endian, so byte order is number order.
//!
//! | table    | key                                              |
//! |----------|--------------------------------------------------|
//! | inode    | ino u64                                          |
//! | dirent   | parent ino u64 · cookie u64 · name               |
//! | extent   | ino u64 · file offset u64                        |
//! | xattr    | ino u64 · name                                   |
//! | history  | table tag u8 · key in that table · end epoch u64 |
//! | snapshot | snapshot id u32                                  |
//! | change   | epoch u64 · table tag u8 · key in that table     |
//! | reap     | ino u64                                          |
//! | shard    | shard id u16                                     |
//! | super    | name                                             |
//!
//! The cookie is [`Cookie::of`] the name: a directory lies in cookie order, and a listing goes on
//! from any cookie without a second table.
//!
//! All old versions of one live key lie together in `history`, oldest first, so a reader at epoch
//! `e` seeks to `e + 1` and looks at one row: the version that ended next. Names hold no NUL and
//! epochs are below 2^56, so their first byte, 0, ends a name: history keeps the order of the
//! live keys.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::cursor::{Cursor, Parsed};
use crate::kv::{KeyRange, Table, successor};
use crate::limits::EPOCH_MAX;
use crate::types::{Cookie, Epoch, Ino, ShardId, SnapshotId};

/// Bytes of an epoch at the end of a history key.
const EPOCH_BYTES: usize = 8;

/// Tables whose rows have versions.
const VERSIONED: [Table; 4] = [Table::Inode, Table::Dirent, Table::Extent, Table::Xattr];

/// Key in `inode` and `reap`; prefix of an inode's keys in `dirent`, `extent` and `xattr`.
pub(super) fn inode(ino: Ino) -> [u8; 8] {
    ino.0.to_be_bytes()
}

pub(super) fn dirent(parent: Ino, name: &[u8]) -> Vec<u8> {
    let start = pair(parent.0, Cookie::of(name).0);
    let mut key = Vec::with_capacity(start.len().saturating_add(name.len()));
    key.extend_from_slice(&start);
    key.extend_from_slice(name);
    key
}

pub(super) fn extent(ino: Ino, offset: u64) -> [u8; 16] {
    pair(ino.0, offset)
}

pub(super) fn xattr(ino: Ino, name: &[u8]) -> Vec<u8> {
    [&inode(ino)[..], name].concat()
}

pub(super) fn history(table: Table, key: &[u8], end: Epoch) -> Vec<u8> {
    [&[table.tag()][..], key, &end.0.to_be_bytes()].concat()
}

pub(super) fn snapshot(id: SnapshotId) -> [u8; 4] {
    id.0.to_be_bytes()
}

pub(super) fn change(epoch: Epoch, table: Table, key: &[u8]) -> Vec<u8> {
    [&epoch.0.to_be_bytes()[..], &[table.tag()], key].concat()
}

pub(super) fn shard(id: ShardId) -> [u8; 2] {
    id.0.to_be_bytes()
}

fn pair(first: u64, second: u64) -> [u8; 16] {
    (u128::from(first) << 64 | u128::from(second)).to_be_bytes()
}

/// Keys that begin with `ino`, in `dirent`, `extent` or `xattr`.
pub(super) fn range_of(ino: Ino) -> KeyRange {
    KeyRange::prefix(&inode(ino))
}

/// What the keys of `parent`'s dirents whose cookies have this upper half begin with.
pub(super) fn dirents_home(parent: Ino, home: u32) -> Vec<u8> {
    [&inode(parent)[..], &home.to_be_bytes()].concat()
}

/// Keys of `parent`'s dirents with a cookie above `after`.
pub(super) fn dirents_after(parent: Ino, after: Cookie) -> KeyRange {
    let lower = match after.0.checked_add(1) {
        Some(next) => pair(parent.0, next).to_vec(),
        None => return KeyRange { lower: Vec::new(), upper: Some(Vec::new()) },
    };
    KeyRange { lower, upper: successor(&inode(parent)) }
}

/// Keys of `ino`'s extents that begin at `from..to`.
pub(super) fn extents(ino: Ino, from: u64, to: u64) -> KeyRange {
    KeyRange { lower: extent(ino, from).to_vec(), upper: Some(extent(ino, to).to_vec()) }
}

/// History of exactly `key`, from the version that ends next after `at`.
pub(super) fn versions_after(table: Table, key: &[u8], at: Epoch) -> KeyRange {
    let next = Epoch(at.0.saturating_add(1));
    let last = Epoch(EPOCH_MAX.saturating_add(1));
    KeyRange { lower: history(table, key, next), upper: Some(history(table, key, last)) }
}

/// History of all keys in `range` of `table`.
pub(super) fn versions_of(table: Table, range: &KeyRange) -> KeyRange {
    let tagged = |key: &[u8]| [&[table.tag()][..], key].concat();
    let upper = match &range.upper {
        Some(upper) => Some(tagged(upper)),
        None => successor(&[table.tag()]),
    };
    KeyRange { lower: tagged(&range.lower), upper }
}

/// The ino of an `inode` or `reap` key.
pub(super) fn read_inode(key: &[u8]) -> Parsed<Ino> {
    let mut cursor = Cursor::new(key);
    let ino = ino(&mut cursor)?;
    cursor.end()?;
    Ok(ino)
}

/// Parent, cookie and name of a `dirent` key.
pub(super) fn read_dirent(key: &[u8]) -> Parsed<(Ino, Cookie, &[u8])> {
    let mut cursor = Cursor::new(key);
    let parent = ino(&mut cursor)?;
    let cookie = Cookie(u64::from_be_bytes(cursor.array()?));
    match cursor.rest() {
        [] => Err("the key has no name"),
        name => Ok((parent, cookie, name)),
    }
}

/// Ino and file offset of an `extent` key.
pub(super) fn read_extent(key: &[u8]) -> Parsed<(Ino, u64)> {
    let mut cursor = Cursor::new(key);
    let ino = ino(&mut cursor)?;
    let offset = u64::from_be_bytes(cursor.array()?);
    cursor.end()?;
    Ok((ino, offset))
}

/// Ino and name of an `xattr` key.
pub(super) fn read_xattr(key: &[u8]) -> Parsed<(Ino, &[u8])> {
    let mut cursor = Cursor::new(key);
    let ino = ino(&mut cursor)?;
    match cursor.rest() {
        [] => Err("the key has no name"),
        name => Ok((ino, name)),
    }
}

/// Table, live key and end epoch of a `history` key.
pub(super) fn read_history(key: &[u8]) -> Parsed<(Table, &[u8], Epoch)> {
    let mut cursor = Cursor::new(key);
    let tag = cursor.u8()?;
    let table = VERSIONED.into_iter().find(|table| table.tag() == tag);
    let table = table.ok_or("the table tag is unknown")?;
    let (live, end) = cursor.rest().split_last_chunk::<EPOCH_BYTES>().ok_or("it ends too early")?;
    let end = u64::from_be_bytes(*end);
    if end > EPOCH_MAX { Err("the epoch is too large") } else { Ok((table, live, Epoch(end))) }
}

/// Epoch, table and live key of a `change` key; the live key is not looked into.
pub(super) fn split_change(key: &[u8]) -> Parsed<(Epoch, Table, &[u8])> {
    let mut cursor = Cursor::new(key);
    let epoch = u64::from_be_bytes(cursor.array()?);
    let tag = cursor.u8()?;
    let table = [Table::Inode, Table::Dirent].into_iter().find(|table| table.tag() == tag);
    let table = table.ok_or("the table tag is unknown")?;
    let live = cursor.rest();
    if epoch > EPOCH_MAX { Err("the epoch is too large") } else { Ok((Epoch(epoch), table, live)) }
}

/// Epoch of a `change` key.
pub(super) fn read_change(key: &[u8]) -> Parsed<Epoch> {
    let (epoch, table, live) = split_change(key)?;
    match table {
        Table::Inode => read_inode(live).map(drop)?,
        _ => read_dirent(live).map(drop)?,
    }
    Ok(epoch)
}

pub(super) fn read_snapshot(key: &[u8]) -> Parsed<SnapshotId> {
    let mut cursor = Cursor::new(key);
    let id = u32::from_be_bytes(cursor.array()?);
    cursor.end()?;
    Ok(SnapshotId(id))
}

pub(super) fn read_shard(key: &[u8]) -> Parsed<ShardId> {
    let mut cursor = Cursor::new(key);
    let id = u16::from_be_bytes(cursor.array()?);
    cursor.end()?;
    Ok(ShardId(id))
}

fn ino(cursor: &mut Cursor<'_>) -> Parsed<Ino> {
    Ok(Ino(u64::from_be_bytes(cursor.array()?)))
}
