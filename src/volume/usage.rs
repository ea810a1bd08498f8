//! What snapshots hold: how much each of them alone keeps, and what deleting some would free.
//!
//! Guarantees: the numbers are exact for one committed state of the tables, writers or not. A chunk
//! counts for a set of snapshots if every version of every extent that refers to it is seen by them
//! alone. Bytes are the chunk's raw bytes, and its share of the frame it lies in; `gc` counts what
//! nothing refers to in the same way, so deleting the set makes its report grow by these numbers.
//!
//! How: a version of an extent is seen by the snapshots whose epochs lie in its life, a range of
//! the list of snapshots. One pass over the extents notes for each chunk who needs it, one pass
//! over the chunks adds up. Memory: two bytes per chunk number (320 MB for 160 M chunks), and 24
//! bytes per snapshot, while it runs. Does not: know which deleted snapshots still have files open.

use std::collections::HashSet;
use std::ops::Range;

use log::debug;
use serde::{Deserialize, Serialize};

use super::Volume;
use super::open::Counters;
use crate::error::{Error, Result};
use crate::kv::Kv;
use crate::meta::{extent_lives, snapshots};
use crate::store::each_share;
use crate::types::{ChunkNo, Ino, Snapshot, SnapshotId};

/// Nothing needs the chunk.
const NOBODY: u16 = 0;
/// The live tree needs it, or more than one of those we tell apart.
const MANY: u16 = u16::MAX;
/// Users told apart in one pass.
const KEYS_MAX: usize = (MANY - 1) as usize;

/// Chunks and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    /// Chunks.
    pub chunks: u64,
    /// Their bytes before compression.
    pub raw_bytes: u64,
    /// Their shares of the frames they lie in.
    pub stored_bytes: u64,
}

impl Amount {
    /// Adds one chunk.
    pub fn add(&mut self, raw_bytes: u64, stored_bytes: u64) {
        self.chunks += 1;
        self.raw_bytes += raw_bytes;
        self.stored_bytes += stored_bytes;
    }
}

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotUsage {
    /// The snapshot.
    pub id: SnapshotId,
    /// Raw bytes that its files map, duplicates counted each time.
    pub referenced_bytes: u64,
    /// What it alone holds: what deleting just this one would free.
    pub alone: Amount,
}

/// Who needs a chunk, in two bytes.
struct Owners(Vec<u16>);

impl Owners {
    fn new(chunks: u64) -> Result<Self> {
        let too_many = || Error::corrupt("row counters", format!("it counts {chunks} chunks"));
        let len = usize::try_from(chunks).map_err(|_| too_many())?;
        let mut owners = Vec::new();
        owners.try_reserve_exact(len).map_err(|_| too_many())?;
        owners.resize(len, NOBODY);
        Ok(Self(owners))
    }

    fn note(&mut self, chunk: ChunkNo, owner: u16) {
        let index = usize::try_from(chunk.0).unwrap_or(usize::MAX);
        // Beyond the numbers given out there are no chunks: a damaged extent, which check reports.
        if owner != NOBODY
            && let Some(known) = self.0.get_mut(index)
        {
            *known = if *known == NOBODY || *known == owner { owner } else { MANY };
        }
    }

    fn of(&self, chunk: ChunkNo) -> u16 {
        let index = usize::try_from(chunk.0).unwrap_or(usize::MAX);
        self.0.get(index).copied().unwrap_or(MANY)
    }
}

impl Volume {
    /// What each snapshot holds, oldest first.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn snapshot_usage(&self) -> Result<Vec<SnapshotUsage>> {
        let (state, open) = self.committed_state();
        let list = snapshots(&*state)?;
        let mut usage: Vec<_> = list
            .iter()
            .map(|s| SnapshotUsage { id: s.id, referenced_bytes: 0, alone: Amount::default() })
            .collect();
        for first in (0..list.len()).step_by(KEYS_MAX) {
            let keys = first..list.len().min(first + KEYS_MAX);
            let mut referenced = (first == 0).then(|| vec![0_u64; list.len() + 1]);
            let amounts = count((&*state, &open), &list, keys.len(), &mut |seen, bytes| {
                if let Some(steps) = &mut referenced {
                    steps[seen.start] = steps[seen.start].wrapping_add(bytes);
                    steps[seen.end] = steps[seen.end].wrapping_sub(bytes);
                }
                match seen.len() {
                    0 => NOBODY,
                    1 if keys.contains(&seen.start) => key(seen.start - first),
                    _ => MANY,
                }
            })?;
            for (usage, amount) in usage[keys].iter_mut().zip(amounts) {
                usage.alone = amount;
            }
            let mut sum = 0_u64;
            for (usage, step) in usage.iter_mut().zip(referenced.into_iter().flatten()) {
                sum = sum.wrapping_add(step);
                usage.referenced_bytes = sum;
            }
        }
        Ok(usage)
    }

    /// What deleting these snapshots, all of them together, would free.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn would_free(&self, ids: &[SnapshotId]) -> Result<Amount> {
        let (state, open) = self.committed_state();
        let list = snapshots(&*state)?;
        // How many of the chosen ones lie before each place of the list.
        let mut chosen = vec![0_usize; list.len() + 1];
        for (at, snapshot) in list.iter().enumerate() {
            chosen[at + 1] = chosen[at] + usize::from(ids.contains(&snapshot.id));
        }
        let amounts = count((&*state, &open), &list, 1, &mut |seen, _| match chosen[seen.end]
            - chosen[seen.start]
        {
            _ if seen.is_empty() => NOBODY,
            inside if inside == seen.len() => key(0),
            _ => MANY,
        })?;
        Ok(amounts.into_iter().next().unwrap_or_default())
    }

    /// The tables as the last commit left them; that is one made now, if it can be made. With it
    /// the inodes that are open.
    fn committed_state(&self) -> (Box<dyn Kv + '_>, HashSet<Ino>) {
        if let Err(cause) = self.commit() {
            debug!("Counting what the last commit knows cause={cause}");
        }
        // With the gate closed nobody but a user has a file open: the reaper does for its pieces.
        let _gate = self.gate.write();
        let open = self.files.all_open();
        (self.kv.snapshot(), open)
    }
}

/// The owner at this place of a pass.
fn key(place: usize) -> u16 {
    u16::try_from(place + 1).expect("a pass has at most KEYS_MAX places")
}

/// Adds up what chunks take by the owner that `owner_of` names for the snapshots (places in
/// `list`) that see a version of an extent, and its length. Owners are 1 to `keys`.
fn count(
    (state, open): (&dyn Kv, &HashSet<Ino>),
    list: &[Snapshot],
    keys: usize,
    owner_of: &mut dyn FnMut(Range<usize>, u64) -> u16,
) -> Result<Vec<Amount>> {
    let chunks = Counters::load(state)?.next.chunk.0;
    let mut owners = Owners::new(chunks)?;
    extent_lives(state, &|ino| open.contains(&ino), &mut |life| {
        let start = list.partition_point(|s| s.epoch < life.birth);
        let end = list.partition_point(|s| s.epoch < life.end).max(start);
        let owner = owner_of(start..end, u64::from(life.extent.len));
        owners.note(life.extent.chunk, if life.live { MANY } else { owner });
    })?;
    let mut amounts = vec![Amount::default(); keys];
    each_share(state, &mut |chunk, raw, stored| {
        let owner = usize::from(owners.of(chunk)).checked_sub(1);
        if let Some(amount) = owner.and_then(|at| amounts.get_mut(at)) {
            amount.add(raw, stored);
        }
    })?;
    Ok(amounts)
}
