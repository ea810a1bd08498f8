//! A state of the whole volume: as the model has it, and as it is found.

use std::collections::BTreeMap;
use std::sync::Arc;

use stratafs::types::{At, ClassId, FileKind, Ino, Inode, Timestamp};
use stratafs::volume::Volume;

use crate::model::tree::{Node, Tree};
use crate::testkit::read_all;

/// A tree, and every attribute of it that is known.
#[derive(Clone, Debug)]
pub struct Image {
    pub tree: Tree,
    /// What `stat` said; missing where the model cannot know.
    pub seen: BTreeMap<Ino, Inode>,
}

#[derive(Clone, Debug)]
pub struct State {
    pub live: Image,
    pub snapshots: BTreeMap<Vec<u8>, Arc<Image>>,
}

impl Image {
    fn find(volume: &Arc<Volume>, at: At) -> Self {
        let mut found = Self { tree: Tree { nodes: BTreeMap::new() }, seen: BTreeMap::new() };
        let mut todo = vec![Ino::ROOT];
        while let Some(ino) = todo.pop() {
            if found.seen.contains_key(&ino) {
                continue;
            }
            let inode = shown(volume, at, ino).unwrap_or_else(|e| panic!("inode {ino}: {e}"));
            let mut node = Node::new(inode.kind, inode.parent, &inode.target);
            (node.perm, node.uid, node.gid) = (inode.perm, inode.uid, inode.gid);
            (node.nlink, node.parent) = (inode.nlink, inode.parent);
            for name in volume.xattr_names(at, ino).unwrap() {
                let value = volume.xattr(at, ino, &name).unwrap().expect("it is listed");
                node.xattrs.insert(name.to_vec(), value);
            }
            if inode.kind == FileKind::Directory {
                for entry in volume.list(at, ino, stratafs::types::Cookie(0), 10_000).unwrap() {
                    let twice = node.entries.insert(entry.name.to_vec(), entry.ino);
                    assert_eq!(twice, None, "{:?} is listed twice", entry.name);
                    todo.push(entry.ino);
                }
            }
            if inode.kind == FileKind::Regular {
                let file = volume.open_file(at, ino).unwrap();
                node.content = Arc::new(read_all(&file));
            }
            found.tree.nodes.insert(ino, node);
            found.seen.insert(ino, inode);
        }
        found
    }

    /// The first difference.
    fn differs(&self, found: &Self) -> Option<String> {
        let (ours, theirs) = (&self.tree.nodes, &found.tree.nodes);
        if let Some(ino) = ours.keys().find(|ino| !theirs.contains_key(ino)) {
            return Some(format!("inode {ino} is missing"));
        }
        if let Some(ino) = theirs.keys().find(|ino| !ours.contains_key(ino)) {
            return Some(format!("inode {ino} should not be there"));
        }
        for (ino, node) in ours {
            let other = &theirs[ino];
            if node.content != other.content {
                let (have, should) = (other.content.len(), node.content.len());
                let at = node.content.iter().zip(&*other.content).position(|(a, b)| a != b);
                return Some(format!("inode {ino} has {have} bytes of {should}, wrong at {at:?}"));
            }
            // Times are compared below.
            let other = Node { mtime_secs: node.mtime_secs, ..other.clone() };
            if *node != other {
                return Some(format!("inode {ino} is {other:?}, not {node:?}"));
            }
            match (self.seen.get(ino), found.seen.get(ino)) {
                (Some(before), Some(now)) if before != now => {
                    return Some(format!("inode {ino} shows {now:?}, not {before:?}"));
                }
                _ => {}
            }
        }
        None
    }
}

/// The attributes that `stat` shows of an inode, without those that draining may change.
pub fn shown(volume: &Volume, at: At, ino: Ino) -> stratafs::error::Result<Inode> {
    let inode = volume.stat(at, ino)?.inode;
    Ok(Inode { mapped: 0, class: ClassId(0), ..inode })
}

impl State {
    /// A new volume.
    pub fn first(volume: &Arc<Volume>) -> Self {
        Self { live: Image::find(volume, At::Live), snapshots: BTreeMap::new() }
    }

    /// Everything the volume holds, read from end to end.
    pub fn find(volume: &Arc<Volume>) -> Self {
        let snapshots = volume.snapshots();
        let images = snapshots.iter().map(|snapshot| {
            let image = Image::find(volume, At::Epoch(snapshot.epoch));
            (snapshot.name.to_vec(), Arc::new(image))
        });
        let snapshots = images.collect();
        Self { live: Image::find(volume, At::Live), snapshots }
    }

    /// The first difference; `None` if `found` is this very state.
    pub fn differs(&self, found: &Self) -> Option<String> {
        let names = |state: &Self| state.snapshots.keys().cloned().collect::<Vec<_>>();
        if names(self) != names(found) {
            return Some(format!("snapshots are {:?}, not {:?}", names(found), names(self)));
        }
        if let Some(why) = self.live.differs(&found.live) {
            return Some(why);
        }
        self.snapshots.iter().zip(found.snapshots.values()).find_map(|((name, ours), theirs)| {
            let why = ours.differs(theirs)?;
            Some(format!("in snapshot {:?}: {why}", String::from_utf8_lossy(name)))
        })
    }

    /// Notes what is shown of these inodes now; what is gone, or cannot be asked, is forgotten.
    pub fn note(&mut self, volume: &Volume, touched: &[Ino]) {
        for ino in touched {
            match shown(volume, At::Live, *ino) {
                Ok(inode) if self.live.tree.nodes.contains_key(ino) => {
                    self.live.seen.insert(*ino, inode);
                }
                _ => {
                    self.live.seen.remove(ino);
                }
            }
        }
    }
}

/// A time nobody has by accident.
pub const TIME: Timestamp = Timestamp { secs: -5, nanos: 123_456_789 };
