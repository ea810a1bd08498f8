//! Reading, at the live tree or at an epoch.

use std::ops::{Bound, Deref, Range};

use parking_lot::RwLockReadGuard;

use super::cursor::Parsed;
use super::known::Known;
use super::layers::SharedRow;
use super::record::{Reap, ShardRow};
use super::state::State;
use super::versions::{self, Versions};
use super::{damaged, key, record};
use crate::error::{Error, Result};
use crate::kv::{KeyRange, Kv, Order, Table};
use crate::limits::CHUNK_BYTES_MAX;
use crate::types::{At, Cookie, Dirent, Epoch, Extent, Ino, Inode, ShardId, Snapshot, SnapshotId};

/// A range of so many bytes has few extents, as a rule: a look backward finds them all, and steps
/// backward cost more than steps forward.
const FEW_BYTES: u64 = 64 * 1024;

/// One consistent state of the metadata, for as long as it lives. Every method that reads rows
/// fails with `Corrupt` (it names the row) or `Kv`.
pub struct View<'a> {
    kv: &'a dyn Kv,
    state: Guard<'a>,
}

enum Guard<'a> {
    Shared(RwLockReadGuard<'a, State>),
    Lent(&'a State),
}

impl Deref for Guard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        match self {
            Self::Shared(guard) => guard,
            Self::Lent(state) => state,
        }
    }
}

impl<'a> View<'a> {
    pub(super) fn shared(kv: &'a dyn Kv, state: RwLockReadGuard<'a, State>) -> Self {
        Self { kv, state: Guard::Shared(state) }
    }

