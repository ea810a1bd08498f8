//! Old versions: lives that do not overlap, and trees of snapshots that resolve.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Audit;
use crate::error::Result;
use crate::kv::{KeyRange, Kv, Order, Table};
use crate::meta::cursor::Parsed;
use crate::meta::{key, record};
use crate::types::{Epoch, FileKind, Ino};

struct Past<'a> {
    kv: &'a dyn Kv,
    snapshots: &'a BTreeSet<Epoch>,
    audit: &'a mut Audit,
    /// Key (with its table's tag) and end of the version before.
    before: Option<(Vec<u8>, Epoch)>,
}

pub(super) fn check(
    kv: &dyn Kv,
    epoch: Epoch,
    snapshots: &BTreeSet<Epoch>,
    audit: &mut Audit,
) -> Result<()> {
    let mut past = Past { kv, snapshots, audit, before: None };
    for row in kv.scan(Table::History, &KeyRange::all(), Order::Forward) {
        let Some((key, value)) = past.audit.row(row) else { break };
        past.audit.old_versions += 1;
        let read = key::read_history(&key).and_then(|(table, live, end)| {
            let (birth, payload) = record::split_birth(&value)?;
            check_old(table, live, payload)?;
            Ok((table, live, birth..end))
        });
        match read {
            Ok((table, live, life)) => past.version(epoch, (table, live), &value, life)?,
            Err(why) => {
                past.audit.problem(format!("A row of table history does not read: {why}"));
            }
        }
    }
    past.last_of_key()?;
    past.live_entries()
}

impl Past<'_> {
    fn version(
        &mut self,
        epoch: Epoch,
        (table, live): (Table, &[u8]),
        value: &[u8],
        life: Range<Epoch>,
    ) -> Result<()> {
        let name = || describe(table, live);
        if life.start >= life.end {
            self.audit.problem(format!("An old version of {} ended before it was born", name()));
        }
        if life.end > epoch {
            self.audit.problem(format!("An old version of {} ends in the future", name()));
        }
        let tagged = [&[table.tag()][..], live].concat();
        if self.before.as_ref().is_none_or(|(key, _)| *key != tagged) {
            self.last_of_key()?;
        } else if self.before.as_ref().is_some_and(|(_, end)| life.start < *end) {
            self.audit.problem(format!("Two old versions of {} overlap", name()));
        }
        self.before = Some((tagged, life.end));
        if let Ok((ino, _)) = key::read_extent(live)
            && table == Table::Extent
        {
            self.owner_lives(ino, "an extent", &life)?;
        }
        if table == Table::Inode
            && let Ok(ino) = key::read_inode(live)
        {
            self.audit.last_ino = self.audit.last_ino.max(ino.0);
        }
        if table == Table::Dirent {
            self.entry(live, value, &life)?;
        }
        Ok(())
    }

    /// The live row of the key that ends here must be born after its last old version.
    fn last_of_key(&mut self) -> Result<()> {
        let Some((tagged, end)) = self.before.take() else { return Ok(()) };
        let Some((tag, live)) = tagged.split_first() else { return Ok(()) };
        let Some(table) = Table::ALL.into_iter().find(|table| table.tag() == *tag) else {
            return Ok(());
        };
        let value = self.kv.get(table, live)?;
        let birth = value.as_deref().and_then(|value| record::split_birth(value).ok());
        if birth.is_some_and(|(birth, _)| birth < end) {
            self.audit.problem(format!(
                "The live version of {} overlaps an old one",
                describe(table, live)
            ));
        }
        Ok(())
    }

    /// Live rows that a snapshot sees, too.
    fn live_entries(&mut self) -> Result<()> {
        if self.snapshots.is_empty() {
            return Ok(());
        }
        let end = Epoch(u64::MAX);
        for row in self.kv.scan(Table::Dirent, &KeyRange::all(), Order::Forward) {
            // That it cannot be read is known from the walk over the live tree.
            let Ok((key, value)) = row else { break };
            if let Ok((birth, _)) = record::split_birth(&value) {
                self.entry(&key, &value, &(birth..end))?;
            }
        }
        Ok(())
    }

    /// What an entry names, and the directory it is in, must be there whenever a snapshot sees it.
    fn entry(&mut self, live: &[u8], value: &[u8], life: &Range<Epoch>) -> Result<()> {
        let read = key::read_dirent(live).and_then(|(parent, _, _)| {
            Ok((parent, record::dirent(record::split_birth(value)?.1)?))
        });
        let Ok((parent, dirent)) = read else { return Ok(()) };
        self.owner_lives(parent, "an entry", life)?;
        let Some(epoch) = self.missing(dirent.ino, Some(dirent.kind), life)? else {
            return Ok(());
        };
        self.audit.problem(format!(
            "An entry of directory {parent} names inode {}, which the snapshot of epoch {epoch} \
             does not have",
            dirent.ino
        ));
        Ok(())
    }

    fn owner_lives(&mut self, ino: Ino, what: &str, life: &Range<Epoch>) -> Result<()> {
        if let Some(epoch) = self.missing(ino, None, life)? {
            self.audit.problem(format!(
                "The snapshot of epoch {epoch} has {what} of inode {ino}, but not the inode"
            ));
        }
        Ok(())
    }

    /// The first snapshot within `life` that does not see the inode, with this kind if given.
    fn missing(
        &self,
        ino: Ino,
        kind: Option<FileKind>,
        life: &Range<Epoch>,
    ) -> Result<Option<Epoch>> {
        if life.start >= life.end {
            return Ok(None);
        }
        let key = key::inode(ino);
        let is_meant = |value: &[u8]| -> Parsed<(Epoch, bool)> {
            let (birth, payload) = record::split_birth(value)?;
            let found = record::inode(payload)?.kind;
            Ok((birth, kind.is_none_or(|kind| kind == found)))
        };
        let live = self.kv.get(Table::Inode, &key)?;
        let live = live.map(|value| is_meant(&value));
        for epoch in self.snapshots.range(life.clone()) {
            match live {
                // One live inode serves this snapshot and all younger ones. One that does not read
                // is named elsewhere.
                Some(Ok((birth, true))) if birth <= *epoch => return Ok(None),
                Some(Err(_)) => return Ok(None),
                _ => {}
            }
            let range = key::versions_after(Table::Inode, &key, *epoch);
            let old = self.kv.scan(Table::History, &range, Order::Forward).next().transpose()?;
            let seen = old.is_some_and(|(_, value)| match is_meant(&value) {
                Ok((birth, right)) => right && birth <= *epoch,
                Err(_) => true,
            });
            if !seen {
                return Ok(Some(*epoch));
            }
        }
        Ok(None)
    }
}

fn check_old(table: Table, live: &[u8], payload: &[u8]) -> Parsed<()> {
    match table {
        Table::Inode => {
            key::read_inode(live)?;
            record::inode(payload).map(drop)
        }
        Table::Dirent => {
            key::read_dirent(live)?;
            record::dirent(payload).map(drop)
        }
        Table::Extent => record::extent(key::read_extent(live)?.1, payload).map(drop),
        _ => key::read_xattr(live).map(drop),
    }
}

/// How a problem names a row.
fn describe(table: Table, live: &[u8]) -> String {
    let owner = live.first_chunk().map_or(0, |ino| u64::from_be_bytes(*ino));
    match table {
        Table::Inode => format!("inode {owner}"),
        Table::Dirent => format!("an entry of directory {owner}"),
        Table::Extent => format!("an extent of inode {owner}"),
        _ => format!("an attribute of inode {owner}"),
    }
}
