//! The volume and the model side by side.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use stratafs::gc;
use stratafs::types::{At, Epoch, FileKind, Ino, Inode, Snapshot, Timestamp};
use stratafs::volume::{AttrChange, NewInode, OpenFile, Seek, SetTime, Stat, XattrMode};

use super::ops::{Fill, NAMES, Op, Place, SLOTS, SNAPSHOTS, Who, XATTRS};
use super::tree::{EEXIST, EINVAL, ENODATA, ENOENT, Expected, Node, Tree};
use crate::testkit::{TestVolume, assert_same_bytes, random_bytes, read_all};

const EROFS: i32 = 30;

/// A snapshot: the model's copy of the tree, and every attribute it showed when it was taken.
#[derive(Clone)]
struct Image {
    epoch: Epoch,
    tree: Arc<Tree>,
    seen: Arc<BTreeMap<Ino, Inode>>,
}

type Images = BTreeMap<Vec<u8>, Image>;

/// A file that is held open; one of a snapshot with what it holds for good.
struct Held {
    file: Arc<OpenFile>,
    past: Option<Arc<Vec<u8>>>,
}

pub struct Pair {
    /// First, so that files are closed before the volume.
    held: [Option<Held>; SLOTS],
    volume: TestVolume,
    tree: Tree,
    images: Images,
    /// What a crash falls back to.
    committed: (Tree, Images),
}

fn pick<T: Copy>(list: &[T], number: u8) -> Option<T> {
    (!list.is_empty()).then(|| list[usize::from(number) % list.len()])
}

/// The volume answered as the model expects; the answer, if it was a good one.
#[track_caller]
fn agree<T: Debug, U>(real: stratafs::error::Result<T>, model: Expected<U>) -> Option<(T, U)> {
    match (real, model) {
        (Ok(real), Ok(model)) => Some((real, model)),
        (Err(error), Err(numbers)) if numbers.contains(&error.errno()) => None,
        (real, model) => panic!("volume: {real:?}, model: {:?}", model.map(|_| ())),
    }
}

impl Pair {
    pub fn new(config: &str) -> Self {
        let volume = TestVolume::with_config(config);
        // The root belongs to whoever runs the test; the model wants to know.
        let change = AttrChange { uid: Some(1), gid: Some(2), ..AttrChange::default() };
        volume.set_attributes(Ino::ROOT, &change).unwrap();
        volume.commit().unwrap();
        let tree = Tree::new();
        let committed = (tree.clone(), Images::new());
        Self { volume, tree, images: Images::new(), committed, held: Default::default() }
    }

    pub fn apply(&mut self, step: usize, op: &Op) {
        log::trace!("step {step}: {op:?}");
        let touched = self.apply_content(op).or_else(|| self.apply_name(op));
        let Some(touched) = touched else { return self.apply_volume(op) };
        for ino in touched {
            if let Some(node) = self.tree.nodes.get(&ino) {
                self.assert_same_node(At::Live, ino, node);
            }
        }
    }

    // ---- aiming

    fn is_held(held: &[Option<Held>], ino: Ino) -> bool {
        held.iter().flatten().any(|h| h.past.is_none() && h.file.ino() == ino)
    }

    /// A live file to be changed.
    fn file(&self, who: Who) -> Option<(Ino, Arc<OpenFile>)> {
        match who {
            Who::Named(number) => {
                let ino = pick(&self.tree.named(|n| n.kind == FileKind::Regular), number)?;
                Some((ino, Arc::new(self.volume.open_file(At::Live, ino).unwrap())))
            }
            Who::Held(slot) => {
                let Some(held) = &self.held[usize::from(slot) % SLOTS] else {
                    return self.file(Who::Named(slot));
                };
                held.past.is_none().then(|| (held.file.ino(), Arc::clone(&held.file)))
            }
        }
    }

    /// A file to be read, also one of a snapshot, and what it holds.
    fn source(&self, who: Who) -> Option<(Arc<OpenFile>, Arc<Vec<u8>>)> {
        if let Who::Held(slot) = who
            && let Some(Held { file, past: Some(content) }) = &self.held[usize::from(slot) % SLOTS]
        {
            return Some((Arc::clone(file), Arc::clone(content)));
        }
        let (ino, file) = self.file(who)?;
        Some((file, Arc::clone(&self.tree.node(ino).content)))
    }

