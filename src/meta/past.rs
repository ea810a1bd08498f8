//! All versions of one row, the live one with them: what a name and an inode were over time.
//!
//! Costs what there are versions of that row, whatever the number of snapshots.

use std::collections::BTreeMap;
use std::ops::Range;

use super::cursor::Parsed;
use super::view::View;
use super::{damaged, key, record};
use crate::error::Result;
use crate::kv::{Order, Table};
use crate::limits::EPOCH_MAX;
use crate::types::{Cookie, Dirent, Epoch, Ino, Inode, SnapshotId, Timestamp};

/// A version of a row and the epochs that see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version<T> {
    /// The first epoch that sees it.
    pub birth: Epoch,
    /// The first epoch that does not.
    pub end: Epoch,
    /// What it says.
    pub value: T,
}

/// A snapshot without its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant {
    /// Its number.
    pub id: SnapshotId,
    /// The last epoch it sees.
    pub epoch: Epoch,
    /// When it was taken.
    pub time: Timestamp,
}

/// Names with the epochs in which they were there, and where to go on.
pub type NamesWithLives = (Vec<(Cookie, Box<[u8]>, Lives)>, Option<Cookie>);

/// Epochs in which something was there.
pub type Lives = Vec<Range<Epoch>>;

impl View<'_> {
    /// Every snapshot, oldest first.
    pub fn instants(&self) -> Vec<Instant> {
        let snapshots = self.state().snapshots.values();
        snapshots.map(|s| Instant { id: s.id, epoch: s.epoch, time: s.time }).collect()
    }

    /// Every version of an inode's attributes, oldest first. Some may be seen by no snapshot.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn inode_versions(&self, ino: Ino) -> Result<Vec<Version<Inode>>> {
        self.row_versions(Table::Inode, &key::inode(ino), record::inode)
    }

    /// Every version of the entry `name` of a directory, oldest first.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn dirent_versions(&self, parent: Ino, name: &[u8]) -> Result<Vec<Version<Dirent>>> {
        self.row_versions(Table::Dirent, &key::dirent(parent, name), record::dirent)
    }

    /// Names that `parent` has or had, with a cookie above `after`, in cookie order, and the epochs
    /// in which each was there. Looks at about `limit` rows and says where to go on.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn dirent_lives(&self, parent: Ino, after: Cookie, limit: usize) -> Result<NamesWithLives> {
        let mut names: BTreeMap<(Cookie, Box<[u8]>), Lives> = BTreeMap::new();
        let range = key::dirents_after(parent, after);
        let (live, old) = (range.clone(), key::versions_of(Table::Dirent, &range));
        // Both tables are read up to the same cookie: the nearer of the two that came to `limit`.
        let mut until = Cookie(u64::MAX);
        for (table, range) in [(Table::Dirent, live), (Table::History, old)] {
            let rows = self.state().layers(self.kv()).scan(table, &range, Order::Forward);
            let mut last = None;
            for (count, row) in rows.enumerate() {
                let (row_key, value) = row?;
                let why = |why| damaged(table, &row_key, why);
                let (live_key, end) = match table {
                    Table::History => {
                        let (_, live, end) = key::read_history(&row_key).map_err(why)?;
                        (live, end)
                    }
                    _ => (&*row_key, Epoch(EPOCH_MAX)),
                };
                let (_, cookie, name) = key::read_dirent(live_key).map_err(why)?;
                // Never between two rows with one cookie: the next piece begins after it.
                if cookie > until {
                    break;
                }
                if count >= limit && last != Some(cookie) {
                    until = last.unwrap_or(cookie);
                    break;
                }
                last = Some(cookie);
                let (birth, _) = record::split_birth(&value).map_err(why)?;
                names.entry((cookie, name.into())).or_default().push(birth..end);
            }
        }
        let next = (until < Cookie(u64::MAX)).then_some(until);
        let upto = names.into_iter().filter(|((cookie, _), _)| *cookie <= until);
        Ok((upto.map(|((cookie, name), lives)| (cookie, name, lives)).collect(), next))
    }

    fn row_versions<T>(
        &self,
        table: Table,
        key: &[u8],
        parse: impl Fn(&[u8]) -> Parsed<T>,
    ) -> Result<Vec<Version<T>>> {
        let layers = self.state().layers(self.kv());
        let mut found = Vec::new();
        let mut read = |table: Table, key: &[u8], value: &[u8], end: Epoch| {
            let why = |why| damaged(table, key, why);
            let (birth, payload) = record::split_birth(value).map_err(why)?;
            found.push(Version { birth, end, value: parse(payload).map_err(why)? });
            Ok(())
        };
        let old = key::versions_after(table, key, Epoch(0));
        for row in layers.scan(Table::History, &old, Order::Forward) {
            let (old_key, value) = row?;
            let (_, _, end) =
                key::read_history(&old_key).map_err(|why| damaged(table, &old_key, why))?;
            read(Table::History, &old_key, &value, end)?;
        }
        if let Some(value) = layers.get(table, key)? {
            read(table, key, &value, Epoch(EPOCH_MAX))?;
        }
        Ok(found)
    }
}
