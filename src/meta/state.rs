//! What is in memory: the overlays, the snapshots and the epochs somebody needs.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use super::ceilings::Ceilings;
use super::cursor::Parsed;
use super::known::Known;
use super::layers::Layers;
use super::overlay::Overlay;
use super::{EPOCH_ROW, damaged, key, record};
use crate::error::{Error, Result};
use crate::kv::{KeyRange, Kv, Order, Table};
use crate::types::{Epoch, Snapshot, SnapshotId};

/// Everything under the lock of [`super::Meta`].
#[derive(Debug)]
pub(super) struct State {
    pub(super) epoch: Epoch,
    pub(super) snapshots: BTreeMap<SnapshotId, Snapshot>,
    pub(super) names: BTreeMap<Box<[u8]>, SnapshotId>,
    /// Memory of the snapshots: records, names, and what they protect.
    snapshot_bytes: usize,
    /// Epochs of snapshots and pins, with how many of both need them.
    protected: BTreeMap<Epoch, usize>,
    pub(super) open: Overlay,
    /// Changes of the txgs that were frozen so far.
    pub(super) changes_before: u64,
    /// Shared with the commit that writes it.
    pub(super) frozen: Option<Arc<Overlay>>,
    pub(super) ceilings: Ceilings,
    /// Inodes of the database, unless this is a copy of an old state.
    pub(super) known: Option<Known>,
    /// Where records are put together.
    pub(super) scratch: Vec<u8>,
}

impl State {
    /// The state without any open changes, and what is wrong with snapshots that are not in it.
    pub(super) fn load(kv: &dyn Kv) -> Result<(Self, Vec<Error>)> {
        let mut state = Self {
            epoch: load_epoch(kv)?,
            snapshots: BTreeMap::new(),
            names: BTreeMap::new(),
            snapshot_bytes: 0,
            protected: BTreeMap::new(),
            open: Overlay::default(),
            changes_before: 0,
            frozen: None,
            ceilings: Ceilings::load(kv),
            known: None,
            scratch: Vec::new(),
        };
        let mut damage = Vec::new();
        for row in kv.scan(Table::Snapshot, &KeyRange::all(), Order::Forward) {
            let (key, value) = row?;
            match state.admit(&key, &value) {
                Ok(snapshot) => state.add_snapshot(snapshot),
                Err(why) => damage.push(damaged(Table::Snapshot, &key, why)),
            }
        }
        Ok((state, damage))
    }

    /// The snapshot of a row, if it fits the others.
    fn admit(&self, key: &[u8], value: &[u8]) -> Parsed<Snapshot> {
        let snapshot = record::snapshot(key::read_snapshot(key)?, value)?;
        if snapshot.epoch >= self.epoch {
            return Err("the epoch is not in the past");
        }
        if self.names.contains_key(&snapshot.name) {
            return Err("another snapshot has the same name");
        }
        Ok(snapshot)
    }

    pub(super) fn layers<'a>(&'a self, kv: &'a dyn Kv) -> Layers<'a> {
        let (open, frozen, ceilings) = (&self.open, self.frozen.as_deref(), &self.ceilings);
        Layers { open, frozen, kv, ceilings }
    }

    /// Puts a row of the open txg, or deletes it: without a trace where nothing lies below, or a
    /// copying program's temporary names would all be deleted in the database, too.
    pub(super) fn set(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        let in_frozen = |frozen: &Arc<Overlay>| frozen.get(table, key).is_some();
        let is_below =
            || self.ceilings.may_have(table, key) || self.frozen.as_ref().is_some_and(in_frozen);
        if value.is_some() || is_below() {
            self.open.set(table, key, value);
        } else {
            self.open.forget(table, key);
        }
    }

    /// True if a txg that is not in the database yet changes this row.
    pub(super) fn changes(&self, table: Table, key: &[u8]) -> bool {
        std::iter::once(&self.open)
            .chain(self.frozen.as_deref())
            .any(|overlay| overlay.get(table, key).is_some())
    }