    fn place(&self, place: Place) -> (Ino, &'static [u8]) {
        let dirs = self.tree.named(Node::is_dir);
        let dir = pick(&dirs, place.dir).expect("the root is always there");
        (dir, NAMES[usize::from(place.name) % NAMES.len()])
    }

    // ---- content

    /// The inodes it touched; `None` if it is no operation on content.
    fn apply_content(&mut self, op: &Op) -> Option<Vec<Ino>> {
        let done = match *op {
            Op::Write { who, offset, len, fill, finish } => {
                self.write(who, offset, len, fill, finish)
            }
            Op::Append { who, len, fill } => {
                let end = self.file(who).map_or(0, |(ino, _)| self.tree.node(ino).size());
                self.write(who, end, len, fill, false)
            }
            Op::Truncate { who, size } => self.change(who, |file, pair| {
                let change = AttrChange { size: Some(size), ..AttrChange::default() };
                pair.volume.set_attributes(file.ino(), &change).unwrap();
                pair.tree.node_mut(file.ino()).resize(size);
            }),
            Op::Punch { who, offset, len, keep_size } => self.change(who, |file, pair| {
                file.punch(offset, len, keep_size).unwrap();
                pair.tree.node_mut(file.ino()).punch(offset, len, keep_size);
            }),
            Op::Allocate { who, offset, len, keep_size } => self.change(who, |file, pair| {
                file.allocate(offset, len, keep_size).unwrap();
                let node = pair.tree.node_mut(file.ino());
                if !keep_size && offset + len > node.size() {
                    node.resize(offset + len);
                }
            }),
            Op::Copy { from, to, source, offset, len } => self.copy(from, to, source, offset, len),
            Op::Read { who, offset, len } => {
                let (file, content) = self.source(who).unzip();
                if let (Some(file), Some(content)) = (file, content) {
                    let offset = offset % (content.len() as u64 + 2);
                    let start = usize::try_from(offset).unwrap().min(content.len());
                    let end = (start + len).min(content.len());
                    let found = file.read(offset, len).unwrap();
                    assert_same_bytes(&found, &content[start..end], "a read");
                }
                None
            }
            Op::Seek { who, offset } => {
                if let Some((file, content)) = self.source(who) {
                    assert_seeks(&file, &content, offset % (content.len() as u64 + 2));
                }
                None
            }
            Op::Finish(who) => self.change(who, |file, _| file.finish().unwrap()),
            Op::Hold { slot, file } => self.hold(slot, file),
            Op::HoldPast { slot, snapshot, file } => self.hold_past(slot, snapshot, file),
            Op::Release { slot } => self.release(slot),
            _ => return None,
        };
        Some(done.into_iter().collect())
    }

    fn change(&mut self, who: Who, work: impl FnOnce(&OpenFile, &mut Self)) -> Option<Ino> {
        let (ino, file) = self.file(who)?;
        work(&file, self);
        Some(ino)
    }

    fn write(&mut self, who: Who, at: u64, len: usize, fill: Fill, finish: bool) -> Option<Ino> {
        self.change(who, |file, pair| {
            let data = fill.bytes(len);
            file.write(at, &data).unwrap();
            if finish {
                file.finish().unwrap();
            }
            pair.tree.node_mut(file.ino()).write(at, &data);
        })
    }

    fn copy(&mut self, from: Who, to: Who, source: u64, offset: u64, len: u64) -> Option<Ino> {
        let (from, content) = self.source(from)?;
        let (ino, to) = self.file(to)?;
        // Most offsets lie behind a small file: fold them into it.
        let source = source % (content.len() as u64 + 1);
        let len = len.min((content.len() as u64).saturating_sub(source));
        let same = from.at() == At::Live && from.ino() == ino;
        let overlap = same && len > 0 && source < offset + len && offset < source + len;
        let expected = if overlap { Err(vec![EINVAL]) } else { Ok(()) };
        let (copied, ()) = agree(to.copy_from(offset, &from, source, len), expected)?;
        assert_eq!(copied, len);
        if len > 0 {
            let start = usize::try_from(source).unwrap();
            let bytes = &content[start..start + usize::try_from(len).unwrap()];
            self.tree.node_mut(ino).write(offset, bytes);
        }
        Some(ino)
    }

    fn hold(&mut self, slot: u8, file: u8) -> Option<Ino> {
        let (ino, file) = self.file(Who::Named(file))?;
        self.release(slot);
        self.held[usize::from(slot) % SLOTS] = Some(Held { file, past: None });
        Some(ino)
    }