    pub(super) fn lent(kv: &'a dyn Kv, state: &'a State) -> Self {
        Self { kv, state: Guard::Lent(state) }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn kv(&self) -> &dyn Kv {
        self.kv
    }

    /// An inode's attributes.
    pub fn inode(&self, at: At, ino: Ino) -> Result<Option<Inode>> {
        let key = key::inode(ino);
        let staged = self.state.changes(Table::Inode, &key);
        let Some(known) = self.state.known.as_ref().filter(|_| !staged) else {
            return self.get(at, Table::Inode, &key, record::inode);
        };
        let newest = match known.get(ino) {
            Some(newest) => Some(newest),
            None => self.committed_inode(known, ino)?,
        };
        match (newest, at) {
            (newest, At::Live) => Ok(newest.map(|(_, inode)| inode)),
            (Some((birth, inode)), At::Epoch(epoch)) if birth <= epoch => Ok(Some(inode)),
            _ => self.get(at, Table::Inode, &key, record::inode),
        }
    }

    /// The committed live row of an inode, which then is known.
    fn committed_inode(&self, known: &Known, ino: Ino) -> Result<Option<(Epoch, Inode)>> {
        let key = key::inode(ino);
        if !self.state.ceilings.may_have(Table::Inode, &key) {
            return Ok(None);
        }
        let Some(value) = self.kv.get(Table::Inode, &key)? else { return Ok(None) };
        let (birth, inode) =
            parsed(Table::Inode, (key.as_slice().into(), value.into()), |_, row| {
                let (birth, payload) = record::split_birth(row)?;
                Ok((birth, record::inode(payload)?))
            })?;
        known.note(ino, birth, &inode);
        Ok(Some((birth, inode)))
    }

    /// Inodes with a number above `after`, rising, at most `limit`.
    pub fn inodes(&self, at: At, after: Ino, limit: usize) -> Result<Vec<(Ino, Inode)>> {
        let lower = key::inode(Ino(after.0.saturating_add(1))).to_vec();
        let range = KeyRange { lower, upper: None };
        self.list(at, Table::Inode, &range, limit, |key, payload| {
            Ok((key::read_inode(key)?, record::inode(payload)?))
        })
    }

    /// A directory entry.
    pub fn dirent(&self, at: At, parent: Ino, name: &[u8]) -> Result<Option<Dirent>> {
        self.get(at, Table::Dirent, &key::dirent(parent, name), record::dirent)
    }

    /// Entries of `parent` with a cookie above `after`, in cookie order, at most `limit`.
    #[allow(clippy::type_complexity)]
    pub fn dirents(
        &self,
        at: At,
        parent: Ino,
        after: Cookie,
        limit: usize,
    ) -> Result<Vec<(Cookie, Box<[u8]>, Dirent)>> {
        let range = key::dirents_after(parent, after);
        self.list(at, Table::Dirent, &range, limit, |key, payload| {
            let (_, cookie, name) = key::read_dirent(key)?;
            Ok((cookie, name.into(), record::dirent(payload)?))
        })
    }

    /// As [`View::dirents`], stepping over rows that do not read. The error is the first damage
    /// met; entries behind a part of the table that cannot be read at all are not reached.
    #[allow(clippy::type_complexity)]
    pub fn readable_dirents(
        &self,
        at: At,
        parent: Ino,
        after: Cookie,
        limit: usize,
    ) -> (Vec<(Cookie, Box<[u8]>, Dirent)>, Option<Error>) {
        let (mut found, mut damage) = (Vec::new(), None);
        for row in self.versions(at, Table::Dirent, &key::dirents_after(parent, after)) {
            let read = row.and_then(|row| {
                parsed(Table::Dirent, row, |key, payload| {
                    let (_, cookie, name) = key::read_dirent(key)?;
                    Ok((cookie, name.into(), record::dirent(payload)?))
                })
            });
            match read {
                Ok(entry) => found.push(entry),
                Err(e) => {
                    damage.get_or_insert(e);
                }
            }
            if found.len() == limit {
                break;
            }
        }
        (found, damage)
    }

    /// True if `parent` has an entry.
    pub fn has_dirents(&self, at: At, parent: Ino) -> Result<bool> {
        let first = self.versions(at, Table::Dirent, &key::range_of(parent)).next();
        Ok(first.transpose()?.is_some())
    }

    /// The extents of `ino` that overlap `range`, in file order, at most `limit`. The first and the
    /// last may reach out of the range.
    pub fn extents(
        &self,
        at: At,
        ino: Ino,
        range: Range<u64>,
        limit: usize,
    ) -> Result<Vec<Extent>> {
        if range.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        if at == At::Live
            && range.end - range.start <= FEW_BYTES
            && let Some(found) = self.few_extents(ino, &range, limit)?
        {
            return Ok(found);
        }
        if at == At::Live {
            let inside = key::extents(ino, range.start, range.end);
            let mut found = self.list(at, Table::Extent, &inside, limit, extent_row)?;
            // Extents do not overlap: one that begins at the start leaves no room for another.
            let covered = found.first().is_some_and(|extent| extent.offset == range.start);
            if !covered && let Some(before) = self.extent_before(ino, range.start)? {
                found.truncate(limit - 1);
                found.insert(0, before);
            }
            return Ok(found);
        }
        let reach = range.start.saturating_sub(u64::from(CHUNK_BYTES_MAX) - 1);
        let mut found = Vec::new();
        let wider = key::extents(ino, reach, range.end);
        for row in self.versions(at, Table::Extent, &wider) {
            let extent = parsed(Table::Extent, row?, extent_row)?;
            if extent.end() > range.start {
                found.push(extent);
                if found.len() == limit {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// All live extents of `ino`, which map `mapped` bytes, in file order, at most `limit`. Most
    /// files have one: it is found by its key, which is a third of the work of a scan.
    pub fn all_extents(&self, ino: Ino, mapped: u64, limit: usize) -> Result<Vec<Extent>> {
        if mapped == 0 {
            return Ok(Vec::new());
        }
        let key = key::extent(ino, 0);
        let first = self.get(At::Live, Table::Extent, &key, |row| record::extent(0, row))?;
        match first.filter(|first| u64::from(first.len) == mapped) {
            Some(only) => Ok(vec![only]),
            None => self.extents(At::Live, ino, 0..u64::MAX, limit),
        }
    }

    /// The live extents that overlap `range`, found by one look backward from its end; `None` if
    /// they are more than `limit`.
    fn few_extents(
        &self,
        ino: Ino,
        range: &Range<u64>,
        limit: usize,
    ) -> Result<Option<Vec<Extent>>> {
        let reach = range.start.saturating_sub(u64::from(CHUNK_BYTES_MAX) - 1);
        let wider = key::extents(ino, reach, range.end);
        let mut found = Vec::new();
        for row in self.state.layers(self.kv).scan(Table::Extent, &wider, Order::Backward) {
            let extent = live_extent(row?)?;
            if extent.end() <= range.start {
                break;
            }
            if found.len() == limit {
                return Ok(None);
            }
            found.push(extent);
            if extent.offset <= range.start {
                break;
            }
        }
        found.reverse();
        Ok(Some(found))
    }

    /// The extent of `ino` that begins at `offset`: a lookup, a third of the work of a scan.
    pub fn extent_at(&self, at: At, ino: Ino, offset: u64) -> Result<Option<Extent>> {
        self.get(at, Table::Extent, &key::extent(ino, offset), |row| record::extent(offset, row))
    }

    /// The live extent that begins before `offset` and reaches beyond it.
    fn extent_before(&self, ino: Ino, offset: u64) -> Result<Option<Extent>> {
        if offset == 0 {
            return Ok(None);
        }
        let reach = offset.saturating_sub(u64::from(CHUNK_BYTES_MAX) - 1);
        let before = key::extents(ino, reach, offset);
        let layers = self.state.layers(self.kv);
        let Some(row) = layers.scan(Table::Extent, &before, Order::Backward).next() else {
            return Ok(None);
        };
        let extent = live_extent(row?)?;
        Ok(Some(extent).filter(|extent| extent.end() > offset))
    }

    /// An extended attribute's value.
    pub fn xattr(&self, at: At, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get(at, Table::Xattr, &key::xattr(ino, name), |value| Ok(value.to_vec()))
    }

    /// The names of all extended attributes of `ino`, sorted.
    pub fn xattr_names(&self, at: At, ino: Ino) -> Result<Vec<Box<[u8]>>> {
        self.list(at, Table::Xattr, &key::range_of(ino), usize::MAX, |key, _| {
            Ok(key::read_xattr(key)?.1.into())
        })
    }

    /// How many changes there were since the metadata was opened. What was read holds as long as
    /// it stays the same.
    pub fn changes(&self) -> u64 {
        self.state.changes_before + self.state.open.changes()
    }

    /// The current epoch: that of everything that is changed now.
    pub fn epoch(&self) -> Epoch {
        self.state.epoch
    }

    /// All snapshots by number.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.state.snapshots.values().cloned().collect()
    }

    /// The same from the first with a number above `after`, at most `limit`.
    pub fn snapshots_after(&self, after: SnapshotId, limit: usize) -> Vec<Snapshot> {
        let above = (Bound::Excluded(after), Bound::Unbounded);
        self.state.snapshots.range(above).take(limit).map(|(_, s)| s.clone()).collect()
    }

    /// How many snapshots there are, and the newest.
    pub fn newest_snapshot(&self) -> (usize, Option<&Snapshot>) {
        let snapshots = &self.state.snapshots;
        (snapshots.len(), snapshots.last_key_value().map(|(_, newest)| newest))
    }

    /// Memory that the snapshots' records take.
    pub fn snapshot_bytes(&self) -> usize {
        self.state.snapshot_bytes()
    }

    /// The snapshot with this number.
    pub fn snapshot(&self, id: SnapshotId) -> Option<Snapshot> {
        self.state.snapshots.get(&id).cloned()
    }

    /// The snapshot with this name.
    pub fn snapshot_named(&self, name: &[u8]) -> Option<Snapshot> {
        self.snapshot(*self.state.names.get(name)?)
    }

    /// Work left to the reaper for inodes above `after`, rising, at most `limit`. Rows that do not
    /// read are left out: the price is space, and `check` names them.
    pub fn reaps(&self, after: Option<Ino>, limit: usize) -> Result<Vec<(Ino, Reap)>> {
        let mut range = KeyRange::all();
        if let Some(after) = after {
            range.lower = key::inode(Ino(after.0.saturating_add(1))).to_vec();
        }
        let rows = self.state.layers(self.kv).scan(Table::Reap, &range, Order::Forward);
        let read = rows.filter_map(|row| {
            let read = row.map(|(key, value)| {
                Some((key::read_inode(&key).ok()?, record::reap(&value).ok()?))
            });
            read.transpose()
        });
        read.take(limit).collect()
    }

    /// Work left to the reaper for `ino`.
    pub fn reap(&self, ino: Ino) -> Result<Option<Reap>> {
        self.get_plain(Table::Reap, &key::inode(ino), record::reap)
    }

    /// All shards by number.
    pub fn shards(&self) -> Result<Vec<(ShardId, ShardRow)>> {
        self.rows(Table::Shard, &KeyRange::all(), usize::MAX, |key, value| {
            Ok((key::read_shard(key)?, record::shard(value)?))
        })
    }

    /// A `super` row.
    pub fn super_get(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get_plain(Table::Super, name, |value| Ok(value.to_vec()))
    }

    /// A `super` row that holds numbers.
    pub fn super_numbers(&self, name: &[u8]) -> Result<Option<Vec<u64>>> {
        self.get_plain(Table::Super, name, record::numbers)
    }

    fn get<T>(
        &self,
        at: At,
        table: Table,
        key: &[u8],
        parse: impl FnOnce(&[u8]) -> Parsed<T>,
    ) -> Result<Option<T>> {
        let payload = versions::get(self.state.layers(self.kv), at, table, key)?;
        payload.map(|payload| parse(&payload).map_err(|why| damaged(table, key, why))).transpose()
    }

    fn get_plain<T>(
        &self,
        table: Table,
        key: &[u8],
        parse: impl FnOnce(&[u8]) -> Parsed<T>,
    ) -> Result<Option<T>> {
        let value = self.state.layers(self.kv).get(table, key)?;
        value.map(|value| parse(&value).map_err(|why| damaged(table, key, why))).transpose()
    }

    fn versions(&self, at: At, table: Table, range: &KeyRange) -> Versions<'_> {
        Versions::scan(self.state.layers(self.kv), at, table, range)
    }

    fn list<T>(
        &self,
        at: At,
        table: Table,
        range: &KeyRange,
        limit: usize,
        parse: impl Fn(&[u8], &[u8]) -> Parsed<T>,
    ) -> Result<Vec<T>> {
        let rows = self.versions(at, table, range).take(limit);
        rows.map(|row| parsed(table, row?, &parse)).collect()
    }

    fn rows<T>(
        &self,
        table: Table,
        range: &KeyRange,
        limit: usize,
        parse: impl Fn(&[u8], &[u8]) -> Parsed<T>,
    ) -> Result<Vec<T>> {
        let rows = self.state.layers(self.kv).scan(table, range, Order::Forward).take(limit);
        rows.map(|row| parsed(table, row?, &parse)).collect()
    }
}

fn live_extent(row: SharedRow<'_>) -> Result<Extent> {
    parsed(Table::Extent, row, |key, value| extent_row(key, record::split_birth(value)?.1))
}

fn extent_row(key: &[u8], payload: &[u8]) -> Parsed<Extent> {
    record::extent(key::read_extent(key)?.1, payload)
}

fn parsed<T>(
    table: Table,
    (key, value): SharedRow<'_>,
    parse: impl FnOnce(&[u8], &[u8]) -> Parsed<T>,
) -> Result<T> {
    parse(&key, &value).map_err(|why| damaged(table, &key, why))
}
