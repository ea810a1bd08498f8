//! The model: a filesystem in a few maps, copied whole for every snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use stratafs::types::{FileKind, Ino};
use stratafs::volume::RenameMode;

pub const ENOENT: i32 = 2;
pub const EEXIST: i32 = 17;
pub const ENOTDIR: i32 = 20;
pub const EISDIR: i32 = 21;
pub const EINVAL: i32 = 22;
pub const ENOTEMPTY: i32 = 39;
pub const ENODATA: i32 = 61;

/// What the model says of an operation: done, or one of these error numbers.
pub type Expected<T> = Result<T, Vec<i32>>;

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub kind: FileKind,
    pub perm: u16,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub content: Arc<Vec<u8>>,
    pub entries: BTreeMap<Vec<u8>, Ino>,
    /// The directory of its newest name.
    pub parent: Ino,
    /// Time of the last change of content, when a test has set it and nothing changed since.
    pub mtime_secs: Option<i64>,
}

impl Node {
    pub fn new(kind: FileKind, parent: Ino, target: &[u8]) -> Self {
        let is_dir = kind == FileKind::Directory;
        Self {
            kind,
            perm: 0o640,
            uid: 1,
            gid: 2,
            nlink: if is_dir { 2 } else { 1 },
            target: target.to_vec(),
            xattrs: BTreeMap::new(),
            content: Arc::default(),
            entries: BTreeMap::new(),
            parent,
            mtime_secs: None,
        }
    }

    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    pub fn size(&self) -> u64 {
        match self.kind {
            FileKind::Regular => self.content.len() as u64,
            FileKind::Directory => 4096,
            _ => self.target.len() as u64,
        }
    }

    /// The content, to be changed.
    pub fn edit(&mut self) -> &mut Vec<u8> {
        self.mtime_secs = None;
        Arc::make_mut(&mut self.content)
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let start = usize::try_from(offset).unwrap();
        let content = self.edit();
        if content.len() < start + data.len() {
            content.resize(start + data.len(), 0);
        }
        content[start..start + data.len()].copy_from_slice(data);
    }

    pub fn resize(&mut self, size: u64) {
        self.edit().resize(usize::try_from(size).unwrap(), 0);
    }

    pub fn punch(&mut self, offset: u64, len: u64, keep_size: bool) {
        if !keep_size && offset + len > self.size() {
            self.resize(offset + len);
        }
        let size = self.size();
        let (start, end) = (offset.min(size), (offset + len).min(size));
        self.edit()[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()].fill(0);
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    /// By number; without a name only while somebody has them open.
    pub nodes: BTreeMap<Ino, Node>,
}

impl Tree {
    pub fn new() -> Self {
        let mut root = Node::new(FileKind::Directory, Ino::ROOT, b"");
        root.perm = 0o755;
        Self { nodes: BTreeMap::from([(Ino::ROOT, root)]) }
    }

    pub fn node(&self, ino: Ino) -> &Node {
        &self.nodes[&ino]
    }

    pub fn node_mut(&mut self, ino: Ino) -> &mut Node {
        self.nodes.get_mut(&ino).expect("the model knows it")
    }

    /// Inodes with a name, by kind.
    pub fn named(&self, wanted: impl Fn(&Node) -> bool) -> Vec<Ino> {
        let named = self.nodes.iter().filter(|(_, node)| node.nlink > 0 && wanted(node));
        named.map(|(ino, _)| *ino).collect()
    }

    pub fn entry(&self, dir: Ino, name: &[u8]) -> Option<Ino> {
        self.node(dir).entries.get(name).copied()
    }

    fn touch(&mut self, dir: Ino) {
        self.node_mut(dir).mtime_secs = None;
    }

    /// May something be made here?
    pub fn check_free(&self, dir: Ino, name: &[u8]) -> Expected<()> {
        match self.entry(dir, name) {
            Some(_) => Err(vec![EEXIST]),
            None => Ok(()),
        }
    }

    pub fn insert(&mut self, dir: Ino, name: &[u8], ino: Ino, node: Node) {
        let links = u32::from(node.is_dir());
        assert!(self.nodes.insert(ino, node).is_none(), "inode {ino} was given out twice");
        let parent = self.node_mut(dir);
        parent.nlink += links;
        parent.entries.insert(name.to_vec(), ino);
        self.touch(dir);
    }