    fn hold_past(&mut self, slot: u8, snapshot: u8, file: u8) -> Option<Ino> {
        let names: Vec<&Vec<u8>> = self.images.keys().collect();
        let image = self.images[pick(&names, snapshot)?].clone();
        let ino = pick(&image.tree.named(|n| n.kind == FileKind::Regular), file)?;
        let file = Arc::new(self.volume.open_file(At::Epoch(image.epoch), ino).unwrap());
        let refused = file.write(0, b"x").map_err(|e| e.errno());
        assert_eq!(refused, Err(EROFS), "a snapshot was written to");
        self.release(slot);
        let past = Some(Arc::clone(&image.tree.node(ino).content));
        self.held[usize::from(slot) % SLOTS] = Some(Held { file, past });
        None
    }

    fn release(&mut self, slot: u8) -> Option<Ino> {
        let held = self.held[usize::from(slot) % SLOTS].take()?;
        let ino = held.file.ino();
        let was_live = held.past.is_none();
        drop(held);
        let gone = was_live && self.tree.node(ino).nlink == 0 && !Self::is_held(&self.held, ino);
        if gone {
            self.tree.nodes.remove(&ino);
        }
        (was_live && !gone).then_some(ino)
    }

    // ---- names

    /// The inodes it touched; `None` if it is no operation on names.
    fn apply_name(&mut self, op: &Op) -> Option<Vec<Ino>> {
        let held = &self.held;
        let is_held = |ino| Self::is_held(held, ino);
        Some(match *op {
            Op::Create(place) => self.make(place, FileKind::Regular, b""),
            Op::Mkdir(place) => self.make(place, FileKind::Directory, b""),
            Op::Symlink(place, number) => {
                self.make(place, FileKind::Symlink, NAMES[usize::from(number) % NAMES.len()])
            }
            Op::Special(place) => self.make(place, FileKind::Fifo, b""),
            Op::Link { who, to } => {
                let (dir, name) = self.place(to);
                let Some((ino, _file)) = self.file(who) else { return Some(vec![]) };
                agree(self.volume.link(ino, dir, name), self.tree.link(ino, dir, name));
                vec![ino, dir]
            }
            Op::Rename { from, to, mode } => {
                let (from, to) = (self.place(from), self.place(to));
                let source = self.tree.entry(from.0, from.1);
                let real = self.volume.rename(from, to, mode);
                agree(real, self.tree.rename(from, to, mode, &is_held));
                [from.0, to.0].into_iter().chain(source).collect()
            }
            Op::Unlink(place) => {
                let (dir, name) = self.place(place);
                let target = self.tree.entry(dir, name);
                agree(self.volume.unlink(dir, name), self.tree.unlink(dir, name, &is_held));
                [dir].into_iter().chain(target).collect()
            }
            Op::Rmdir(place) => {
                let (dir, name) = self.place(place);
                agree(self.volume.rmdir(dir, name), self.tree.rmdir(dir, name));
                vec![dir]
            }
            Op::Attributes { inode, perm, uid, gid, secs } => {
                let ino = pick(&self.tree.named(|_| true), inode).expect("the root");
                self.set_attributes(ino, perm, uid, gid, secs);
                vec![ino]
            }
            Op::SetXattr { inode, name, len } => {
                let ino = pick(&self.tree.named(|_| true), inode).expect("the root");
                let name = XATTRS[usize::from(name)];
                let value = random_bytes(len as u64, len);
                self.volume.set_xattr(ino, name, &value, XattrMode::Any).unwrap();
                self.tree.node_mut(ino).xattrs.insert(name.to_vec(), value);
                vec![ino]
            }
            Op::RemoveXattr { inode, name } => {
                let ino = pick(&self.tree.named(|_| true), inode).expect("the root");
                let name = XATTRS[usize::from(name)];
                let removed = self.tree.node_mut(ino).xattrs.remove(name);
                agree(self.volume.remove_xattr(ino, name), removed.ok_or(vec![ENODATA]));
                vec![ino]
            }
            _ => return None,
        })
    }

    fn make(&mut self, place: Place, kind: FileKind, target: &[u8]) -> Vec<Ino> {
        let (dir, name) = self.place(place);
        let new = NewInode { kind, perm: 0o640, uid: 1, gid: 2, rdev: 0, target, xattrs: vec![] };
        let made = self.volume.make(dir, name, &new);
        let Some((stat, ())) = agree(made, self.tree.check_free(dir, name)) else {
            return vec![dir];
        };
        self.tree.insert(dir, name, stat.ino, Node::new(kind, dir, target));
        vec![dir, stat.ino]
    }

