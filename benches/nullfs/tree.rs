//! Names and attributes in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::SystemTime;

use fuser::{Errno, FileAttr, FileType, INodeNo, RenameFlags};

const ROOT: u64 = 1;
/// Cookies of names start here; 1 and 2 are `.` and `..`.
const COOKIE_FIRST: u64 = 3;

/// An entry of a directory: cookie, name and attributes.
pub type Listed = (u64, Box<[u8]>, FileAttr);
pub type Answer<T> = Result<T, Errno>;

/// What a directory holds. Cookies rise and are never reused, so a listing survives removals.
#[derive(Default)]
pub struct Dir {
    cookies: HashMap<Box<[u8]>, u64>,
    entries: BTreeMap<u64, (Box<[u8]>, u64)>,
    next_cookie: u64,
}

impl Dir {
    pub fn get(&self, name: &[u8]) -> Option<u64> {
        self.cookies.get(name).map(|cookie| self.entries[cookie].1)
    }

    pub fn insert(&mut self, name: &[u8], ino: u64) {
        let cookie = self.next_cookie.max(COOKIE_FIRST);
        self.next_cookie = cookie + 1;
        self.cookies.insert(name.into(), cookie);
        self.entries.insert(cookie, (name.into(), ino));
    }

    pub fn remove(&mut self, name: &[u8]) -> Option<u64> {
        let cookie = self.cookies.remove(name)?;
        self.entries.remove(&cookie).map(|(_, ino)| ino)
    }
}

pub struct Node {
    pub attr: FileAttr,
    pub parent: u64,
    pub opens: u32,
    pub dir: Option<Dir>,
    pub target: Box<[u8]>,
}

/// All nodes. One lock: with the two cores it is measured on, splitting it gains nothing.
pub struct Tree {
    nodes: HashMap<u64, Node>,
    next_ino: u64,
}

/// What a new node starts with.
pub struct New<'a> {
    pub kind: FileType,
    pub perm: u16,
    pub owner: (u32, u32),
    pub rdev: u32,
    pub target: &'a [u8],
}

impl Tree {
    pub fn new() -> Self {
        let mut tree = Self { nodes: HashMap::new(), next_ino: ROOT };
        let new =
            New { kind: FileType::Directory, perm: 0o755, owner: (0, 0), rdev: 0, target: b"" };
        tree.add(ROOT, &new);
        tree
    }

    pub fn add(&mut self, parent: u64, new: &New<'_>) -> FileAttr {
        let now = SystemTime::now();
        let is_dir = new.kind == FileType::Directory;
        let attr = FileAttr {
            ino: INodeNo(self.next_ino),
            size: if is_dir { 4096 } else { new.target.len() as u64 },
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            kind: new.kind,
            perm: new.perm,
            nlink: if is_dir { 2 } else { 1 },
            uid: new.owner.0,
            gid: new.owner.1,
            rdev: new.rdev,
            blksize: 4096,
            flags: 0,
        };
        let dir = is_dir.then(Dir::default);
        let node = Node { attr, parent, opens: 0, dir, target: new.target.into() };
        self.nodes.insert(self.next_ino, node);
        self.next_ino += 1;
        attr
    }

