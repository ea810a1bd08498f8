//! The live tree: entries, inodes, extents and attributes.

use std::collections::{HashMap, HashSet};
use std::iter::Peekable;

use super::Audit;
use crate::error::Result;
use crate::kv::{KeyRange, Kv, Order, Row, Rows, Table};
use crate::meta::{key, record};
use crate::types::{Cookie, Dirent, Epoch, Extent, FileKind, Ino, Inode};

/// Directories remembered as reachable, while others are walked up from: 16 MB.
const KNOWN_MAX: usize = 1 << 19;
/// A path from a directory up that is longer is a circle: no path of that many names can be made
/// in one lifetime of a volume.
const DEPTH_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Default)]
struct Named {
    names: u32,
    kind: u8,
    parent: u64,
    home: u32,
    /// Entries in it that are directories; `None` if it has no entries.
    subdirs: Option<u32>,
}

struct Tree<'a> {
    kv: &'a dyn Kv,
    epoch: Epoch,
    audit: &'a mut Audit,
    named: HashMap<u64, Named>,
    /// Directories from which the root is reached.
    reached: HashSet<u64>,
}

type Sorted<'a> = Peekable<Rows<'a>>;

/// Checks the live tree, `pass` inodes at a time.
pub(super) fn check(kv: &dyn Kv, epoch: Epoch, pass: usize, audit: &mut Audit) -> Result<()> {
    let mut tree = Tree { kv, epoch, audit, named: HashMap::new(), reached: HashSet::new() };
    let all = KeyRange::all();
    let mut rows = (
        kv.scan(Table::Inode, &all, Order::Forward).peekable(),
        kv.scan(Table::Extent, &all, Order::Forward).peekable(),
        kv.scan(Table::Xattr, &all, Order::Forward).peekable(),
    );
    let mut lower = 0;
    loop {
        let last = tree.end_of_pass(lower, pass);
        tree.entries(lower, last)?;
        tree.inodes(last, &mut rows)?;
        tree.leftovers();
        match last.checked_add(1) {
            Some(next) => lower = next,
            None => break,
        }
    }
    tree.orphans(&mut rows.1, "An extent", None);
    tree.orphans(&mut rows.2, "An attribute", None);
    Ok(())
}

