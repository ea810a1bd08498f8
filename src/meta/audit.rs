//! Auditing names, inodes and extents against each other, over one state of the tables.
//!
//! Memory: about 60 bytes per inode, for the names that point at it.

use std::collections::HashMap;
use std::iter::Peekable;

use super::{key, record};
use crate::error::Result;
use crate::kv::{KeyRange, Kv, Order, Row, Rows, Table};
use crate::limits::CHUNK_BYTES_MAX;
use crate::types::{ChunkNo, Cookie, Epoch, Extent, FileKind, Ino, Inode};

/// What an audit saw.
#[derive(Debug, Default)]
pub struct Audit {
    /// Live inodes.
    pub inodes: u64,
    /// Live entries.
    pub dirents: u64,
    /// Live extents.
    pub extents: u64,
    /// Old versions.
    pub old_versions: u64,
    /// Raw bytes that live extents map.
    pub live_bytes: u64,
    /// Greatest inode number seen.
    pub last_ino: u64,
    /// What does not fit together, one sentence each.
    pub problems: Vec<String>,
}

/// A reference from an extent: bytes of `chunk` up to `end` must exist.
#[derive(Clone, Copy, Debug)]
pub struct ChunkRef {
    /// The inode.
    pub ino: Ino,
    /// The chunk.
    pub chunk: ChunkNo,
    /// Offset in the chunk after the last byte that is used.
    pub end: u64,
}

#[derive(Clone, Copy, Default)]
struct Named {
    names: u32,
    kind: u8,
    parent: u64,
}

struct Auditor<'a> {
    kv: &'a dyn Kv,
    audit: Audit,
    named: HashMap<u64, Named>,
    /// Directories that have entries → how many of them are directories.
    parents: HashMap<u64, u32>,
}

/// Checks that every name, inode, extent and attribute fits the others, and hands every reference
/// to a chunk, live or old, to `refs`.
///
/// # Errors
/// `Kv` when the tables cannot be read; what they say is a problem, not an error.
pub fn audit(kv: &dyn Kv, refs: &mut dyn FnMut(ChunkRef)) -> Result<Audit> {
    let mut auditor =
        Auditor { kv, audit: Audit::default(), named: HashMap::new(), parents: HashMap::new() };
    auditor.entries()?;
    auditor.inodes(refs)?;
    auditor.leftovers();
    auditor.history(refs)?;
    Ok(auditor.audit)
}

type Sorted<'a> = Peekable<Rows<'a>>;

