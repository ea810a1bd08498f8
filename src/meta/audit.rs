//! Auditing names, inodes, extents and versions against each other, over one state of the tables.
//!
//! Guarantees: whatever the tables hold is a problem in the list, never an error or a panic; a part
//! of a table that cannot be read is named, and the others are looked at all the same.
//! Memory: about 60 bytes for each of [`PASS_INODES`] inodes; with more of them the entries are
//! read several times. Does not: know whether a chunk exists ([`each_reference`] hands out every
//! reference).

mod past;
mod plain;
mod tree;

use super::{key, record};
use crate::error::Result;
use crate::kv::{KeyRange, Kv, Order, Row, Table};
use crate::types::{ChunkNo, Extent, Ino};

/// Inodes whose names are counted in one pass over the entries: 60 MB.
pub const PASS_INODES: usize = 1 << 20;
/// Problems kept one by one; further ones are only counted.
const PROBLEMS_MAX: usize = 1000;

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
    /// Greatest inode number seen, live or old.
    pub last_ino: u64,
    /// Greatest snapshot number seen.
    pub last_snapshot: u32,
    /// What does not fit together, one sentence each.
    pub problems: Vec<String>,
    /// Problems beyond these.
    pub more_problems: u64,
}

impl Audit {
    fn problem(&mut self, text: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text);
        } else {
            self.more_problems += 1;
        }
    }

    /// The row, or the end of this table if the database cannot read on.
    fn row(&mut self, row: Result<Row>) -> Option<Row> {
        row.map_err(|e| self.problem(format!("{e}; what lies behind it was not checked"))).ok()
    }
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

/// Checks that every name, inode, extent, attribute and old version fits the others. Counts the
/// names of `pass_inodes` inodes at a time ([`PASS_INODES`] but in tests).
///
/// # Errors
/// `Kv` when single rows cannot be read; what the tables say is a problem, not an error.
pub fn audit(kv: &dyn Kv, pass_inodes: usize) -> Result<Audit> {
    let mut audit = Audit::default();
    let epoch = plain::epoch(kv, &mut audit)?;
    let snapshots = plain::snapshots(kv, epoch, &mut audit);
    tree::check(kv, epoch, pass_inodes.max(1), &mut audit)?;
    past::check(kv, epoch, &snapshots, &mut audit)?;
    plain::changes(kv, epoch, &mut audit);
    plain::reaps(kv, &mut audit)?;
    Ok(audit)
}

/// Hands every reference to a chunk, live or old, to `each`. Rows that do not read refer to
/// nothing: [`audit`] names them.
pub fn each_reference(kv: &dyn Kv, each: &mut dyn FnMut(ChunkRef)) {
    let old = KeyRange::prefix(&[Table::Extent.tag()]);
    for (table, range) in [(Table::Extent, KeyRange::all()), (Table::History, old)] {
        let rows = kv.scan(table, &range, Order::Forward);
        for (key, value) in rows.map_while(Result::ok) {
            let live = match table {
                Table::History => key::read_history(&key).map(|(_, live, _)| live),
                _ => Ok(&*key),
            };
            let read = live.and_then(|live| {
                let (ino, offset) = key::read_extent(live)?;
                Ok((ino, record::extent(offset, record::split_birth(&value)?.1)?))
            });
            if let Ok((ino, extent)) = read {
                each(reference(ino, &extent));
            }
        }
    }
}

fn reference(ino: Ino, extent: &Extent) -> ChunkRef {
    let end = u64::from(extent.chunk_offset) + u64::from(extent.len);
    ChunkRef { ino, chunk: extent.chunk, end }
}
