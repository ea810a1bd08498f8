//! Values of the metadata tables.
//!
//! Fields follow each other without padding; `v` is a varint, `z` a zigzag varint (see `cursor`),
//! `name[v]` a varint length and that many bytes, `name…` all bytes to the end. Rows with versions
//! begin with the epoch they were born in; a `history` row holds such a value as it was. `change`
//! rows are empty. Readers refuse unknown tags and flags, values out of bounds and trailing bytes.
//!
//! | table    | value                                                                          |
//! |----------|--------------------------------------------------------------------------------|
//! | inode    | birth v · flags u8 (1 home, 2 stamp) · kind u8 · perm v · uid v · gid v ·      |
//! |          | nlink v · rdev v · size v · mapped v · 4 × (secs z · nanos v): atime, mtime,  |
//! |          | ctime, btime · class u8 · parent v · home u32 (only with flag 1) ·            |
//! |          | stamp u64 (only with flag 2) · target[v]                                      |
//! | dirent   | birth v · ino v · kind u8                                                      |
//! | extent   | birth v · chunk number v · offset in chunk v · length v                        |
//! | xattr    | birth v · value…                                                               |
//! | snapshot | epoch v · secs z · nanos v · flags v (1 held, 2 locked) ·                       |
//! |          | until z (seconds; only if locked) · name…                                      |
//! | reap     | from v · delete u8 (0 or 1)                                                    |
//! | shard    | weight v · name[v] · path…                                                     |
//! | super    | opaque, or any number of varints                                               |
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::cursor::{Cursor, Parsed, put_varint, put_zigzag};
use crate::limits::{CHUNK_BYTES_MAX, EPOCH_MAX, FILE_BYTES_MAX, TARGET_BYTES_MAX};
use crate::types::{
    ChunkNo, ClassId, Dirent, Epoch, Extent, FileKind, Ino, Inode, Snapshot, SnapshotId, Timestamp,
};

/// An inode's flags: a field added later announces itself with a bit. This one says that `home`
/// follows the parent.
const INODE_HOME: u8 = 1;
/// And this one, that `stamp` follows.
const INODE_STAMP: u8 = 2;
/// A snapshot that is held.
const SNAPSHOT_HELD: u32 = 1;
/// A snapshot that is locked; its `until` follows the flags.
const SNAPSHOT_LOCKED: u32 = 2;
const PERM_MAX: u64 = 0o7777;
const NANOS_MAX: u32 = 999_999_999;

/// What the reaper has still to do for an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reap {
    /// Extents from this file offset on go.
    pub from: u64,
    /// Then the inode itself goes too.
    pub delete: bool,
}

/// A shard of the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRow {
    /// Its name.
    pub name: String,
    /// Its directory; empty means inside the volume directory.
    pub path: PathBuf,
    /// Its share of new containers relative to others.
    pub weight: u32,
}

/// Begins a versioned value.
pub(super) fn put_birth(out: &mut Vec<u8>, birth: Epoch) {
    put_varint(out, birth.0);
}

/// Splits the birth epoch from a versioned value.
pub(super) fn split_birth(value: &[u8]) -> Parsed<(Epoch, &[u8])> {
    let mut cursor = Cursor::new(value);
    let birth = epoch(&mut cursor)?;
    Ok((birth, cursor.rest()))
}

fn epoch(cursor: &mut Cursor<'_>) -> Parsed<Epoch> {
    match cursor.varint()? {
        epoch if epoch <= EPOCH_MAX => Ok(Epoch(epoch)),
        _ => Err("the epoch is too large"),
    }
}

fn kind(cursor: &mut Cursor<'_>) -> Parsed<FileKind> {
    FileKind::from_tag(cursor.u8()?).ok_or("the file kind is unknown")
}

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    put_zigzag(out, time.secs);
    put_varint(out, u64::from(time.nanos));
}

