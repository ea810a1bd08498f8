//! Whole tables in bounded pieces: history nobody needs, and every chunk that is referred to.
//!
//! Only committed rows are looked at, so a walk holds no lock, and every piece has an iterator of
//! its own, so it pins no old state of the database however long it takes.

use super::state::Protected;
use super::{damaged, key, record};
use crate::error::{Error, Result};
use crate::kv::{KeyRange, Kv, Table};
use crate::types::{Epoch, Extent, Ino};

/// A row that nobody needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadRow {
    /// `history` or `change`.
    pub table: Table,
    /// Its key.
    pub key: Box<[u8]>,
    /// Raw bytes that it maps; 0 if it is no extent.
    pub mapped: u32,
}

/// Rows to delete, and where to go on.
pub type DeadRows = (Vec<DeadRow>, Option<Vec<u8>>);

/// An extent that a walk meets.
pub(super) struct Seen {
    pub(super) ino: Ino,
    pub(super) extent: Extent,
    pub(super) birth: Epoch,
    /// When it ended; `None` for a live one.
    pub(super) end: Option<Epoch>,
}

/// Looks at up to `limit` rows of `history`, then `change`, for rows that no epoch needs.
pub(super) fn find_dead(
    protected: &Protected,
    kv: &dyn Kv,
    resume: Option<Vec<u8>>,
    limit: usize,
) -> Result<DeadRows> {
    // Differences start from an existing snapshot, so what changed up to the oldest is not asked.
    let upper = protected.oldest().map(|oldest| oldest.next().0.to_be_bytes().to_vec());
    let parts =
        [(Table::History, KeyRange::all()), (Table::Change, KeyRange { lower: Vec::new(), upper })];
    let mut dead = Vec::new();
    let resume = walk(kv, &parts, resume, limit, |table, key, value| {
        let mut mapped = 0;
        if table == Table::History {
            let why = |why| damaged(table, key, why);
            let (of, live, end) = key::read_history(key).map_err(why)?;
            let (birth, payload) = record::split_birth(value).map_err(why)?;
            if protected.need(birth..end) {
                return Ok(());
            }
            if of == Table::Extent {
                let (_, offset) = key::read_extent(live).map_err(why)?;
                mapped = record::extent(offset, payload).map_err(why)?.len;
            }
        }
        dead.push(DeadRow { table, key: key.into(), mapped });
        Ok(())
    })?;
    Ok((dead, resume))
}

/// Shows up to `limit` extents, live ones first, then old versions: a row that moves to `history`
/// meanwhile moves in one batch, so it is met at one place or at the other.
pub(super) fn chunks(
    kv: &dyn Kv,
    resume: Option<Vec<u8>>,
    limit: usize,
    each: &mut dyn FnMut(&Seen),
) -> Result<Option<Vec<u8>>> {
    let parts = [
        (Table::Extent, KeyRange::all()),
        (Table::History, KeyRange::prefix(&[Table::Extent.tag()])),
    ];
    walk(kv, &parts, resume, limit, |table, key, value| {
        let why = |why| damaged(table, key, why);
        let (live, end) = match table {
            Table::History => {
                let (_, live, end) = key::read_history(key).map_err(why)?;
                (live, Some(end))
            }
            _ => (key, None),
        };
        let (ino, offset) = key::read_extent(live).map_err(why)?;
        let (birth, payload) = record::split_birth(value).map_err(why)?;
        let extent = record::extent(offset, payload).map_err(why)?;
        each(&Seen { ino, extent, birth, end });
        Ok(())
    })
}

/// Visits up to `limit` rows of `parts`, from where `resume` (part number · last key) says.
fn walk(
    kv: &dyn Kv,
    parts: &[(Table, KeyRange)],
    resume: Option<Vec<u8>>,
    limit: usize,
    mut visit: impl FnMut(Table, &[u8], &[u8]) -> Result<()>,
) -> Result<Option<Vec<u8>>> {
    let (first, mut after) = match resume {
        Some(mut resume) if !resume.is_empty() => {
            let key = resume.split_off(1);
            (usize::from(resume[0]), Some(key))
        }
        Some(_) => return Err(Error::invalid("A resume mark is empty.")),
        None => (0, None),
    };
    let mut left = limit;
    for (part, (table, range)) in (0_u8..).zip(parts).skip(first) {
        let mut range = range.clone();
        if let Some(mut key) = after.take() {
            key.push(0);
            range.lower = key;
        }
        for row in kv.scan_once(*table, &range) {
            let (key, value) = row?;
            visit(*table, &key, &value)?;
            left = left.saturating_sub(1);
            if left == 0 {
                return Ok(Some([&[part], &*key].concat()));
            }
        }
    }
    Ok(None)
}