    /// Adds a snapshot, or replaces the one with the same id.
    pub(super) fn add_snapshot(&mut self, snapshot: Snapshot) {
        self.remove_snapshot(snapshot.id);
        self.protect(snapshot.epoch);
        self.snapshot_bytes += memory_of(&snapshot);
        self.names.insert(snapshot.name.clone(), snapshot.id);
        self.snapshots.insert(snapshot.id, snapshot);
    }

    pub(super) fn remove_snapshot(&mut self, id: SnapshotId) {
        if let Some(old) = self.snapshots.remove(&id) {
            self.names.remove(&old.name);
            self.snapshot_bytes -= memory_of(&old);
            self.unprotect(old.epoch);
        }
    }

    pub(super) fn snapshot_bytes(&self) -> usize {
        self.snapshot_bytes
    }

    pub(super) fn protect(&mut self, epoch: Epoch) {
        *self.protected.entry(epoch).or_insert(0) += 1;
    }

    pub(super) fn unprotect(&mut self, epoch: Epoch) {
        let Entry::Occupied(mut users) = self.protected.entry(epoch) else {
            panic!("epoch {epoch} was given back more often than taken");
        };
        *users.get_mut() -= 1;
        if *users.get() == 0 {
            users.remove();
        }
    }

    pub(super) fn is_protected(&self, epoch: Epoch) -> bool {
        self.protected.contains_key(&epoch)
    }

    pub(super) fn newest_protected(&self) -> Option<Epoch> {
        self.protected.last_key_value().map(|(epoch, _)| *epoch)
    }

    /// Notes for those who ask what changed between snapshots that this row did in this epoch.
    pub(super) fn note_change(&mut self, table: Table, key: &[u8]) {
        let asked = matches!(table, Table::Inode | Table::Dirent) && !self.snapshots.is_empty();
        if asked {
            let change = key::change(self.epoch, table, key);
            self.open.set(Table::Change, &change, Some(&[]));
        }
    }

    /// The epochs of snapshots and pins now.
    pub(super) fn protected(&self) -> Protected {
        Protected(self.protected.keys().copied().collect())
    }
}

/// Epochs that are looked at, rising. What they do not need when they are copied, nobody will need
/// later: a new snapshot sees only what is live then.
pub(super) struct Protected(Vec<Epoch>);

impl Protected {
    /// True if a snapshot or pin sees a version with this life.
    pub(super) fn need(&self, life: Range<Epoch>) -> bool {
        let next = self.0.partition_point(|epoch| *epoch < life.start);
        self.0.get(next).is_some_and(|epoch| *epoch < life.end)
    }

    /// True if a snapshot or pin sees a live row born in `birth`.
    pub(super) fn need_live(&self, birth: Epoch) -> bool {
        self.0.last().is_some_and(|newest| *newest >= birth)
    }

    pub(super) fn oldest(&self) -> Option<Epoch> {
        self.0.first().copied()
    }
}

/// Two tree nodes that are two thirds full, the name twice, and the epoch's place.
fn memory_of(snapshot: &Snapshot) -> usize {
    2 * (snapshot.name.len() + 16)
        + 3 * (size_of::<(SnapshotId, Snapshot)>()
            + size_of::<(Box<[u8]>, SnapshotId)>()
            + size_of::<(Epoch, usize)>())
            / 2
}

fn load_epoch(kv: &dyn Kv) -> Result<Epoch> {
    let Some(value) = kv.get(Table::Super, EPOCH_ROW)? else {
        return Ok(Epoch::FIRST);
    };
    match record::numbers(&value).map_err(|detail| damaged(Table::Super, EPOCH_ROW, detail))?[..] {
        [epoch] if (Epoch::FIRST.0..=crate::limits::EPOCH_MAX).contains(&epoch) => Ok(Epoch(epoch)),
        _ => Err(damaged(Table::Super, EPOCH_ROW, "the epoch is out of bounds")),
    }
}
