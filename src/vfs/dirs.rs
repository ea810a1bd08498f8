//! Listing directories.
//!
//! Without state: an offset says where to go on, whatever was added or removed since. 1 is `.`, 2
//! is `..`, 3 a visible `.snapshots`, larger ones the cookies of names or, in `.snapshots`, 16 +
//! the number of a snapshot; the same in `.gmt` and for the versions of a name.

use super::virtuals::Thing;
use super::{Entry, Lookup, Node, SNAPSHOTS_NAME, TTL_LONG, Vfs, entry, sibling};
use crate::error::{Error, Result};
use crate::types::{At, Cookie, FileKind, Ino, SnapshotId};
use crate::volume::Listed;

/// Names fetched at once. The kernel's buffer takes 25 to 150 with attributes, several hundred
/// without; what does not fit was fetched in vain.
const BATCH_WITH_ATTRIBUTES: usize = 64;
const BATCH: usize = 256;

const OFFSET_DOT: u64 = 1;
const OFFSET_DOT_DOT: u64 = 2;
const OFFSET_SNAPSHOTS: u64 = 3;

/// One entry of a listing.
#[derive(Clone, Debug)]
pub struct DirItem<'a> {
    /// What it names.
    pub node: Node,
    /// Its kind.
    pub kind: FileKind,
    /// The name.
    pub name: &'a [u8],
    /// Where a listing goes on after this one.
    pub next: u64,
    /// Attributes, if they were asked for, can be read, and it is neither `.` nor `..`.
    pub entry: Option<&'a Entry>,
}

/// Takes one entry; true when there is no room for it.
pub type Sink<'a> = dyn FnMut(&DirItem<'_>) -> bool + 'a;

impl Vfs {
    /// Checks that a directory can be listed. True if the kernel may cache the listing: it sees
    /// every change of the live tree, and snapshots do not change.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `Stale`; faults.
    pub fn opendir(&self, node: Node) -> Result<bool> {
        match node {
            Node::SnapDir(_) | Node::GmtDir(_) | Node::PastDir(_) | Node::Beside(_) => {
                return Ok(false);
            }
            Node::Virtual(number) => return self.virtuals.get(number).map(|_| false),
            Node::Latest(..) => return Err(Error::NotDirectory),
            Node::Live(_) | Node::Snap(..) => {}
        }
        let (at, ino) = self.place(node)?;
        let stat = self.volume.stat(at, ino);
        match self.or_removed(node, ino, stat)?.inode.kind {
            FileKind::Directory => Ok(true),
            _ => Err(Error::NotDirectory),
        }
    }

    /// Lists a directory from `offset` into `sink`, with attributes if `plus`.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `Stale`; faults.
    pub fn readdir(&self, node: Node, offset: u64, plus: bool, sink: &mut Sink<'_>) -> Result<()> {
        let node = self.settled(node)?;
        if self.list_head(node, offset, sink)? {
            return Ok(());
        }
        match node {
            Node::SnapDir(dir) => self.list_snapshots(dir, offset, plus, sink),
            Node::Live(dir) => self.list_names((node, dir), offset, plus, sink),
            Node::Snap(_, dir) => self.list_names((node, dir), offset, plus, sink),
            Node::GmtDir(dir) => self.list_by_second(dir, offset, plus, sink),
            Node::PastDir(dir) | Node::Beside(dir) => {
                self.past_names_list(node, dir, (offset, plus), sink)
            }
            Node::Latest(..) => Err(Error::NotDirectory),
            Node::Virtual(number) => match &*self.virtuals.get(number)? {
                Thing::Past { dir, name, .. } => {
                    self.versions_list(*dir, name, (offset, plus), sink)
                }
                Thing::Diff { place, .. } => self.diff_list(node, place, (offset, plus), sink),
            },
        }
    }

    /// What the kernel asks when all it has is a node's number, out of a file handle that an NFS
    /// server kept: the node itself (`.`), and the directory it is in. A virtual directory has a
    /// number only as long as somebody knows its name.
    pub(super) fn lookup_dots(&self, node: Node, name: &[u8]) -> Result<Lookup> {
        if matches!(node, Node::Virtual(_)) {
            return Err(Error::Stale);
        }
        let node = if name == b"." { node } else { self.parent(node)? };
        Ok(Lookup::Found(Entry { attr: self.getattr(node, None)?, ttl: TTL_LONG }))
    }

