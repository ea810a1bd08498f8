//! Every name in every state, in one pass over the entries and one over the old ones.

use std::iter::Peekable;

use super::changes::Committed;
use super::past::Version;
use super::{damaged, key, record};
use crate::error::Result;
use crate::kv::{KeyRange, Table};
use crate::limits::EPOCH_MAX;
use crate::types::{Dirent, Epoch, Ino};

/// A version of an entry: its key, its end and its value.
type Row = Result<(Box<[u8]>, Epoch, Box<[u8]>)>;

/// Hears of a name in a directory with its versions, oldest first.
pub type EachName<'a> = dyn FnMut(Ino, &[u8], &[Version<Dirent>]) -> Result<()> + 'a;

impl Committed<'_> {
    /// Hands every name that is `wanted` to `each`, by directory and cookie. The end of a live
    /// version is the last epoch there can be.
    ///
    /// # Errors
    /// What `each` returns; `Corrupt`, `Kv`.
    pub fn each_name(&self, wanted: &dyn Fn(&[u8]) -> bool, each: &mut EachName<'_>) -> Result<()> {
        let live = self.kv().scan_once(Table::Dirent, &KeyRange::all());
        let live = live.map(|row| row.map(|(key, value)| (key, Epoch(EPOCH_MAX), value)));
        let old = KeyRange::prefix(&[Table::Dirent.tag()]);
        let old = self.kv().scan_once(Table::History, &old).map(|row| {
            let (key, value) = row?;
            let (_, live, end) =
                key::read_history(&key).map_err(|why| damaged(Table::History, &key, why))?;
            Ok((live.into(), end, value))
        });
        let (mut live, mut old) = (live.peekable(), old.peekable());
        let mut versions = Vec::new();
        while let Some(at) = next_key(&mut live, &mut old) {
            let (dir, _, name) =
                key::read_dirent(&at).map_err(|why| damaged(Table::Dirent, &at, why))?;
            let is_wanted = wanted(name);
            versions.clear();
            // Old versions end before the live one is born.
            for rows in [&mut old as &mut dyn Rows, &mut live] {
                while let Some(row) = rows.take_at(&at) {
                    let (_, end, value) = row?;
                    if is_wanted {
                        versions.push(version(&at, end, &value)?);
                    }
                }
            }
            if is_wanted && !versions.is_empty() {
                each(dir, name, &versions)?;
            }
        }
        Ok(())
    }
}

fn version(at: &[u8], end: Epoch, value: &[u8]) -> Result<Version<Dirent>> {
    let why = |why| damaged(Table::Dirent, at, why);
    let (birth, payload) = record::split_birth(value).map_err(why)?;
    Ok(Version { birth, end, value: record::dirent(payload).map_err(why)? })
}

/// Rows that can be taken while they are of one key.
trait Rows {
    /// The next row, if it is of this key or does not read.
    fn take_at(&mut self, at: &[u8]) -> Option<Row>;
}

impl<I: Iterator<Item = Row>> Rows for Peekable<I> {
    fn take_at(&mut self, at: &[u8]) -> Option<Row> {
        self.next_if(|row| row.as_ref().map_or(true, |(key, ..)| **key == *at))
    }
}

/// The smaller of the two next keys; that of the other rows if some do not read, for whoever takes
/// them meets the error.
fn next_key(
    a: &mut Peekable<impl Iterator<Item = Row>>,
    b: &mut Peekable<impl Iterator<Item = Row>>,
) -> Option<Box<[u8]>> {
    let key = |row: Option<&Row>| row.map(|row| row.as_ref().map(|(key, ..)| key.clone()).ok());
    match (key(a.peek()), key(b.peek())) {
        (None, None) => None,
        (Some(None), other) | (other, Some(None)) => Some(other.flatten().unwrap_or_default()),
        (Some(a), None) | (None, Some(a)) => a,
        (Some(a), Some(b)) => a.min(b),
    }
}
