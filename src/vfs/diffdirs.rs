//! `.snapshots/.diff/A..B/{added,removed,changed}`: what differs between two snapshots, as folders.
//!
//! Directories on the way to what differs are virtual; what differs is the snapshots' own node, so
//! reading it is reading the snapshot. A directory that came or went as a whole is one such node.
//!
//! For the owner of the volume's root only, and he sees no names in a virtual directory that the
//! real ones, in both snapshots, keep from him: see [`Vfs::allowed`].
//!
//! Two snapshots are compared once; the last few comparisons are kept ([`Kept`]). A comparison may
//! take time: whoever serves the kernel asks [`Vfs::takes_time`] first.

use super::acl::ACCESS;
use super::differences::{Child, Folder, Folders, Kept, Listed, Pair};
use super::snapdir::TTL_NONE;
use super::virtuals::Thing;
use super::{Attr, DirItem, Entry, Lookup, Node, Sink, Vfs, entry};
use crate::diff::{Depth, Kind};
use crate::error::{Error, Result};
use crate::stats::{MemoryUse, Stats};
use crate::types::{At, Cookie, FileKind, Ino, Inode, Snapshot, SnapshotId};
use crate::volume::TreeState;
use std::sync::Arc;

/// In `.snapshots` of the root: differences as folders.
pub const DIFF_DIR_NAME: &[u8] = b".diff";
/// Stands between the names of two snapshots.
const BETWEEN: &[u8] = b"..";
/// The owner lists and passes.
const PERM: u16 = 0o500;

/// A virtual directory of `.diff`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// `.diff` itself.
    Top,
    /// `.diff/A..B`, found by this name.
    Between(Pair, Box<[u8]>),
    /// A folder of it, or a directory on the way in one.
    Way {
        pair: Pair,
        folder: Folder,
        /// From the root of the snapshots; empty for the folder.
        path: Box<[u8]>,
    },
}

impl Place {
    /// Its name in the directory above.
    pub(super) fn name(&self) -> &[u8] {
        match self {
            Self::Top => DIFF_DIR_NAME,
            Self::Between(_, name) => name,
            Self::Way { folder, path, .. } if path.is_empty() => folder.name(),
            Self::Way { path, .. } => path.rsplit(|byte| *byte == b'/').next().unwrap_or(path),
        }
    }

    /// Bytes of what it is named by.
    pub(super) fn named(&self) -> usize {
        match self {
            Self::Top => 0,
            Self::Between(_, name) => name.len(),
            Self::Way { path, .. } => path.len(),
        }
    }
}

/// A table of comparisons that `stats` shows.
pub(super) fn kept(stats: &Stats) -> Arc<Kept> {
    let kept = Arc::<Kept>::default();
    let held = Arc::clone(&kept);
    let look = move || MemoryUse::new(held.bytes(), Kept::bytes_max(), "fixed");
    stats.holders.announce("differences", look);
    kept
}

impl Vfs {
    /// True if a request about this directory, or about this name in it, first has to compare two
    /// snapshots.
    #[must_use]
    pub fn takes_time(&self, node: Node, name: Option<&[u8]>) -> bool {
        let Node::Virtual(number) = node else { return false };
        let Ok(thing) = self.virtuals.get(number) else { return false };
        let pair = match &*thing {
            Thing::Diff { place: Place::Top, .. } => name.and_then(|name| self.pair_named(name)),
            Thing::Diff { place: Place::Way { pair, .. }, .. } => Some(*pair),
            _ => None,
        };
        pair.is_some_and(|pair| !self.differences.has(pair))
    }

    /// `.diff` in the `.snapshots` of `dir`.
    pub(super) fn diff_lookup(&self, dir: Ino) -> Result<Lookup> {
        if dir != Ino::ROOT {
            return Ok(Lookup::Missing(TTL_NONE));
        }
        self.diff_entry(Node::SnapDir(dir), Place::Top).map(Lookup::Found)
    }