impl Auditor<'_> {
    fn problem(&mut self, text: String) {
        self.audit.problems.push(text);
    }

    fn entries(&mut self) -> Result<()> {
        for row in self.kv.scan(Table::Dirent, &KeyRange::all(), Order::Forward) {
            let (key, value) = row?;
            self.audit.dirents += 1;
            let read = key::read_dirent(&key).and_then(|(parent, cookie, name)| {
                let (_, payload) = record::split_birth(&value)?;
                Ok((parent, cookie, name, record::dirent(payload)?))
            });
            let (parent, cookie, name, dirent) = match read {
                Ok(read) => read,
                Err(why) => {
                    self.problem(format!("A row of table dirent does not read: {why}"));
                    continue;
                }
            };
            if cookie != Cookie::of(name) {
                self.problem(format!("An entry of directory {parent} has a wrong cookie"));
            }
            let seen = self.named.entry(dirent.ino.0).or_default();
            let mixed = seen.names > 0 && seen.kind != dirent.kind as u8;
            *seen = Named { names: seen.names + 1, kind: dirent.kind as u8, parent: parent.0 };
            *self.parents.entry(parent.0).or_default() +=
                u32::from(dirent.kind == FileKind::Directory);
            if mixed {
                self.problem(format!("Inode {} has entries of different kinds", dirent.ino));
            }
        }
        Ok(())
    }

    fn inodes(&mut self, refs: &mut dyn FnMut(ChunkRef)) -> Result<()> {
        let kv = self.kv;
        let scan = |table| kv.scan(table, &KeyRange::all(), Order::Forward);
        let mut extents = scan(Table::Extent).peekable();
        let mut xattrs = scan(Table::Xattr).peekable();
        for row in scan(Table::Inode) {
            let (key, value) = row?;
            self.audit.inodes += 1;
            let read = key::read_inode(&key).and_then(|ino| {
                let (_, payload) = record::split_birth(&value)?;
                Ok((ino, record::inode(payload)?))
            });
            match read {
                Ok((ino, inode)) => {
                    self.audit.last_ino = ino.0;
                    self.orphans(&mut extents, "An extent", ino.0)?;
                    self.orphans(&mut xattrs, "An attribute", ino.0)?;
                    self.links(ino, &inode)?;
                    self.content(ino, &inode, &mut extents, refs)?;
                    while let Some(row) = next_of(&mut xattrs, ino.0)? {
                        if let Err(why) = key::read_xattr(&row.0) {
                            self.problem(format!("An attribute of inode {ino} is damaged: {why}"));
                        }
                    }
                }
                Err(why) => self.problem(format!("A row of table inode does not read: {why}")),
            }
        }
        self.orphans(&mut extents, "An extent", u64::MAX)?;
        self.orphans(&mut xattrs, "An attribute", u64::MAX)
    }

    /// Rows that belong to no inode, below `ino`.
    fn orphans(&mut self, rows: &mut Sorted<'_>, what: &str, ino: u64) -> Result<()> {
        while let Some(row) = rows.next_if(|row| matches!(row, Ok(row) if first(row) < ino)) {
            let owner = first(&row?);
            self.problem(format!("{what} belongs to inode {owner}, which does not exist"));
        }
        Ok(())
    }

    fn links(&mut self, ino: Ino, inode: &Inode) -> Result<()> {
        let named = self.named.remove(&ino.0).unwrap_or_default();
        let subdirs = self.parents.remove(&ino.0);
        if named.names > 0 && named.kind != inode.kind as u8 {
            self.problem(format!("Inode {ino} has another kind than its entry says"));
        }
        if inode.kind == FileKind::Directory {
            let expected = u32::from(ino != Ino::ROOT);
            let alive = inode.nlink > 0;
            if alive && named.names != expected {
                self.problem(format!("Directory {ino} has {} names", named.names));
            }
            if alive && inode.nlink != 2 + subdirs.unwrap_or(0) {
                self.problem(format!("Directory {ino} has a wrong link count"));
            }
            if alive && ino != Ino::ROOT && named.parent != inode.parent.0 {
                self.problem(format!("Directory {ino} names a wrong parent"));
            }
        } else if subdirs.is_some() {
            self.problem(format!("Inode {ino} has entries and is no directory"));
        } else if named.names != inode.nlink {
            self.problem(format!(
                "Inode {ino} counts {} links and has {} names",
                inode.nlink, named.names
            ));
        }
        if inode.nlink == 0 && self.kv.get(Table::Reap, &key::inode(ino))?.is_none() {
            self.problem(format!("Inode {ino} has no name and nobody is to remove it"));
        }
        Ok(())
    }

    fn content(
        &mut self,
        ino: Ino,
        inode: &Inode,
        extents: &mut Sorted<'_>,
        refs: &mut dyn FnMut(ChunkRef),
    ) -> Result<()> {
        let (mut mapped, mut end, mut beyond) = (0, 0, false);
        while let Some((key, value)) = next_of(extents, ino.0)? {
            self.audit.extents += 1;
            let Some(extent) = self.extent(&key, &value) else { continue };
            if extent.offset < end {
                self.problem(format!("Extents of inode {ino} overlap at byte {}", extent.offset));
            }
            end = extent.end();
            mapped += u64::from(extent.len);
            beyond |= end > inode.size;
            refs(reference(ino, &extent));
        }
        self.audit.live_bytes += mapped;
        if mapped > 0 && inode.kind != FileKind::Regular {
            self.problem(format!("Inode {ino} has extents and is no regular file"));
        }
        if mapped != inode.mapped {
            let counted = inode.mapped;
            self.problem(format!("Inode {ino} counts {counted} mapped bytes and has {mapped}"));
        }
        if beyond && self.kv.get(Table::Reap, &key::inode(ino))?.is_none() {
            self.problem(format!("Inode {ino} has extents beyond its end"));
        }
        Ok(())
    }

    fn extent(&mut self, key: &[u8], value: &[u8]) -> Option<Extent> {
        let read = key::read_extent(key).and_then(|(_, offset)| {
            let (_, payload) = record::split_birth(value)?;
            record::extent(offset, payload)
        });
        match read {
            Ok(extent) if extent.len > 0 && extent.len <= CHUNK_BYTES_MAX => Some(extent),
            Ok(extent) => {
                self.problem(format!("An extent has {} bytes", extent.len));
                None
            }
            Err(why) => {
                self.problem(format!("A row of table extent does not read: {why}"));
                None
            }
        }
    }

    fn leftovers(&mut self) {
        for (ino, named) in std::mem::take(&mut self.named) {
            self.problem(format!(
                "An entry of directory {} names inode {ino}, which does not exist",
                named.parent
            ));
        }
        for parent in std::mem::take(&mut self.parents).into_keys() {
            self.problem(format!("Entries lie in directory {parent}, which does not exist"));
        }
    }

    fn history(&mut self, refs: &mut dyn FnMut(ChunkRef)) -> Result<()> {
        for row in self.kv.scan(Table::History, &KeyRange::all(), Order::Forward) {
            let (key, value) = row?;
            self.audit.old_versions += 1;
            let read = key::read_history(&key).and_then(|(table, live_key, end)| {
                let (birth, payload) = record::split_birth(&value)?;
                check_old(table, live_key, payload, birth, end)
            });
            match read {
                Ok(Some((ino, extent))) => refs(reference(ino, &extent)),
                Ok(None) => {}
                Err(why) => self.problem(format!("A row of table history does not read: {why}")),
            }
        }
        Ok(())
    }
}

type OldExtent = Option<(Ino, Extent)>;

fn check_old(
    table: Table,
    live_key: &[u8],
    payload: &[u8],
    birth: Epoch,
    end: Epoch,
) -> std::result::Result<OldExtent, &'static str> {
    if birth >= end {
        return Err("it ended before it was born");
    }
    match table {
        Table::Inode => record::inode(payload).map(|_| None),
        Table::Dirent => record::dirent(payload).map(|_| None),
        Table::Extent => {
            let (ino, offset) = key::read_extent(live_key)?;
            Ok(Some((ino, record::extent(offset, payload)?)))
        }
        _ => Ok(None),
    }
}

fn reference(ino: Ino, extent: &Extent) -> ChunkRef {
    let end = u64::from(extent.chunk_offset) + u64::from(extent.len);
    ChunkRef { ino, chunk: extent.chunk, end }
}

/// The inode number every key here begins with.
fn first(row: &Row) -> u64 {
    row.0.first_chunk().map_or(u64::MAX, |ino| u64::from_be_bytes(*ino))
}

/// The next row if it belongs to `ino`; an error comes through whoever it belongs to.
fn next_of(rows: &mut Sorted<'_>, ino: u64) -> Result<Option<Row>> {
    rows.next_if(|row| row.as_ref().map_or(true, |row| first(row) == ino)).transpose()
}