    fn set_attributes(&mut self, ino: Ino, perm: u16, uid: u32, gid: u32, secs: i64) {
        let time = SetTime::At(Timestamp { secs, nanos: 123_456_789 });
        let change = AttrChange {
            perm: Some(perm),
            uid: Some(uid),
            gid: Some(gid),
            atime: Some(time),
            mtime: Some(time),
            ..AttrChange::default()
        };
        self.volume.set_attributes(ino, &change).unwrap();
        let node = self.tree.node_mut(ino);
        (node.perm, node.uid, node.gid, node.mtime_secs) = (perm, uid, gid, Some(secs));
    }

    // ---- the volume

    fn apply_volume(&mut self, op: &Op) {
        match *op {
            Op::Commit => self.volume.commit().unwrap(),
            Op::SnapshotCreate(name) => return self.snapshot_create(name),
            Op::SnapshotDelete(name) => {
                let name = SNAPSHOTS[usize::from(name) % SNAPSHOTS.len()];
                let expected = self.images.remove(name).ok_or(vec![ENOENT]);
                if agree(self.volume.snapshot_delete(name), expected).is_none() {
                    return;
                }
            }
            Op::SnapshotRename(old, new) => {
                let name = |number| SNAPSHOTS[usize::from(number) % SNAPSHOTS.len()];
                let (old, new) = (name(old), name(new));
                let expected = match (self.images.get(old), self.images.get(new)) {
                    (None, _) => Err(vec![ENOENT]),
                    (Some(_), Some(_)) if old != new => Err(vec![EEXIST]),
                    (Some(image), _) => Ok(image.clone()),
                };
                let renamed = agree(self.volume.snapshot_rename(old, new), expected);
                let Some(((), image)) = renamed else { return };
                self.images.remove(old);
                self.images.insert(new.to_vec(), image);
            }
            Op::Gc => drop(gc::run(&self.volume).unwrap()),
            Op::Reopen => {
                self.held = Default::default();
                self.tree = self.tree.clone().without_nameless();
                self.volume.reopen();
            }
            Op::Crash => {
                self.held = Default::default();
                self.volume.crash();
                (self.tree, self.images) = self.committed.clone();
                return self.assert_same_everywhere();
            }
            _ => unreachable!("an operation on content or names"),
        }
        self.note_commit();
    }

    fn note_commit(&mut self) {
        self.committed = (self.tree.clone().without_nameless(), self.images.clone());
    }

    fn snapshot_create(&mut self, name: u8) {
        let name = SNAPSHOTS[usize::from(name) % SNAPSHOTS.len()];
        let before: Vec<Stat> = self
            .tree
            .named(|_| true)
            .iter()
            .map(|ino| self.volume.stat(At::Live, *ino).unwrap())
            .collect();
        let free = if self.images.contains_key(name) { Err(vec![EEXIST]) } else { Ok(()) };
        let taken = agree(self.volume.snapshot_create(name), free);
        let Some((taken, ())) = taken else { return };
        let at = At::Epoch(taken.epoch);
        let mut seen = BTreeMap::new();
        for Stat { ino, mut inode, .. } in before {
            let shown = self.volume.stat(at, ino).unwrap().inode;
            // What was buffered has been mapped; nothing else may differ.
            (inode.mapped, inode.class) = (shown.mapped, shown.class);
            assert_eq!(shown, inode, "inode {ino} in a snapshot just taken");
            seen.insert(ino, shown);
        }
        let image = Image {
            epoch: taken.epoch,
            tree: Arc::new(self.tree.clone().without_nameless()),
            seen: Arc::new(seen),
        };
        self.images.insert(name.to_vec(), image);
        self.note_commit();
        self.assert_same_everywhere();
    }

    // ---- comparing

    pub fn assert_sound(&self) {
        self.volume.assert_sound();
    }

    /// Any two states of the tree differ as two full walks say.
    pub fn assert_same_differences(&self) {
        super::differences::assert_same(&self.volume);
    }

