//! What changed between two epochs, found in the table `change` and nowhere else.
//!
//! Guarantees: while a snapshot with epoch `a` exists, every inode and entry that differs between
//! `a` and a later epoch `b` is named by a row of an epoch in `a + 1..=b`; content and attributes
//! count as changes of their inode, because they change its times. Each is handed out once, in key
//! order, however many epochs it changed in. Relies on: a state of the tables that stays as it is.
//! Memory: one page of keys.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::cursor::Parsed;
use super::state::State;
use super::view::View;
use super::{Reverse, damaged, home, key};
use crate::error::Result;
use crate::kv::{KeyRange, Kv, Order, Table};
use crate::types::{At, Epoch, Ino, Inode};

/// One committed state of the tables, to be looked at for long without a lock.
pub struct Committed<'a> {
    kv: &'a dyn Kv,
    state: State,
}

/// Epochs above `after`, up to `upto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The epoch that the older state sees.
    pub after: Epoch,
    /// The epoch that the newer state sees.
    pub upto: Epoch,
}

/// A directory and a name in it.
pub type Place = (Ino, Box<[u8]>);

/// The `limit` smallest keys behind `after`.
struct Page<'a> {
    after: &'a [u8],
    limit: usize,
    keys: BTreeSet<Box<[u8]>>,
}

impl Page<'_> {
    /// False if this key, and whatever follows it, has no place.
    fn take(&mut self, key: &[u8]) -> bool {
        let full = self.keys.len() == self.limit;
        if full && self.keys.last().is_some_and(|last| **last < *key) {
            return false;
        }
        self.keys.insert(key.into());
        if self.keys.len() > self.limit {
            self.keys.pop_last();
        }
        true
    }
}

impl<'a> Committed<'a> {
    /// The state in `kv`, best a snapshot of the tables.
    ///
    /// # Errors
    /// `Corrupt` also when a snapshot's record does not read; `Kv`.
    pub fn load(kv: &'a dyn Kv) -> Result<Self> {
        let (state, damaged) = State::load(kv)?;
        // Which rows were noted is unknown without it.
        damaged.into_iter().next().map_or(Ok(()), Err)?;
        Ok(Self { kv, state })
    }

    pub(super) fn kv(&self) -> &'a dyn Kv {
        self.kv
    }

    /// Its rows.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View::lent(self.kv, &self.state)
    }

    /// The last epoch that `at` sees.
    #[must_use]
    pub fn epoch_of(&self, at: At) -> Epoch {
        match at {
            At::Live => self.state.epoch,
            At::Epoch(epoch) => epoch,
        }
    }

    /// Inodes with a number above `after` that changed in `span`, rising, at most `limit`.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn changed_inodes(&self, span: Span, after: Ino, limit: usize) -> Result<Vec<Ino>> {
        self.changed(Table::Inode, span, &key::inode(after), limit, key::read_inode)
    }

    /// Entries behind `after` that changed in `span`, by directory and cookie, at most `limit`.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn changed_entries(
        &self,
        span: Span,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Place>> {
        let after = after.map_or_else(Vec::new, |(dir, name)| key::dirent(*dir, name));
        self.changed(Table::Dirent, span, &after, limit, |key| {
            let (dir, _, name) = key::read_dirent(key)?;
            Ok((dir, name.into()))
        })
    }

    fn changed<T>(
        &self,
        table: Table,
        span: Span,
        after: &[u8],
        limit: usize,
        parse: impl Fn(&[u8]) -> Parsed<T>,
    ) -> Result<Vec<T>> {
        let mut page = Page { after, limit, keys: BTreeSet::new() };
        let mut epoch = span.after.next();
        while epoch <= span.upto {
            match self.changed_in(table, epoch, span.upto, &mut page)? {
                Some(next) => epoch = next,
                None => break,
            }
        }
        let keys = page.keys.iter();
        keys.map(|key| parse(key).map_err(|why| damaged(Table::Change, key, why))).collect()
    }

    /// Adds the keys of one epoch to a page; the next epoch that may have any.
    fn changed_in(
        &self,
        table: Table,
        epoch: Epoch,
        upto: Epoch,
        page: &mut Page<'_>,
    ) -> Result<Option<Epoch>> {
        let mut lower = key::change(epoch, table, page.after);
        if !page.after.is_empty() {
            lower.push(0);
        }
        let range = KeyRange { lower, upper: Some(upto.next().0.to_be_bytes().to_vec()) };
        for row in self.kv.scan(Table::Change, &range, Order::Forward) {
            let (row, _) = row?;
            let (of, tag, live) =
                key::split_change(&row).map_err(|why| damaged(Table::Change, &row, why))?;
            if of > epoch {
                return Ok(Some(of));
            }
            if tag != table || !page.take(live) {
                return Ok(Some(epoch.next()));
            }
        }
        Ok(None)
    }

    /// The directory and name that an inode, as it is at `at`, says it has there.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn name_of(&self, at: At, ino: Ino, inode: &Inode) -> Result<Option<Place>> {
        home::name_of(self.state.layers(self.kv), at, ino, inode)
    }

    /// Some names of each of these inodes at `at`: one pass over all entries, and over the old
    /// ones if `at` is past.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn names_of(&self, at: At, wanted: &HashSet<Ino>) -> Result<HashMap<Ino, Vec<Place>>> {
        let wanted = wanted.iter().map(|ino| (*ino, at)).collect();
        Reverse::new(self.kv).names(&wanted)
    }
}
