//! Whom every version of every extent serves: the live tree, snapshots, or nobody any more.
//!
//! Reads one committed state of the tables, so that writers change nothing while it is counted.

use std::iter::Peekable;

use super::state::State;
use super::{damaged, key, record};
use crate::error::Result;
use crate::kv::{KeyRange, Kv, Order, Row, Table};
use crate::limits::EPOCH_MAX;
use crate::types::{Epoch, Extent, Ino, Snapshot};

/// A version of an extent and the epochs that see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// What it maps.
    pub extent: Extent,
    /// The first epoch that sees it.
    pub birth: Epoch,
    /// The first epoch that does not.
    pub end: Epoch,
    /// The live tree needs it.
    pub live: bool,
}

/// The snapshots of a committed state, oldest first.
///
/// # Errors
/// `Corrupt`, `Kv`.
pub fn snapshots(kv: &dyn Kv) -> Result<Vec<Snapshot>> {
    let (state, damaged) = State::load(kv)?;
    // What a snapshot that does not read needs is unknown: sums without it would be wrong.
    damaged.into_iter().next().map_or(Ok(()), Err)?;
    Ok(state.snapshots.into_values().collect())
}

/// Calls `each` for every version of every extent of a committed state. Extents that the reaper has
/// still to remove count as removed, unless `is_open` says that somebody holds their file.
///
/// # Errors
/// `Corrupt` that names the row; `Kv`.
pub fn extent_lives(
    kv: &dyn Kv,
    is_open: &dyn Fn(Ino) -> bool,
    each: &mut dyn FnMut(Life),
) -> Result<()> {
    let mut reaps = kv.scan(Table::Reap, &KeyRange::all(), Order::Forward).peekable();
    let mut reaped: Option<(Ino, u64)> = None;
    for row in kv.scan(Table::Extent, &KeyRange::all(), Order::Forward) {
        let (key, value) = row?;
        let why = |why| damaged(Table::Extent, &key, why);
        let (ino, offset) = key::read_extent(&key).map_err(why)?;
        let (birth, payload) = record::split_birth(&value).map_err(why)?;
        let extent = record::extent(offset, payload).map_err(why)?;
        while let Some(next) = next_reap(&mut reaps, ino, is_open)? {
            reaped = Some(next);
        }
        let live = !reaped.is_some_and(|(of, from)| of == ino && offset >= from);
        each(Life { extent, birth, end: Epoch(EPOCH_MAX), live });
    }
    let old = KeyRange::prefix(&[Table::Extent.tag()]);
    for row in kv.scan(Table::History, &old, Order::Forward) {
        let (key, value) = row?;
        let why = |why| damaged(Table::History, &key, why);
        let (_, live_key, end) = key::read_history(&key).map_err(why)?;
        let (_, offset) = key::read_extent(live_key).map_err(why)?;
        let (birth, payload) = record::split_birth(&value).map_err(why)?;
        let extent = record::extent(offset, payload).map_err(why)?;
        each(Life { extent, birth, end, live: false });
    }
    Ok(())
}

/// The next reap row of an inode up to `ino`: the inode, and from where its extents are nobody's.
fn next_reap(
    reaps: &mut Peekable<impl Iterator<Item = Result<Row>>>,
    ino: Ino,
    is_open: &dyn Fn(Ino) -> bool,
) -> Result<Option<(Ino, u64)>> {
    let due = |row: &Result<Row>| {
        row.as_ref().map_or(true, |(key, _)| key::read_inode(key).is_ok_and(|of| of <= ino))
    };
    let Some((key, value)) = reaps.next_if(due).transpose()? else { return Ok(None) };
    let why = |why| damaged(Table::Reap, &key, why);
    let of = key::read_inode(&key).map_err(why)?;
    let reap = record::reap(&value).map_err(why)?;
    let from = match (reap.delete, is_open(of)) {
        // Nothing of it will stay, though for now only a tail that was cut before is being removed.
        (true, false) => 0,
        (true, true) if reap.from == 0 => u64::MAX,
        _ => reap.from,
    };
    Ok(Some((of, from)))
}