    /// `name` in a directory of `.diff`, whose node is `parent`.
    pub(super) fn diff_name_lookup(
        &self,
        parent: Node,
        place: &Place,
        name: &[u8],
    ) -> Result<Lookup> {
        let below = match place {
            Place::Top => self.pair_named(name).map(|pair| Place::Between(pair, name.into())),
            Place::Between(pair, _) => Folder::named(name).map(|folder| Place::Way {
                pair: *pair,
                folder,
                path: Box::default(),
            }),
            Place::Way { pair, folder, path } => {
                let path = joined(path, name);
                match self.difference(*pair)?.child(*folder, &path) {
                    Some(Child::Inode(ino, _)) => {
                        return self.leaf_entry(*pair, *folder, ino).map(Lookup::Found);
                    }
                    Some(Child::Way) => Some(Place::Way { pair: *pair, folder: *folder, path }),
                    None => None,
                }
            }
        };
        let Some(below) = below else { return Ok(Lookup::Missing(TTL_NONE)) };
        if let Place::Between(pair, _) = &below {
            // Here it is said if there is too much of it.
            self.difference(*pair)?;
        }
        self.diff_entry(parent, below).map(Lookup::Found)
    }

    /// Lists a directory of `.diff`. Differences of all snapshots with all others would be many:
    /// these are found by name only.
    pub(super) fn diff_list(
        &self,
        node: Node,
        place: &Place,
        (offset, plus): (u64, bool),
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let mut from =
            usize::try_from(offset.saturating_sub(Cookie::FIRST.0)).unwrap_or(usize::MAX);
        match place {
            Place::Top => Ok(()),
            Place::Between(pair, _) => {
                for (at, folder) in Folder::ALL.into_iter().enumerate().skip(from) {
                    let path = Box::default();
                    let below = Place::Way { pair: *pair, folder, path };
                    if self.list_way(node, (folder.name(), at + 1), below, plus, sink)? {
                        break;
                    }
                }
                Ok(())
            }
            Place::Way { pair, folder, path } => {
                let difference = self.difference(*pair)?;
                while let Some(listed) = difference.listed(*folder, path, from) {
                    from = listed.next;
                    let full = match listed.child {
                        Child::Way => {
                            let path = joined(path, listed.name);
                            let below = Place::Way { pair: *pair, folder: *folder, path };
                            self.list_way(node, (listed.name, from), below, plus, sink)?
                        }
                        Child::Inode(ino, kind) => {
                            self.list_leaf((*pair, *folder), &listed, (ino, kind), plus, sink)
                        }
                    };
                    if full {
                        break;
                    }
                }
                Ok(())
            }
        }
    }

    /// Hands a virtual directory to the sink; true if it is full.
    fn list_way(
        &self,
        node: Node,
        (name, next): (&[u8], usize),
        below: Place,
        plus: bool,
        sink: &mut Sink<'_>,
    ) -> Result<bool> {
        let next = Cookie::FIRST.0 + next as u64;
        let kind = FileKind::Directory;
        let mut item = DirItem { node, kind, name, next, entry: None };
        if !plus {
            return Ok(sink(&item));
        }
        let entry = self.diff_entry(node, below)?;
        (item.node, item.entry) = (entry.attr.node, Some(&entry));
        let full = sink(&item);
        if full {
            // The kernel never heard of it.
            self.forget(item.node, 1);
        }
        Ok(full)
    }

    fn list_leaf(
        &self,
        (pair, folder): (Pair, Folder),
        listed: &Listed<'_>,
        (ino, kind): (Ino, Kind),
        plus: bool,
        sink: &mut Sink<'_>,
    ) -> bool {
        let node = Node::Snap(side(pair, folder), ino);
        // One that cannot be read is listed; asked for, it says why.
        let needed = plus || kind == Kind::Special;
        let entry = needed.then(|| self.leaf_entry(pair, folder, ino)).and_then(Result::ok);
        let kind = match (kind, &entry) {
            (Kind::File, _) => FileKind::Regular,
            (Kind::Directory, _) => FileKind::Directory,
            (Kind::Symlink, _) => FileKind::Symlink,
            (Kind::Special, Some(entry)) => entry.attr.kind,
            (Kind::Special, None) => FileKind::Fifo,
        };
        let entry = entry.as_ref().filter(|_| plus);
        let next = Cookie::FIRST.0 + listed.next as u64;
        sink(&DirItem { node, kind, name: listed.name, next, entry })
    }

    /// The snapshots that a name stands for: a name may have dots itself, so the first split counts
    /// that leaves two snapshots.
    fn pair_named(&self, name: &[u8]) -> Option<Pair> {
        let splits = name.windows(BETWEEN.len()).enumerate().filter(|(_, two)| *two == BETWEEN);
        let mut pairs = splits.filter_map(|(at, _)| {
            let (from, to) = (name.get(..at)?, name.get(at + BETWEEN.len()..)?);
            let from = self.volume.snapshot_named(from)?.id;
            Some(Pair { from, to: self.volume.snapshot_named(to)?.id })
        });
        pairs.next()
    }