fn time(cursor: &mut Cursor<'_>) -> Parsed<Timestamp> {
    let (secs, nanos) = (cursor.zigzag()?, cursor.varint_u32()?);
    if nanos > NANOS_MAX { Err("a time is invalid") } else { Ok(Timestamp { secs, nanos }) }
}

/// Appends an inode without its birth.
pub(super) fn put_inode(out: &mut Vec<u8>, inode: &Inode) {
    let home = if inode.home == 0 { 0 } else { INODE_HOME };
    out.push(home | if inode.stamp == 0 { 0 } else { INODE_STAMP });
    out.push(inode.kind as u8);
    for field in [u32::from(inode.perm), inode.uid, inode.gid, inode.nlink, inode.rdev] {
        put_varint(out, u64::from(field));
    }
    put_varint(out, inode.size);
    put_varint(out, inode.mapped);
    for time in [inode.atime, inode.mtime, inode.ctime, inode.btime] {
        put_time(out, time);
    }
    out.push(inode.class.0);
    put_varint(out, inode.parent.0);
    if inode.home != 0 {
        out.extend_from_slice(&inode.home.to_be_bytes());
    }
    if inode.stamp != 0 {
        out.extend_from_slice(&inode.stamp.to_be_bytes());
    }
    put_varint(out, inode.target.len() as u64);
    out.extend_from_slice(&inode.target);
}

/// Reads what [`put_inode`] wrote.
pub(super) fn inode(payload: &[u8]) -> Parsed<Inode> {
    let mut c = Cursor::new(payload);
    let flags = c.u8()?;
    if flags & !(INODE_HOME | INODE_STAMP) != 0 {
        return Err("an inode flag is unknown");
    }
    let inode = Inode {
        kind: kind(&mut c)?,
        perm: match c.varint()? {
            perm if perm <= PERM_MAX => perm as u16,
            _ => return Err("the permissions are invalid"),
        },
        uid: c.varint_u32()?,
        gid: c.varint_u32()?,
        nlink: c.varint_u32()?,
        rdev: c.varint_u32()?,
        size: c.varint()?,
        mapped: c.varint()?,
        atime: time(&mut c)?,
        mtime: time(&mut c)?,
        ctime: time(&mut c)?,
        btime: time(&mut c)?,
        class: ClassId(c.u8()?),
        parent: Ino(c.varint()?),
        home: match flags & INODE_HOME {
            0 => 0,
            _ => match u32::from_be_bytes(c.array()?) {
                0 => return Err("the home is 0"),
                home => home,
            },
        },
        stamp: match flags & INODE_STAMP {
            0 => 0,
            _ => match u64::from_be_bytes(c.array()?) {
                0 => return Err("the stamp is 0"),
                stamp => stamp,
            },
        },
        target: match c.varint()? {
            len if len <= TARGET_BYTES_MAX as u64 => c.bytes(len)?.into(),
            _ => return Err("the link target is too long"),
        },
    };
    c.end()?;
    if inode.size > FILE_BYTES_MAX {
        return Err("the size is too large");
    }
    Ok(inode)
}

/// Appends a dirent without its birth.
pub(super) fn put_dirent(out: &mut Vec<u8>, dirent: Dirent) {
    put_varint(out, dirent.ino.0);
    out.push(dirent.kind as u8);
}

/// Reads what [`put_dirent`] wrote.
pub(super) fn dirent(payload: &[u8]) -> Parsed<Dirent> {
    let mut c = Cursor::new(payload);
    let dirent = Dirent { ino: Ino(c.varint()?), kind: kind(&mut c)? };
    c.end()?;
    Ok(dirent)
}

/// Appends an extent without its birth.
pub(super) fn put_extent(out: &mut Vec<u8>, extent: &Extent) {
    put_varint(out, extent.chunk.0);
    put_varint(out, u64::from(extent.chunk_offset));
    put_varint(out, u64::from(extent.len));
}