impl Tree<'_> {
    fn problem(&mut self, text: String) {
        self.audit.problem(text);
    }

    /// The number of the last inode of a pass that begins with `lower`; the last pass has no end.
    fn end_of_pass(&self, lower: u64, pass: usize) -> u64 {
        let range = KeyRange { lower: lower.to_be_bytes().to_vec(), upper: None };
        let rows = self.kv.scan(Table::Inode, &range, Order::Forward);
        let mut rows = rows.map_while(Result::ok).skip(pass - 1);
        match (rows.next(), rows.next()) {
            (Some(last), Some(_)) => first(&last),
            _ => u64::MAX,
        }
    }

    /// Counts the names and entries of the inodes `lower..=last`.
    fn entries(&mut self, lower: u64, last: u64) -> Result<()> {
        let is_first = lower == 0;
        let pass = lower..=last;
        for row in self.kv.scan(Table::Dirent, &KeyRange::all(), Order::Forward) {
            if !is_first && row.is_err() {
                break;
            }
            let Some((key, value)) = self.audit.row(row) else { break };
            let read = key::read_dirent(&key).and_then(|(parent, cookie, name)| {
                let (birth, payload) = record::split_birth(&value)?;
                Ok(((parent, cookie), cookie == Cookie::of(name), birth, record::dirent(payload)?))
            });
            match read {
                Ok(((parent, cookie), right_cookie, birth, dirent)) => {
                    if is_first {
                        self.audit.dirents += 1;
                        self.entry(parent, right_cookie, birth);
                    }
                    self.count(&pass, (parent, cookie), dirent);
                }
                Err(why) if is_first => {
                    self.audit.dirents += 1;
                    self.problem(format!("A row of table dirent does not read: {why}"));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn entry(&mut self, parent: Ino, right_cookie: bool, birth: Epoch) {
        if !right_cookie {
            self.problem(format!("An entry of directory {parent} has a wrong cookie"));
        }
        if birth > self.epoch {
            self.problem(format!("An entry of directory {parent} is born in the future"));
        }
    }

    fn count(
        &mut self,
        pass: &std::ops::RangeInclusive<u64>,
        (parent, cookie): (Ino, Cookie),
        dirent: Dirent,
    ) {
        if pass.contains(&dirent.ino.0) {
            let seen = self.named.entry(dirent.ino.0).or_default();
            let mixed = seen.names > 0 && seen.kind != dirent.kind as u8;
            seen.names = seen.names.saturating_add(1);
            (seen.kind, seen.parent) = (dirent.kind as u8, parent.0);
            seen.home = cookie.upper();
            if mixed {
                self.problem(format!("Inode {} has entries of different kinds", dirent.ino));
            }
        }
        if pass.contains(&parent.0) {
            let subdirs = self.named.entry(parent.0).or_default().subdirs.get_or_insert(0);
            *subdirs += u32::from(dirent.kind == FileKind::Directory);
        }
    }

    fn inodes(
        &mut self,
        last: u64,
        (inodes, extents, xattrs): &mut (Sorted<'_>, Sorted<'_>, Sorted<'_>),
    ) -> Result<()> {
        while let Some(row) =
            inodes.next_if(|row| row.as_ref().map_or(true, |row| first(row) <= last))
        {
            let Some((key, value)) = self.audit.row(row) else { break };
            self.audit.inodes += 1;
            let read = key::read_inode(&key).and_then(|ino| {
                let (birth, payload) = record::split_birth(&value)?;
                Ok((ino, birth, record::inode(payload)?))
            });
            let number = key.first_chunk().map(|ino| Ino(u64::from_be_bytes(*ino)));
            if let Some(ino) = number {
                self.audit.last_ino = self.audit.last_ino.max(ino.0);
                self.orphans(extents, "An extent", Some(ino.0));
                self.orphans(xattrs, "An attribute", Some(ino.0));
            }
            match read {
                Ok((ino, birth, inode)) => {
                    if birth > self.epoch {
                        self.problem(format!("Inode {ino} is born in the future"));
                    }
                    self.links(ino, &inode)?;
                    self.content(ino, &inode, extents)?;
                }
                Err(why) => {
                    self.problem(format!(
                        "Inode {} does not read: {why}",
                        number.unwrap_or(Ino(0))
                    ));
                    if let Some(ino) = number {
                        self.named.remove(&ino.0);
                    }
                    while number.is_some_and(|ino| self.next_of(extents, ino.0).is_some()) {}
                }
            }
            while let Some(row) = number.and_then(|ino| self.next_of(xattrs, ino.0)) {
                if let Err(why) = key::read_xattr(&row.0) {
                    self.problem(format!("An attribute of an inode is damaged: {why}"));
                }
            }
        }
        Ok(())
    }

    /// Rows that belong to no inode, below `ino`.
    fn orphans(&mut self, rows: &mut Sorted<'_>, what: &str, ino: Option<u64>) {
        let is_meant = |row: &Result<Row>| match row {
            Ok(row) => ino.is_none_or(|ino| first(row) < ino),
            Err(_) => true,
        };
        while let Some(row) = rows.next_if(is_meant) {
            let Some(row) = self.audit.row(row) else { break };
            let owner = first(&row);
            self.problem(format!("{what} belongs to inode {owner}, which does not exist"));
        }
    }

    /// The next row if it belongs to `ino`. After an error there is none.
    fn next_of(&mut self, rows: &mut Sorted<'_>, ino: u64) -> Option<Row> {
        let row = rows.next_if(|row| row.as_ref().map_or(true, |row| first(row) == ino))?;
        self.audit.row(row)
    }

    fn links(&mut self, ino: Ino, inode: &Inode) -> Result<()> {
        let named = self.named.remove(&ino.0).unwrap_or_default();
        if named.names > 0 && named.kind != inode.kind as u8 {
            self.problem(format!("Inode {ino} has another kind than its entry says"));
        }
        if inode.kind == FileKind::Directory {
            self.directory(ino, inode, named)?;
        } else if named.subdirs.is_some() {
            self.problem(format!("Inode {ino} has entries and is no directory"));
        } else if named.names != inode.nlink {
            self.problem(format!(
                "Inode {ino} counts {} links and has {} names",
                inode.nlink, named.names
            ));
        }
        if inode.nlink == 0 && self.kv.get(Table::Reap, &key::inode(ino))?.is_none() {
            self.problem(format!("Inode {ino} has no name and nobody is to remove it"));
        }
        Ok(())
    }

    fn directory(&mut self, ino: Ino, inode: &Inode, named: Named) -> Result<()> {
        if inode.nlink == 0 {
            if named.names > 0 || named.subdirs.is_some() {
                self.problem(format!("Directory {ino} is removed and has names or entries"));
            }
            return Ok(());
        }
        let expected = u32::from(ino != Ino::ROOT);
        if named.names != expected {
            self.problem(format!("Directory {ino} has {} names", named.names));
        }
        if inode.nlink != 2 + named.subdirs.unwrap_or(0) {
            self.problem(format!("Directory {ino} has a wrong link count"));
        }
        if ino != Ino::ROOT && named.parent != inode.parent.0 {
            self.problem(format!("Directory {ino} names a wrong parent"));
        } else if inode.home != 0 && named.home != inode.home {
            self.problem(format!("Directory {ino} names a wrong place in its parent"));
        }
        self.reach(ino)
    }

    /// Walks up from a directory: it has to end at the root.
    fn reach(&mut self, ino: Ino) -> Result<()> {
        let mut path = HashSet::new();
        let mut here = ino;
        while here != Ino::ROOT && !self.reached.contains(&here.0) {
            if !path.insert(here.0) || path.len() > DEPTH_MAX {
                self.problem(format!("Directory {ino} lies in a circle of directories"));
                break;
            }
            let value = self.kv.get(Table::Inode, &key::inode(here))?;
            let up = value.and_then(|value| {
                let (_, payload) = record::split_birth(&value).ok()?;
                Some(record::inode(payload).ok()?.parent)
            });
            // A missing parent is named where its entries are counted.
            let Some(up) = up else { break };
            here = up;
        }
        if self.reached.len() + path.len() > KNOWN_MAX {
            self.reached.clear();
        }
        self.reached.extend(path.into_iter().take(KNOWN_MAX));
        Ok(())
    }

    fn content(&mut self, ino: Ino, inode: &Inode, extents: &mut Sorted<'_>) -> Result<()> {
        let (mut mapped, mut end, mut beyond) = (0, 0, false);
        while let Some((key, value)) = self.next_of(extents, ino.0) {
            self.audit.extents += 1;
            let Some(extent) = self.extent(ino, &key, &value) else { continue };
            if extent.offset < end {
                self.problem(format!("Extents of inode {ino} overlap at byte {}", extent.offset));
            }
            end = extent.end();
            mapped += u64::from(extent.len);
            beyond |= end > inode.size;
        }
        self.audit.live_bytes += mapped;
        if mapped > 0 && inode.kind != FileKind::Regular {
            self.problem(format!("Inode {ino} has extents and is no regular file"));
        }
        if mapped != inode.mapped {
            let counted = inode.mapped;
            self.problem(format!("Inode {ino} counts {counted} mapped bytes and has {mapped}"));
        }
        if beyond && self.kv.get(Table::Reap, &key::inode(ino))?.is_none() {
            self.problem(format!("Inode {ino} has extents beyond its end"));
        }
        Ok(())
    }

    fn extent(&mut self, ino: Ino, key: &[u8], value: &[u8]) -> Option<Extent> {
        let read = key::read_extent(key).and_then(|(_, offset)| {
            let (birth, payload) = record::split_birth(value)?;
            Ok((birth, record::extent(offset, payload)?))
        });
        match read {
            Ok((birth, extent)) => {
                if birth > self.epoch {
                    self.problem(format!("An extent of inode {ino} is born in the future"));
                }
                Some(extent)
            }
            Err(why) => {
                self.problem(format!("An extent of inode {ino} does not read: {why}"));
                None
            }
        }
    }

    /// Numbers of this pass that no inode has.
    fn leftovers(&mut self) {
        for (ino, named) in std::mem::take(&mut self.named) {
            if named.names > 0 {
                self.problem(format!(
                    "An entry of directory {} names inode {ino}, which does not exist",
                    named.parent
                ));
            }
            if named.subdirs.is_some() {
                self.problem(format!("Entries lie in directory {ino}, which does not exist"));
            }
        }
    }
}

/// The inode number every key here begins with.
fn first(row: &Row) -> u64 {
    row.0.first_chunk().map_or(u64::MAX, |ino| u64::from_be_bytes(*ino))
}
