//! Writing into the open txg, and the one rule of versions.

use parking_lot::RwLockWriteGuard;

use super::record::{Reap, ShardRow};
use super::state::State;
use super::view::View;
use super::{EPOCH_ROW, damaged, key, record};
use crate::error::Result;
use crate::kv::{Kv, Table};
use crate::limits::EPOCH_MAX;
use crate::types::{Dirent, Epoch, Extent, Ino, Inode, ShardId, Snapshot, SnapshotId};

/// The right to edit. Changes are visible to this thread at once, to others when it is dropped.
///
/// Methods that return a `Result` may have to read the old row and fail with `Corrupt` or `Kv`; the
/// row is then unchanged, but earlier edits stay.
pub struct Edit<'a> {
    kv: &'a dyn Kv,
    state: RwLockWriteGuard<'a, State>,
    changes_before: u64,
}

impl<'a> Edit<'a> {
    pub(super) fn new(kv: &'a dyn Kv, state: RwLockWriteGuard<'a, State>) -> Self {
        let changes_before = state.open.changes();
        Self { kv, state, changes_before }
    }

    /// What a reader would see now.
    pub fn view(&self) -> View<'_> {
        View::lent(self.kv, &self.state)
    }

    /// True if this edit has staged anything yet.
    pub fn has_staged(&self) -> bool {
        self.state.open.changes() != self.changes_before
    }

    /// Adds or replaces an inode.
    pub fn put_inode(&mut self, ino: Ino, inode: &Inode) -> Result<()> {
        self.put(Table::Inode, &key::inode(ino), |out| record::put_inode(out, inode))
    }

    /// Removes an inode; a missing one is no error (here and below).
    pub fn delete_inode(&mut self, ino: Ino) -> Result<()> {
        self.change(Table::Inode, &key::inode(ino), None).map(drop)
    }

    /// Adds or replaces an entry.
    ///
    /// # Panics
    /// If the name is empty or holds a NUL.
    pub fn put_dirent(&mut self, parent: Ino, name: &[u8], dirent: Dirent) -> Result<()> {
        assert_name(name);
        self.put(Table::Dirent, &key::dirent(parent, name), |out| record::put_dirent(out, dirent))
    }

    /// Removes an entry.
    pub fn delete_dirent(&mut self, parent: Ino, name: &[u8]) -> Result<()> {
        self.change(Table::Dirent, &key::dirent(parent, name), None).map(drop)
    }

    /// Adds an extent, or replaces the one at the same offset. The caller sees to it that extents
    /// of one inode never overlap. True if a snapshot keeps the one that was there.
    pub fn put_extent(&mut self, ino: Ino, extent: &Extent) -> Result<bool> {
        let key = key::extent(ino, extent.offset);
        self.put_kept(Table::Extent, &key, |out| record::put_extent(out, extent))
    }

    /// Removes the extent that begins at `offset`. True if a snapshot keeps it.
    pub fn delete_extent(&mut self, ino: Ino, offset: u64) -> Result<bool> {
        self.change(Table::Extent, &key::extent(ino, offset), None)
    }

    /// Adds or replaces an extended attribute.
    ///
    /// # Panics
    /// If the name is empty or holds a NUL.
    pub fn put_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8]) -> Result<()> {
        assert_name(name);
        self.put(Table::Xattr, &key::xattr(ino, name), |out| out.extend_from_slice(value))
    }

    /// Removes an extended attribute.
    pub fn delete_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<()> {
        self.change(Table::Xattr, &key::xattr(ino, name), None).map(drop)
    }

    /// Adds a snapshot, or replaces (renames) the one with the same number. A new snapshot has the
    /// current epoch, and [`Edit::advance_epoch`] follows before anything else is edited.
    ///
    /// # Panics
    /// If another snapshot has the name, or its epoch is in the future.
    pub fn put_snapshot(&mut self, snapshot: &Snapshot) {
        let owner = self.state.names.get(&snapshot.name);
        assert!(owner.is_none_or(|id| *id == snapshot.id), "snapshot names are unique");
        assert!(snapshot.epoch <= self.state.epoch, "a snapshot sees no future");
        self.put_plain(Table::Snapshot, &key::snapshot(snapshot.id), |out| {
            record::put_snapshot(out, snapshot);
        });
        self.state.add_snapshot(snapshot.clone());
    }

    /// Removes a snapshot's record. What only it needed is left to [`super::Meta::find_dead`].
    pub fn delete_snapshot(&mut self, id: SnapshotId) {
        self.state.open.set(Table::Snapshot, &key::snapshot(id), None);
        self.state.remove_snapshot(id);
    }

    /// Begins the next epoch and returns it.
    ///
    /// # Panics
    /// After 2^56 epochs.
    pub fn advance_epoch(&mut self) -> Epoch {
        let next = self.state.epoch.next();
        assert!(next.0 <= EPOCH_MAX, "epochs last for two billion years of one per second");
        self.state.epoch = next;
        self.super_put_numbers(EPOCH_ROW, &[next.0]);
        next
    }

    /// Same as [`super::Meta::pin`].
    pub fn pin(&mut self, epoch: Epoch) {
        self.state.protect(epoch);
    }

    /// Same as [`super::Meta::unpin`].
    pub fn unpin(&mut self, epoch: Epoch) {
        self.state.unprotect(epoch);
    }

    /// Leaves work to the reaper, replacing what was left for this inode.
    pub fn put_reap(&mut self, ino: Ino, reap: Reap) {
        self.put_plain(Table::Reap, &key::inode(ino), |out| record::put_reap(out, reap));
    }

    /// The reaper's work for this inode is done.
    pub fn delete_reap(&mut self, ino: Ino) {
        self.state.open.set(Table::Reap, &key::inode(ino), None);
    }

    /// Adds or replaces a shard.
    pub fn put_shard(&mut self, id: ShardId, row: &ShardRow) {
        self.put_plain(Table::Shard, &key::shard(id), |out| record::put_shard(out, row));
    }

    /// Adds or replaces a `super` row. The row `epoch` belongs to this room.
    pub fn super_put(&mut self, name: &[u8], value: &[u8]) {
        self.state.open.set(Table::Super, name, Some(value));
    }

    /// Adds or replaces a `super` row that holds numbers.
    pub fn super_put_numbers(&mut self, name: &[u8], numbers: &[u64]) {
        self.put_plain(Table::Super, name, |out| record::put_numbers(out, numbers));
    }

    fn put_plain(&mut self, table: Table, key: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
        let state = &mut *self.state;
        state.scratch.clear();
        encode(&mut state.scratch);
        state.open.set(table, key, Some(&state.scratch));
    }

    fn put(&mut self, table: Table, key: &[u8], encode: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        self.put_kept(table, key, encode).map(drop)
    }

    fn put_kept(
        &mut self,
        table: Table,
        key: &[u8],
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<bool> {
        let epoch = self.state.epoch;
        let mut value = std::mem::take(&mut self.state.scratch);
        value.clear();
        record::put_birth(&mut value, epoch);
        let payload_at = value.len();
        encode(&mut value);
        let result = self.change(table, key, Some((&value, payload_at)));
        self.state.scratch = value;
        result
    }

    /// The rule of versions: sets a row to `new` (a value born now, and where its payload begins)
    /// or deletes it, after keeping the old version if a snapshot or pin sees it: true if it was.
    fn change(&mut self, table: Table, key: &[u8], new: Option<(&[u8], usize)>) -> Result<bool> {
        let state = &mut *self.state;
        let set = |state: &mut State| state.set(table, key, new.map(|(value, _)| value));
        let Some(newest) = state.newest_protected() else {
            // Nobody looks back: what was there before does not matter.
            set(state);
            return Ok(false);
        };
        let old = state.layers(self.kv).get(table, key)?.map(std::borrow::Cow::into_owned);
        let Some(old) = old else {
            if new.is_some() {
                state.note_change(table, key);
                set(state);
            }
            return Ok(false);
        };
        let (birth, payload) = record::split_birth(&old).map_err(|why| damaged(table, key, why))?;
        if new.is_some_and(|(value, at)| value[at..] == *payload) {
            return Ok(true);
        }
        let kept = birth <= newest && birth < state.epoch;
        if kept {
            let history = key::history(table, key, state.epoch);
            state.open.set(Table::History, &history, Some(&old));
        }
        if kept || (new.is_some() && birth < state.epoch) {
            state.note_change(table, key);
        }
        set(state);
        Ok(kept)
    }
}

/// History keys rely on it (see `key`).
fn assert_name(name: &[u8]) {
    assert!(!name.is_empty() && !name.contains(&0), "callers check names");
}
