//! Rows as they were: what a reader at an epoch sees of the live tables and of `history`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::iter::Peekable;

use super::layers::{Layers, Merged, SharedRow};
use super::{damaged, key, record};
use crate::error::Result;
use crate::kv::{KeyRange, Order, Table};
use crate::types::{At, Epoch};

/// The payload (value without birth) that `key` has at `at`.
pub(super) fn get<'a>(
    layers: Layers<'a>,
    at: At,
    table: Table,
    key: &[u8],
) -> Result<Option<Cow<'a, [u8]>>> {
    let epoch = match at {
        At::Live => None,
        At::Epoch(epoch) => Some(epoch),
    };
    if let Some(value) = layers.get(table, key)?
        && let Some(payload) = payload(table, key, value, epoch)?
    {
        return Ok(Some(payload));
    }
    let Some(epoch) = epoch else {
        return Ok(None);
    };
    let range = key::versions_after(table, key, epoch);
    let Some(row) = layers.scan(Table::History, &range, Order::Forward).next() else {
        return Ok(None);
    };
    let (old_key, value) = row?;
    payload(Table::History, &old_key, value, Some(epoch))
}

/// Cuts the birth off; `None` if it is later than `epoch`.
fn payload<'a>(
    table: Table,
    key: &[u8],
    value: Cow<'a, [u8]>,
    epoch: Option<Epoch>,
) -> Result<Option<Cow<'a, [u8]>>> {
    let (birth, rest) = record::split_birth(&value).map_err(|why| damaged(table, key, why))?;
    if epoch.is_some_and(|epoch| birth > epoch) {
        return Ok(None);
    }
    let start = value.len() - rest.len();
    Ok(Some(match value {
        Cow::Borrowed(value) => Cow::Borrowed(&value[start..]),
        Cow::Owned(mut value) => {
            value.drain(..start);
            Cow::Owned(value)
        }
    }))
}

/// Live keys and payloads of `range` at `at`, in key order.
pub(super) struct Versions<'a> {
    live: Peekable<Visible<'a>>,
    past: Option<Peekable<Visible<'a>>>,
}

impl<'a> Versions<'a> {
    pub(super) fn scan(layers: Layers<'a>, at: At, table: Table, range: &KeyRange) -> Self {
        let epoch = match at {
            At::Live => None,
            At::Epoch(epoch) => Some(epoch),
        };
        let live = layers.scan(table, range, Order::Forward);
        let past = epoch.map(|_| {
            let rows = layers.scan(Table::History, &key::versions_of(table, range), Order::Forward);
            Visible { rows, table: Table::History, epoch }.peekable()
        });
        Self { live: Visible { rows: live, table, epoch }.peekable(), past }
    }
}

impl<'a> Iterator for Versions<'a> {
    type Item = Result<SharedRow<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(past) = &mut self.past else {
            return self.live.next();
        };
        let order = match (self.live.peek(), past.peek()) {
            (Some(Err(_)), _) | (_, None) => Ordering::Less,
            (_, Some(Err(_))) | (None, _) => Ordering::Greater,
            (Some(Ok(live)), Some(Ok(past))) => live.0.cmp(&past.0),
        };
        match order {
            Ordering::Less => self.live.next(),
            Ordering::Greater => past.next(),
            // Lives of one key do not overlap; should they in a damaged table, the newer one wins.
            Ordering::Equal => {
                past.next();
                self.live.next()
            }
        }
    }
}

/// Rows of one table that a reader sees, as live key and payload.
struct Visible<'a> {
    rows: Merged<'a>,
    table: Table,
    epoch: Option<Epoch>,
}

impl<'a> Visible<'a> {
    /// The row as the reader sees it, or `None` if it does not.
    fn see(&self, (key, value): SharedRow<'a>) -> Result<Option<SharedRow<'a>>> {
        let Some(value) = payload(self.table, &key, value, self.epoch)? else {
            return Ok(None);
        };
        if self.table != Table::History {
            return Ok(Some((key, value)));
        }
        let (_, live, end) =
            key::read_history(&key).map_err(|why| damaged(self.table, &key, why))?;
        let seen = self.epoch.is_some_and(|epoch| epoch < end);
        Ok(seen.then(|| (Cow::Owned(live.to_vec()), value)))
    }
}

impl<'a> Iterator for Visible<'a> {
    type Item = Result<SharedRow<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let seen = match self.rows.next()? {
                Ok(row) => self.see(row),
                Err(error) => Err(error),
            };
            if let Some(seen) = seen.transpose() {
                return Some(seen);
            }
        }
    }
}