    pub fn node(&mut self, ino: u64) -> Answer<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(Errno::ESTALE)
    }

    pub fn dir(&mut self, ino: u64) -> Answer<&mut Dir> {
        self.node(ino)?.dir.as_mut().ok_or(Errno::ENOTDIR)
    }

    pub fn find(&mut self, parent: u64, name: &[u8]) -> Answer<Option<FileAttr>> {
        let found = self.dir(parent)?.get(name);
        found.map(|ino| Ok(self.node(ino)?.attr)).transpose()
    }

    pub fn make(&mut self, parent: u64, name: &[u8], new: &New<'_>) -> Answer<FileAttr> {
        if self.dir(parent)?.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        let attr = self.add(parent, new);
        self.dir(parent)?.insert(name, attr.ino.0);
        self.touch_dir(parent, i32::from(new.kind == FileType::Directory))?;
        Ok(attr)
    }

    pub fn link(&mut self, ino: u64, parent: u64, name: &[u8]) -> Answer<FileAttr> {
        if self.dir(parent)?.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        let attr = &mut self.node(ino)?.attr;
        attr.nlink += 1;
        attr.ctime = SystemTime::now();
        let linked = *attr;
        self.dir(parent)?.insert(name, ino);
        self.touch_dir(parent, 0)?;
        Ok(linked)
    }

    /// A name in `dir` changed; `links` subdirectories came or went.
    pub fn touch_dir(&mut self, dir: u64, links: i32) -> Answer<()> {
        let attr = &mut self.node(dir)?.attr;
        attr.mtime = SystemTime::now();
        attr.ctime = attr.mtime;
        attr.nlink = attr.nlink.saturating_add_signed(links);
        Ok(())
    }

    pub fn remove(&mut self, parent: u64, name: &[u8], dir: bool) -> Answer<()> {
        let ino = self.dir(parent)?.get(name).ok_or(Errno::ENOENT)?;
        match (&self.node(ino)?.dir, dir) {
            (Some(children), true) if !children.entries.is_empty() => return Err(Errno::ENOTEMPTY),
            (Some(_), false) => return Err(Errno::EISDIR),
            (None, true) => return Err(Errno::ENOTDIR),
            _ => {}
        }
        self.dir(parent)?.remove(name);
        self.touch_dir(parent, -i32::from(dir))?;
        self.drop_link(ino, if dir { 2 } else { 1 });
        Ok(())
    }

    pub fn drop_link(&mut self, ino: u64, links: u32) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.attr.nlink = node.attr.nlink.saturating_sub(links);
            node.attr.ctime = SystemTime::now();
        }
        self.drop_if_gone(ino);
    }

    pub fn drop_if_gone(&mut self, ino: u64) {
        if self.nodes.get(&ino).is_some_and(|n| n.attr.nlink == 0 && n.opens == 0) {
            self.nodes.remove(&ino);
        }
    }

    pub fn rename(
        &mut self,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        flags: RenameFlags,
    ) -> Answer<()> {
        let ino = self.dir(from.0)?.get(from.1).ok_or(Errno::ENOENT)?;
        let old = self.dir(to.0)?.get(to.1);
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return Err(Errno::EINVAL);
        }
        if let Some(old) = old {
            if flags.contains(RenameFlags::RENAME_NOREPLACE) {
                return Err(Errno::EEXIST);
            }
            if old == ino {
                return Ok(());
            }
            let is_dir = self.node(old)?.dir.is_some();
            self.remove(to.0, to.1, is_dir)?;
        }
        let moves_dir = i32::from(self.node(ino)?.dir.is_some());
        self.dir(from.0)?.remove(from.1);
        self.touch_dir(from.0, -moves_dir)?;
        self.dir(to.0)?.insert(to.1, ino);
        self.touch_dir(to.0, moves_dir)?;
        let node = self.node(ino)?;
        node.parent = to.0;
        node.attr.ctime = SystemTime::now();
        Ok(())
    }

    pub fn set_size(&mut self, ino: u64, size: u64) -> Answer<()> {
        let attr = &mut self.node(ino)?.attr;
        attr.size = size;
        attr.blocks = size.div_ceil(512);
        attr.mtime = SystemTime::now();
        attr.ctime = attr.mtime;
        Ok(())
    }

    pub fn wrote(&mut self, ino: u64, end: u64) -> Answer<()> {
        let size = self.node(ino)?.attr.size;
        self.set_size(ino, size.max(end))
    }

    pub fn open(&mut self, ino: u64, truncate: bool) -> Answer<()> {
        self.node(ino)?.opens += 1;
        if truncate { self.set_size(ino, 0) } else { Ok(()) }
    }

    /// Entries after `cookie`: cookie, name and attributes.
    pub fn list(&mut self, ino: u64, cookie: u64) -> Answer<Vec<Listed>> {
        /// More than a 32 KiB or 128 KiB reply takes of short names.
        const ENTRIES_MAX: usize = 1024;
        let parent = self.node(ino)?.parent;
        let mut out = Vec::new();
        for (own, name, number) in [(1, &b"."[..], ino), (2, &b".."[..], parent)] {
            if cookie < own {
                out.push((own, name.into(), self.node(number)?.attr));
            }
        }
        let after = (Bound::Excluded(cookie.max(2)), Bound::Unbounded);
        let dir = self.nodes.get(&ino).and_then(|n| n.dir.as_ref()).ok_or(Errno::ENOTDIR)?;
        let names = dir.entries.range(after).take(ENTRIES_MAX);
        out.extend(names.filter_map(|(cookie, (name, child))| {
            Some((*cookie, name.clone(), self.nodes.get(child)?.attr))
        }));
        Ok(out)
    }
}