    /// `.`, `..` and perhaps `.snapshots`; true if the sink is full.
    fn list_head(&self, node: Node, offset: u64, sink: &mut Sink<'_>) -> Result<bool> {
        let kind = FileKind::Directory;
        let item = |node, name, next| DirItem { node, kind, name, next, entry: None };
        if offset < OFFSET_DOT && sink(&item(node, b".", OFFSET_DOT)) {
            return Ok(true);
        }
        if offset < OFFSET_DOT_DOT && sink(&item(self.parent(node)?, b"..", OFFSET_DOT_DOT)) {
            return Ok(true);
        }
        let shown = node == Node::ROOT && self.snapdir_visible;
        if !shown || offset >= OFFSET_SNAPSHOTS {
            return Ok(false);
        }
        let Lookup::Found(entry) = self.lookup(node, SNAPSHOTS_NAME)? else { return Ok(false) };
        let snapshots = item(Node::SnapDir(Ino::ROOT), SNAPSHOTS_NAME, OFFSET_SNAPSHOTS);
        Ok(sink(&DirItem { entry: Some(&entry), ..snapshots }))
    }

    fn list_names(
        &self,
        (node, dir): (Node, Ino),
        offset: u64,
        plus: bool,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let (at, _) = self.place(node)?;
        let batch = if plus { BATCH_WITH_ATTRIBUTES } else { BATCH };
        let mut after = Cookie(if offset < Cookie::FIRST.0 { 0 } else { offset });
        let mut emitted = offset < OFFSET_DOT_DOT;
        loop {
            let listed = match self.volume.list(at, dir, after, batch) {
                // The kernel asks again from the last entry it took, and meets the error then.
                Err(_) if emitted => return Ok(()),
                listed => listed?,
            };
            for item in &listed {
                let entry = match plus.then(|| self.entry_of((node, at, dir), item)).transpose() {
                    Ok(Some(None)) => continue,
                    Ok(entry) => entry.flatten(),
                    // A damaged inode must not hide its neighbours: its name is there.
                    Err(_) => None,
                };
                emitted = true;
                let item = DirItem {
                    node: sibling(node, item.ino),
                    kind: item.kind,
                    name: &item.name,
                    next: item.cookie.0,
                    entry: entry.as_ref(),
                };
                if sink(&item) {
                    return Ok(());
                }
            }
            match listed.last() {
                Some(last) if listed.len() == batch => after = last.cookie,
                _ => return Ok(()),
            }
        }
    }

    /// Attributes of a listed name; `None` if it was removed since.
    fn entry_of(&self, (node, at, dir): (Node, At, Ino), item: &Listed) -> Result<Option<Entry>> {
        match self.volume.stat(at, item.ino) {
            Ok(stat) => Ok(Some(entry(sibling(node, item.ino), &stat))),
            Err(Error::NotFound { .. }) => {
                // An entry that is still there and names nothing is damage.
                self.volume.lookup(at, dir, &item.name).map(|_| None)
            }
            Err(e) => Err(e),
        }
    }

    fn list_snapshots(&self, dir: Ino, offset: u64, plus: bool, sink: &mut Sink<'_>) -> Result<()> {
        let after = u32::try_from(offset.saturating_sub(Cookie::FIRST.0)).unwrap_or(u32::MAX);
        self.snapdir_list(dir, SnapshotId(after), |snapshot, entry| {
            sink(&DirItem {
                node: entry.attr.node,
                kind: FileKind::Directory,
                name: &snapshot.name,
                next: Cookie::FIRST.0 + u64::from(snapshot.id.0),
                entry: Some(entry).filter(|_| plus),
            })
        })
    }

    fn list_by_second(&self, dir: Ino, offset: u64, plus: bool, sink: &mut Sink<'_>) -> Result<()> {
        let after = u32::try_from(offset.saturating_sub(Cookie::FIRST.0)).unwrap_or(u32::MAX);
        self.gmt_list(dir, SnapshotId(after), |snapshot, name, entry| {
            sink(&DirItem {
                node: entry.attr.node,
                kind: FileKind::Directory,
                name,
                next: Cookie::FIRST.0 + u64::from(snapshot.id.0),
                entry: Some(entry).filter(|_| plus),
            })
        })
    }

    /// The directory that `..` means.
    fn parent(&self, node: Node) -> Result<Node> {
        match node {
            Node::SnapDir(dir) | Node::PastDir(dir) | Node::Beside(dir) => Ok(Node::Live(dir)),
            Node::GmtDir(dir) => Ok(Node::SnapDir(dir)),
            Node::Virtual(number) => match &*self.virtuals.get(number)? {
                Thing::Past { shown, .. } => Ok(*shown),
                Thing::Diff { parent, .. } => Ok(*parent),
            },
            Node::Latest(..) => Err(Error::NotDirectory),
            Node::Snap(_, Ino::ROOT) => Ok(Node::SnapDir(Ino::ROOT)),
            Node::Live(_) | Node::Snap(..) => {
                let (at, ino) = self.place(node)?;
                Ok(sibling(node, self.volume.parent_of(at, ino)?))
            }
        }
    }
}
