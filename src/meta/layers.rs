//! One table out of three layers: open txg, frozen txg, database. The upper layer wins.

use std::borrow::Cow;
use std::iter::Peekable;

use super::ceilings::Ceilings;
use super::overlay::{Overlay, Scan};
use crate::error::Result;
use crate::kv::{KeyRange, Kv, Order, Rows, Table};

/// The layers, uppermost first.
#[derive(Clone, Copy)]
pub(super) struct Layers<'a> {
    pub(super) open: &'a Overlay,
    pub(super) frozen: Option<&'a Overlay>,
    pub(super) kv: &'a dyn Kv,
    /// What need not be looked for in `kv`.
    pub(super) ceilings: &'a Ceilings,
}

/// A row whose bytes may still belong to an overlay.
pub(super) type SharedRow<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

impl<'a> Layers<'a> {
    /// The newest value of `key`.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Cow<'a, [u8]>>> {
        for overlay in std::iter::once(self.open).chain(self.frozen) {
            if let Some(value) = overlay.get(table, key) {
                return Ok(value.as_deref().map(Cow::Borrowed));
            }
        }
        if !self.ceilings.may_have(table, key) {
            return Ok(None);
        }
        Ok(self.kv.get(table, key)?.map(Cow::Owned))
    }

    /// The newest rows of `range`.
    pub(super) fn scan(&self, table: Table, range: &KeyRange, order: Order) -> Merged<'a> {
        let frozen = match self.frozen {
            Some(overlay) => overlay.scan(table, range, order),
            None => Scan::empty(),
        };
        let kv: Rows<'a> = if self.ceilings.may_have(table, &range.lower) {
            self.kv.scan(table, range, order)
        } else {
            Box::new(std::iter::empty())
        };
        Merged {
            open: self.open.scan(table, range, order).peekable(),
            frozen: frozen.peekable(),
            kv: kv.peekable(),
            order,
        }
    }
}

/// Rows of a range, merged.
pub(super) struct Merged<'a> {
    open: Peekable<Scan<'a>>,
    frozen: Peekable<Scan<'a>>,
    kv: Peekable<Rows<'a>>,
    order: Order,
}

impl<'a> Iterator for Merged<'a> {
    type Item = Result<SharedRow<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let open = self.open.peek().map(|row| row.0);
            let frozen = self.frozen.peek().map(|row| row.0);
            let kv = match self.kv.peek() {
                Some(Ok(row)) => Some(&*row.0),
                Some(Err(_)) => return self.take_kv(),
                None => None,
            };
            let keys = [open, frozen, kv].into_iter().flatten();
            let first = match self.order {
                Order::Forward => keys.min()?,
                Order::Backward => keys.max()?,
            };
            let [in_open, in_frozen, in_kv] = [open, frozen, kv].map(|key| key == Some(first));
            // Every layer that has the key moves on; only the uppermost one is heard.
            let below = if in_kv { self.take_kv() } else { None };
            let frozen = if in_frozen { self.frozen.next() } else { None };
            let open = if in_open { self.open.next() } else { None };
            match open.or(frozen) {
                Some((key, Some(value))) => return Some(Ok((key.into(), value.into()))),
                Some((_, None)) => {}
                None => return below,
            }
        }
    }
}

impl<'a> Merged<'a> {
    fn take_kv(&mut self) -> Option<Result<SharedRow<'a>>> {
        let row = self.kv.next()?;
        Some(row.map(|(key, value)| (Cow::Owned(key.into_vec()), Cow::Owned(value.into_vec()))))
    }
}
