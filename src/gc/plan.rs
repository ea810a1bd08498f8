//! What is alive in each container, and which of them are worth freeing.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::error::Result;
use crate::store::{ContainerRow, ContainerState};
use crate::types::ContainerId;
use crate::volume::Marking;

/// Memory of one container while a run lasts.
pub(super) const ENTRY_BYTES: usize = 40;
const _: () = assert!(size_of::<Entry>() <= ENTRY_BYTES);

/// A container and what is alive in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: ContainerId,
    /// Bytes of its file.
    pub(super) bytes: u64,
    /// Raw bytes of its frames.
    pub(super) raw: u64,
    /// Raw bytes of chunks in use that have their place there.
    pub(super) live: u64,
    open: bool,
}

impl Entry {
    fn new(id: ContainerId, row: &ContainerRow) -> Self {
        let open = row.state != ContainerState::Sealed;
        Self { id, bytes: row.bytes, raw: row.raw_bytes, live: 0, open }
    }

    pub(super) fn dead(&self) -> u64 {
        self.raw.saturating_sub(self.live)
    }

    /// True if at least `percent` of it is dead.
    fn is_mostly_dead(&self, percent: u8) -> bool {
        let dead = u128::from(self.dead());
        dead > 0 && dead * 100 >= u128::from(self.raw) * u128::from(percent)
    }

    /// The one with the smaller live share first.
    fn by_live_share(&self, other: &Self) -> Ordering {
        let cross = |a: &Self, b: &Self| u128::from(a.live) * u128::from(b.raw);
        cross(self, other).cmp(&cross(other, self)).then(self.id.cmp(&other.id))
    }
}

/// All containers, rising by number.
pub(super) struct Tally(Vec<Entry>);

impl Tally {
    pub(super) fn of(marking: &Marking<'_>) -> Result<Self> {
        let mut entries = Vec::new();
        marking.each_container(|id, row| {
            entries.push(Entry::new(id, row));
            Ok(())
        })?;
        Ok(Self(entries))
    }

    /// A chunk of `raw` bytes is alive in `id`. One in a container that came later is let be.
    pub(super) fn add(&mut self, id: ContainerId, raw: u64) {
        if let Ok(at) = self.0.binary_search_by_key(&id, |entry| entry.id) {
            self.0[at].live += raw;
        }
    }

    /// The containers still appended to that are mostly dead: a small volume has no others.
    pub(super) fn mostly_dead_open(&self, percent: u8) -> Vec<ContainerId> {
        let open = self.0.iter().filter(|e| e.open && e.is_mostly_dead(percent));
        open.map(|entry| entry.id).collect()
    }

    /// For a run that only looks: these would be closed, and have so many bytes then.
    pub(super) fn assume_closed(
        &mut self,
        ids: &[ContainerId],
        bytes: &BTreeMap<ContainerId, u64>,
    ) {
        for entry in self.0.iter_mut().filter(|entry| ids.contains(&entry.id)) {
            entry.open = false;
            entry.bytes = bytes.get(&entry.id).copied().unwrap_or(entry.bytes);
        }
    }

    /// Looks at these again: they were closed.
    pub(super) fn refresh(&mut self, ids: &[ContainerId], marking: &Marking<'_>) -> Result<()> {
        for entry in self.0.iter_mut().filter(|entry| ids.contains(&entry.id)) {
            if let Some(row) = marking.container(entry.id)? {
                *entry = Entry::new(entry.id, &row);
                entry.live = marking.live_bytes(entry.id)?;
            }
        }
        Ok(())
    }

    pub(super) fn plan(self, percent: u8) -> Plan {
        let dead_bytes = self.0.iter().map(Entry::dead).sum();
        let mut victims = self.0;
        victims.retain(|entry| !entry.open && entry.is_mostly_dead(percent.max(1)));
        victims.shrink_to_fit();
        let mut dead = Vec::new();
        victims.retain(|entry| {
            if entry.live == 0 {
                dead.push(*entry);
            }
            entry.live > 0
        });
        victims.sort_unstable_by(Entry::by_live_share);
        Plan { dead, repack: victims, dead_bytes }
    }
}

/// What a run will free.
pub(super) struct Plan {
    /// Containers without a live chunk.
    pub(super) dead: Vec<Entry>,
    /// Mostly dead ones, most dead first.
    pub(super) repack: Vec<Entry>,
    /// Raw bytes of all dead chunks.
    pub(super) dead_bytes: u64,
}

impl Plan {
    fn victims(&self) -> impl Iterator<Item = &Entry> {
        self.dead.iter().chain(&self.repack)
    }

    pub(super) fn freed_bytes(&self) -> u64 {
        self.victims().map(|entry| entry.bytes).sum()
    }

    pub(super) fn repacked_bytes(&self) -> u64 {
        self.repack.iter().map(|entry| entry.live).sum()
    }

    pub(super) fn dead_in_victims(&self) -> u64 {
        self.victims().map(Entry::dead).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64, raw: u64, live: u64) -> Entry {
        Entry { id: ContainerId(id), bytes: raw / 2, raw, live, open: false }
    }

    #[test]
    fn the_most_dead_come_first_and_full_ones_stay() {
        let open = Entry { open: true, ..entry(9, 100, 0) };
        let entries = vec![
            entry(1, 100, 50),
            entry(2, 100, 51),
            entry(3, 1000, 10),
            entry(4, 100, 0),
            entry(5, 100, 100),
            entry(6, 0, 0),
            entry(7, u64::MAX, u64::MAX / 4),
            open,
        ];
        let ids = |list: &[Entry]| list.iter().map(|entry| entry.id.0).collect::<Vec<_>>();
        let plan = Tally(entries.clone()).plan(50);
        assert_eq!((ids(&plan.dead), ids(&plan.repack)), (vec![4], vec![3, 7, 1]));
        assert_eq!(Tally(entries.clone()).mostly_dead_open(50), [ContainerId(9)]);
        let plan = Tally(entries.clone()).plan(49);
        assert_eq!(ids(&plan.repack), [3, 7, 1, 2]);
        let plan = Tally(entries).plan(100);
        assert_eq!((ids(&plan.dead), ids(&plan.repack)), (vec![4], vec![]));
    }

    /// With half and more dead, no more is copied than is freed.
    #[test]
    fn a_repack_never_copies_more_than_it_gains() {
        for raw in 1..200 {
            for live in 1..=raw {
                let plan = Tally(vec![entry(1, raw, live)]).plan(50);
                assert!(plan.repacked_bytes() <= plan.dead_in_victims(), "{live} of {raw}");
            }
        }
    }
}