    fn snapshots_of(&self, pair: Pair) -> Result<[Snapshot; 2]> {
        let snapshot = |id| self.volume.snapshot(id).ok_or(Error::Stale);
        Ok([snapshot(pair.from)?, snapshot(pair.to)?])
    }

    /// The comparison, made if it is not kept.
    fn difference(&self, pair: Pair) -> Result<Arc<Folders>> {
        let [from, to] = self.snapshots_of(pair)?.map(TreeState::Snapshot);
        if let Some(known) = self.differences.get(pair) {
            return Ok(known);
        }
        let _alone = self.differences.making();
        if let Some(known) = self.differences.get(pair) {
            return Ok(known);
        }
        self.differences.make_room();
        let mut made = Folders::default();
        self.volume.compare(&from, &to, Depth::Tops, &mut |found| {
            if self.volume.is_stopping() { Err(Error::Stale) } else { made.take(found) }
        })?;
        Ok(self.differences.keep(pair, made.finish()))
    }

    fn leaf_entry(&self, pair: Pair, folder: Folder, ino: Ino) -> Result<Entry> {
        let node = Node::Snap(side(pair, folder), ino);
        let (at, ino) = self.place(node)?;
        Ok(Entry { ttl: TTL_NONE, ..entry(node, &self.volume.stat(at, ino)?) })
    }

    /// The entry of a virtual directory, for an answer that the kernel counts as one lookup.
    fn diff_entry(&self, parent: Node, place: Place) -> Result<Entry> {
        let attr = self.diff_attr(Node::ROOT, &place)?;
        let node = self.virtuals.looked_up(Thing::Diff { parent, place })?;
        Ok(Entry { attr: Attr { node, ..attr }, ttl: TTL_NONE })
    }

    /// Attributes of a directory of `.diff`.
    pub(super) fn diff_attr(&self, node: Node, place: &Place) -> Result<Attr> {
        let dir = self.snapdir_attr(Ino::ROOT)?;
        let (pair, path) = match place {
            Place::Top => return Ok(Attr { node, perm: PERM, nlink: 2, ..dir }),
            Place::Between(pair, _) => (*pair, &[][..]),
            Place::Way { pair, path, .. } => (*pair, &**path),
        };
        let mut perm = PERM;
        let snapshots = self.snapshots_of(pair)?;
        for snapshot in &snapshots {
            perm &= self.allowed(At::Epoch(snapshot.epoch), path, dir.uid)?;
        }
        let time = snapshots[1].time;
        Ok(Attr { node, perm, nlink: 2, atime: time, mtime: time, ctime: time, ..dir })
    }

    /// What `owner` may do in the directory that lies at `path`, as his bits; all if there is none.
    /// Of a directory of somebody else only what everybody may counts; with an ACL, nothing.
    fn allowed(&self, at: At, path: &[u8], owner: u32) -> Result<u16> {
        let mut ino = Ino::ROOT;
        let mut inode = self.volume.stat(at, ino)?.inode;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            match self.volume.lookup(at, ino, name)? {
                Some(stat) if stat.inode.kind == FileKind::Directory => {
                    (ino, inode) = (stat.ino, stat.inode);
                }
                _ => return Ok(PERM),
            }
        }
        let is_strange = inode.uid != owner;
        if is_strange && self.volume.xattr(at, ino, ACCESS)?.is_some() {
            return Ok(0);
        }
        Ok(bits_for(&inode, owner))
    }
}

/// What `owner` may do with a directory that has no ACL, whatever groups he is in.
fn bits_for(inode: &Inode, owner: u32) -> u16 {
    if inode.uid == owner { inode.perm & PERM } else { (inode.perm & inode.perm >> 3 & 0o5) << 6 }
}

/// The snapshot whose nodes a folder shows.
fn side(pair: Pair, folder: Folder) -> SnapshotId {
    match folder {
        Folder::Added | Folder::Changed => pair.to,
        Folder::Removed => pair.from,
    }
}

fn joined(path: &[u8], name: &[u8]) -> Box<[u8]> {
    let slash = if path.is_empty() { &[][..] } else { b"/" };
    [path, slash, name].concat().into()
}