    /// The live tree, every snapshot, and what is held open.
    pub fn assert_same_everywhere(&self) {
        self.assert_same_tree(At::Live, &self.tree);
        let mut listed: Vec<Snapshot> = self.volume.snapshots();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<&[u8]> = listed.iter().map(|s| &*s.name).collect();
        assert!(names.iter().eq(self.images.keys()), "snapshots: {names:?}");
        for (snapshot, image) in listed.iter().zip(self.images.values()) {
            assert_eq!(snapshot.epoch, image.epoch);
            let at = At::Epoch(image.epoch);
            self.assert_same_tree(at, &image.tree);
            for (ino, seen) in &*image.seen {
                assert_eq!(&self.volume.stat(at, *ino).unwrap().inode, seen, "inode {ino}");
            }
        }
        for held in self.held.iter().flatten() {
            match &held.past {
                Some(content) => {
                    assert_same_bytes(&read_all(&held.file), content, "a file of a snapshot");
                }
                None => {
                    let ino = held.file.ino();
                    self.assert_same_node(At::Live, ino, self.tree.node(ino));
                }
            }
        }
    }

    fn assert_same_tree(&self, at: At, tree: &Tree) {
        for ino in tree.named(|_| true) {
            self.assert_same_node(at, ino, tree.node(ino));
        }
    }

    fn assert_same_node(&self, at: At, ino: Ino, node: &Node) {
        let inode = self.volume.stat(at, ino).unwrap_or_else(|e| panic!("inode {ino}: {e}")).inode;
        let what = format!("inode {ino} {at:?}");
        assert_eq!(inode.kind, node.kind, "{what}");
        assert_eq!((inode.uid, inode.gid, inode.perm), (node.uid, node.gid, node.perm), "{what}");
        assert_eq!((inode.size, inode.nlink), (node.size(), node.nlink), "{what}: size and links");
        assert_eq!((&*inode.target, inode.parent), (&node.target[..], node.parent), "{what}");
        assert!(inode.mapped <= inode.size, "{what} maps more than it has: {inode:?}");
        if let Some(secs) = node.mtime_secs {
            assert_eq!(inode.mtime, Timestamp { secs, nanos: 123_456_789 }, "{what}");
        }
        let names = self.volume.xattr_names(at, ino).unwrap();
        assert!(names.iter().map(|n| n.to_vec()).eq(node.xattrs.keys().cloned()), "{names:?}");
        for (name, value) in &node.xattrs {
            let found = self.volume.xattr(at, ino, name).unwrap();
            assert!(found.as_ref() == Some(value), "xattr {name:?} of {what}");
        }
        match node.kind {
            FileKind::Regular => {
                let file = self.volume.open_file(at, ino).unwrap();
                assert_same_bytes(&read_all(&file), &node.content, &what);
            }
            FileKind::Directory => self.assert_same_entries(at, ino, node),
            _ => {}
        }
    }

    fn assert_same_entries(&self, at: At, ino: Ino, node: &Node) {
        let mut found = BTreeMap::new();
        for entry in self.volume.list_all(at, ino) {
            let looked_up = self.volume.lookup(at, ino, &entry.name).unwrap().unwrap();
            assert_eq!((looked_up.ino, looked_up.inode.kind), (entry.ino, entry.kind));
            let twice = found.insert(entry.name.to_vec(), entry.ino);
            assert_eq!(twice, None, "{:?} is listed twice", entry.name);
        }
        assert_eq!(found, node.entries, "entries of {ino} {at:?}");
        for name in NAMES.iter().filter(|name| !found.contains_key(**name)) {
            assert_eq!(self.volume.lookup(at, ino, name).unwrap(), None);
        }
        assert_eq!(self.volume.parent_of(at, ino).unwrap(), node.parent);
    }
}

/// Holes hold zeros, and data is not skipped.
fn assert_seeks(file: &OpenFile, content: &[u8], offset: u64) {
    let from = usize::try_from(offset).unwrap().min(content.len());
    let data = file.seek(offset, Seek::Data).unwrap();
    let hole = file.seek(offset, Seek::Hole).unwrap();
    if from == content.len() {
        return assert_eq!((data, hole), (None, None), "beyond the end");
    }
    let first = data.map_or(content.len(), |at| usize::try_from(at).unwrap());
    assert!((from..=content.len()).contains(&first), "data at {first}, asked from {from}");
    assert!(content[from..first].iter().all(|b| *b == 0), "data before {first} was skipped");
    let hole = hole.expect("there is always a hole at the end");
    assert!((offset..=content.len() as u64).contains(&hole), "hole at {hole}");
    if data != Some(offset) {
        assert_eq!(hole, offset, "what is no data is a hole");
    }
}
