//! Whole tables in bounded pieces: history nobody needs, and every chunk that is referred to.

use super::state::State;
use super::{damaged, key, record};
use crate::error::{Error, Result};
use crate::kv::{KeyRange, Kv, Order, Table};
use crate::types::ChunkNo;

/// Rows to delete, and where to go on.
pub(super) type Dead = (Vec<(Table, Box<[u8]>)>, Option<Vec<u8>>);

/// Looks at up to `limit` rows of `history`, then `change`, for rows that no epoch needs.
pub(super) fn find_dead(
    state: &State,
    kv: &dyn Kv,
    resume: Option<Vec<u8>>,
    limit: usize,
) -> Result<Dead> {
    // Differences start from an existing snapshot, so what changed up to the oldest is not asked.
    let upper = state.oldest_protected().map(|oldest| oldest.next().0.to_be_bytes().to_vec());
    let parts =
        [(Table::History, KeyRange::all()), (Table::Change, KeyRange { lower: Vec::new(), upper })];
    let mut dead = Vec::new();
    let resume = walk((state, kv), &parts, resume, limit, |table, key, value| {
        let needed = table == Table::History && {
            let why = |why| damaged(table, key, why);
            let (_, _, end) = key::read_history(key).map_err(why)?;
            let (birth, _) = record::split_birth(value).map_err(why)?;
            state.needs(birth..end)
        };
        if !needed {
            dead.push((table, key.into()));
        }
        Ok(())
    })?;
    Ok((dead, resume))
}

/// The chunks of up to `limit` extents, live ones first, then old versions.
pub(super) fn chunks(
    state: &State,
    kv: &dyn Kv,
    resume: Option<Vec<u8>>,
    limit: usize,
) -> Result<(Vec<ChunkNo>, Option<Vec<u8>>)> {
    let parts = [
        (Table::Extent, KeyRange::all()),
        (Table::History, KeyRange::prefix(&[Table::Extent.tag()])),
    ];
    let mut chunks = Vec::new();
    let resume = walk((state, kv), &parts, resume, limit, |table, key, value| {
        let why = |why| damaged(table, key, why);
        let live = match table {
            Table::History => key::read_history(key).map_err(why)?.1,
            _ => key,
        };
        let (_, offset) = key::read_extent(live).map_err(why)?;
        let (_, payload) = record::split_birth(value).map_err(why)?;
        chunks.push(record::extent(offset, payload).map_err(why)?.chunk);
        Ok(())
    })?;
    Ok((chunks, resume))
}

/// Visits up to `limit` rows of `parts`, from where `resume` (part number · last key) says.
fn walk(
    (state, kv): (&State, &dyn Kv),
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
        for row in state.layers(kv).scan(*table, &range, Order::Forward) {
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