    pub fn link(&mut self, ino: Ino, dir: Ino, name: &[u8]) -> Expected<()> {
        if self.node(ino).nlink == 0 {
            return Err(vec![ENOENT]);
        }
        self.check_free(dir, name)?;
        let node = self.node_mut(ino);
        (node.nlink, node.parent) = (node.nlink + 1, dir);
        self.node_mut(dir).entries.insert(name.to_vec(), ino);
        self.touch(dir);
        Ok(())
    }

    /// Takes a name away; what has none left and is not held is gone.
    fn drop_entry(&mut self, dir: Ino, name: &[u8], held: &dyn Fn(Ino) -> bool) {
        let ino = self.node_mut(dir).entries.remove(name).expect("checked before");
        self.touch(dir);
        let node = self.node_mut(ino);
        let is_dir = node.is_dir();
        node.nlink = if is_dir { 0 } else { node.nlink - 1 };
        if node.nlink == 0 && (is_dir || !held(ino)) {
            self.nodes.remove(&ino);
        }
        if is_dir {
            self.node_mut(dir).nlink -= 1;
        }
    }

    pub fn unlink(&mut self, dir: Ino, name: &[u8], held: &dyn Fn(Ino) -> bool) -> Expected<()> {
        let ino = self.entry(dir, name).ok_or(vec![ENOENT])?;
        if self.node(ino).is_dir() {
            return Err(vec![EISDIR]);
        }
        self.drop_entry(dir, name, held);
        Ok(())
    }

    pub fn rmdir(&mut self, dir: Ino, name: &[u8]) -> Expected<()> {
        let ino = self.entry(dir, name).ok_or(vec![ENOENT])?;
        if !self.node(ino).is_dir() {
            return Err(vec![ENOTDIR]);
        }
        if !self.node(ino).entries.is_empty() {
            return Err(vec![ENOTEMPTY]);
        }
        self.drop_entry(dir, name, &|_| false);
        Ok(())
    }

    /// True if directory `inner` is `outer` or lies below it.
    fn lies_below(&self, inner: Ino, outer: Ino) -> bool {
        let mut here = inner;
        while here != outer && here != Ino::ROOT {
            here = self.node(here).parent;
        }
        here == outer
    }

    pub fn rename(
        &mut self,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        mode: RenameMode,
        held: &dyn Fn(Ino) -> bool,
    ) -> Expected<()> {
        let source = self.entry(from.0, from.1).ok_or(vec![ENOENT])?;
        let replaced = self.entry(to.0, to.1);
        let mut errors = Vec::new();
        if self.node(source).is_dir() && self.lies_below(to.0, source) {
            errors.push(EINVAL);
        }
        match (mode, replaced) {
            (RenameMode::NoReplace, Some(_)) => errors.push(EEXIST),
            (RenameMode::Exchange, None) => errors.push(ENOENT),
            (RenameMode::Exchange, Some(other))
                if self.node(other).is_dir() && self.lies_below(from.0, other) =>
            {
                errors.push(EINVAL);
            }
            (RenameMode::Exchange, Some(_)) => {}
            (_, Some(other)) if other != source => {
                match (self.node(source).is_dir(), self.node(other).is_dir()) {
                    (true, false) => errors.push(ENOTDIR),
                    (false, true) => errors.push(EISDIR),
                    (true, true) if !self.node(other).entries.is_empty() => errors.push(ENOTEMPTY),
                    _ => {}
                }
            }
            _ => {}
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        match replaced {
            Some(same) if same == source => return Ok(()),
            Some(other) if mode == RenameMode::Exchange => {
                self.place(from.0, from.1, to.0, other);
                self.place(to.0, to.1, from.0, source);
                return Ok(());
            }
            Some(_) => self.drop_entry(to.0, to.1, held),
            None => {}
        }
        self.node_mut(from.0).entries.remove(from.1);
        self.place(to.0, to.1, from.0, source);
        Ok(())
    }

    /// Enters `ino`, which comes from directory `old`.
    fn place(&mut self, dir: Ino, name: &[u8], old: Ino, ino: Ino) {
        self.node_mut(dir).entries.insert(name.to_vec(), ino);
        if self.node(ino).is_dir() {
            self.node_mut(old).nlink -= 1;
            self.node_mut(dir).nlink += 1;
        }
        self.node_mut(ino).parent = dir;
        self.touch(old);
        self.touch(dir);
    }

    /// What is left when nobody has anything open: a crash, or the next opening.
    pub fn without_nameless(mut self) -> Self {
        self.nodes.retain(|_, node| node.nlink > 0);
        self
    }
}