/// Reads what [`put_extent`] wrote; the file offset comes from the key.
pub(super) fn extent(offset: u64, payload: &[u8]) -> Parsed<Extent> {
    let mut c = Cursor::new(payload);
    let chunk = ChunkNo(c.varint()?);
    let (chunk_offset, len) = (c.varint_u32()?, c.varint_u32()?);
    c.end()?;
    let in_chunk = chunk_offset.checked_add(len).is_some_and(|end| end <= CHUNK_BYTES_MAX);
    let in_file = offset.checked_add(u64::from(len)).is_some_and(|end| end <= FILE_BYTES_MAX);
    if len == 0 || !in_chunk || !in_file {
        return Err("the length is out of bounds");
    }
    Ok(Extent { offset, len, chunk, chunk_offset })
}

/// Appends a snapshot's record.
pub(super) fn put_snapshot(out: &mut Vec<u8>, snapshot: &Snapshot) {
    put_varint(out, snapshot.epoch.0);
    put_time(out, snapshot.time);
    let held = if snapshot.held { SNAPSHOT_HELD } else { 0 };
    let locked = if snapshot.locked_until.is_some() { SNAPSHOT_LOCKED } else { 0 };
    put_varint(out, u64::from(held | locked));
    if let Some(until) = snapshot.locked_until {
        put_zigzag(out, until);
    }
    out.extend_from_slice(&snapshot.name);
}

/// Reads what [`put_snapshot`] wrote; the id comes from the key.
pub(super) fn snapshot(id: SnapshotId, value: &[u8]) -> Parsed<Snapshot> {
    let mut c = Cursor::new(value);
    let epoch = epoch(&mut c)?;
    let time = time(&mut c)?;
    let flags = c.varint_u32()?;
    if flags & !(SNAPSHOT_HELD | SNAPSHOT_LOCKED) != 0 {
        return Err("a snapshot flag is unknown");
    }
    let held = flags & SNAPSHOT_HELD != 0;
    let locked = flags & SNAPSHOT_LOCKED != 0;
    let locked_until = if locked { Some(c.zigzag()?) } else { None };
    Ok(Snapshot { id, name: c.rest().into(), epoch, time, held, locked_until })
}

/// Appends the reaper's work.
pub(super) fn put_reap(out: &mut Vec<u8>, reap: Reap) {
    put_varint(out, reap.from);
    out.push(u8::from(reap.delete));
}

/// Reads what [`put_reap`] wrote.
pub(super) fn reap(value: &[u8]) -> Parsed<Reap> {
    let mut c = Cursor::new(value);
    let from = c.varint()?;
    let delete = match c.u8()? {
        0 => false,
        1 => true,
        _ => return Err("a reap flag is unknown"),
    };
    c.end()?;
    Ok(Reap { from, delete })
}

/// Appends a shard's row.
pub(super) fn put_shard(out: &mut Vec<u8>, row: &ShardRow) {
    put_varint(out, u64::from(row.weight));
    put_varint(out, row.name.len() as u64);
    out.extend_from_slice(row.name.as_bytes());
    out.extend_from_slice(row.path.as_os_str().as_bytes());
}

/// Reads what [`put_shard`] wrote.
pub(super) fn shard(value: &[u8]) -> Parsed<ShardRow> {
    let mut c = Cursor::new(value);
    let weight = c.varint_u32()?;
    let len = c.varint()?;
    let name = str::from_utf8(c.bytes(len)?).map_err(|_| "the shard's name is not UTF-8")?;
    let path = Path::new(OsStr::from_bytes(c.rest()));
    Ok(ShardRow { name: name.to_owned(), path: path.to_owned(), weight })
}

/// Appends numbers, for `super` rows.
pub(super) fn put_numbers(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        put_varint(out, *number);
    }
}

/// Reads what [`put_numbers`] wrote.
pub(super) fn numbers(value: &[u8]) -> Parsed<Vec<u64>> {
    let mut c = Cursor::new(value);
    let mut numbers = Vec::new();
    while !c.is_empty() {
        numbers.push(c.varint()?);
    }
    Ok(numbers)
}
