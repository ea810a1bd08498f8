//! Trees: as a writer believes them to be, and as they are found.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What stands behind a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    pub kind: char,
    pub mode: u32,
    pub links: u64,
    pub size: u64,
    /// Hash of the content, or of a symlink's target.
    pub digest: u64,
}

/// Paths below a directory and what stands behind them.
pub type Names = BTreeMap<String, Seen>;

pub fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

pub fn digest_of(names: &Names) -> u64 {
    let mut hasher = DefaultHasher::new();
    names.hash(&mut hasher);
    hasher.finish()
}

/// [`Seen`], and what only a manifest compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Full {
    pub seen: Seen,
    pub owner: (u32, u32),
    /// Nanoseconds since 1970: changed content, changed attributes.
    pub times: (i64, i64),
}

/// Reads everything below `dir`, contents too.
pub fn read_full(dir: &Path) -> BTreeMap<String, Full> {
    let mut found = BTreeMap::new();
    walk(dir, "", &mut found);
    found
}

fn walk(dir: &Path, below: &str, found: &mut BTreeMap<String, Full>) {
    let entries = fs::read_dir(dir.join(below));
    let entries = entries.unwrap_or_else(|e| panic!("{}/{below}: {e}", dir.display()));
    for entry in entries {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let full = read_one(&dir.join(&path));
        let is_dir = full.seen.kind == 'd';
        assert!(found.insert(path.clone(), full).is_none(), "{path} is listed twice");
        if is_dir {
            walk(dir, &path, found);
        }
    }
}

fn read_one(path: &Path) -> Full {
    let failed = |e: std::io::Error| -> ! { panic!("{}: {e}", path.display()) };
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| failed(e));
    let (kind, bytes) = if meta.is_dir() {
        ('d', Vec::new())
    } else if meta.is_symlink() {
        let target = fs::read_link(path).unwrap_or_else(|e| failed(e));
        ('l', target.into_os_string().into_encoded_bytes())
    } else {
        ('f', fs::read(path).unwrap_or_else(|e| failed(e)))
    };
    let size = if kind == 'd' { 0 } else { meta.len() };
    if kind == 'f' {
        assert_eq!(bytes.len() as u64, size, "{} reads another length", path.display());
    }
    let seen = Seen {
        kind,
        mode: meta.mode() & 0o7777,
        links: meta.nlink(),
        size,
        digest: digest(&bytes),
    };
    let times = [(meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())];
    let [changed, touched] = times.map(|(secs, nanos)| secs * 1_000_000_000 + nanos);
    Full { seen, owner: (meta.uid(), meta.gid()), times: (changed, touched) }
}

/// Where two trees differ, for a message.
pub fn differences<T: PartialEq + std::fmt::Debug>(
    expected: &BTreeMap<String, T>,
    found: &BTreeMap<String, T>,
) -> String {
    let mut lines = Vec::new();
    for path in expected.keys().chain(found.keys().filter(|path| !expected.contains_key(*path))) {
        let (expected, found) = (expected.get(path), found.get(path));
        if expected != found {
            lines.push(format!("  {path}: expected {expected:?}, found {found:?}"));
        }
    }
    lines.join("\n")
}

/// Bytes that a seed stands for: noise, text, or one of a few contents that keep coming back.
pub fn content(seed: u64, len: usize) -> Vec<u8> {
    use crate::testkit::{random_bytes, text_bytes};
    match seed % 4 {
        0 | 1 => random_bytes(seed, len),
        2 => text_bytes(seed, len),
        _ => random_bytes(seed % 32, len),
    }
}

#[derive(Clone, Debug)]
enum Body {
    File(Vec<u8>),
    Dir,
    Link(String),
}

#[derive(Clone, Debug)]
struct Node {
    body: Body,
    mode: u32,
    digest: u64,
}

/// One change of a tree: one call of the system.
#[derive(Clone, Debug)]
pub enum Op {
    Create(String),
    /// The first `cut` bytes of a content of `len` bytes.
    Write {
        name: String,
        at: usize,
        seed: u64,
        len: usize,
        cut: usize,
    },
    /// Through a descriptor that was opened with O_APPEND and these flags.
    Append {
        name: String,
        seed: u64,
        len: usize,
        flags: i32,
    },
    Truncate(String, usize),
    Rename(String, String),
    Remove(String),
    MakeDir(String),
    RemoveDir(String),
    Chmod(String, u32),
    HardLink(String, String),
    Symlink(String, String),
}

/// The tree a writer believes in.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    names: BTreeMap<String, usize>,
    nodes: BTreeMap<usize, Node>,
    next: usize,
}

impl Tree {
    fn add(&mut self, name: &str, body: Body, mode: u32) {
        let digest = match &body {
            Body::File(bytes) => digest(bytes),
            Body::Dir => digest(&[]),
            Body::Link(target) => digest(target.as_bytes()),
        };
        self.next += 1;
        self.nodes.insert(self.next, Node { body, mode, digest });
        self.names.insert(name.to_owned(), self.next);
    }

    fn node(&mut self, name: &str) -> &mut Node {
        let node = self.names[name];
        self.nodes.get_mut(&node).unwrap()
    }

    fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let node = self.node(name);
        let Body::File(bytes) = &mut node.body else { panic!("{name} is no file") };
        edit(bytes);
        node.digest = digest(bytes);
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(name) => self.add(name, Body::File(Vec::new()), 0o600),
            Op::Write { name, at, seed, len, cut } => self.edit(name, |bytes| {
                bytes.resize(bytes.len().max(at + cut), 0);
                bytes[*at..at + cut].copy_from_slice(&content(*seed, *len)[..*cut]);
            }),
            Op::Append { name, seed, len, .. } => {
                self.edit(name, |bytes| bytes.extend(content(*seed, *len)));
            }
            Op::Truncate(name, len) => self.edit(name, |bytes| bytes.resize(*len, 0)),
            Op::Rename(from, to) => self.rename(from, to),
            Op::Remove(name) | Op::RemoveDir(name) => {
                self.names.remove(name);
            }
            Op::MakeDir(name) => self.add(name, Body::Dir, 0o700),
            Op::Chmod(name, mode) => self.node(name).mode = *mode,
            Op::HardLink(name, new) => {
                let node = self.names[name];
                self.names.insert(new.clone(), node);
            }
            Op::Symlink(target, name) => self.add(name, Body::Link(target.clone()), 0o777),
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        let node = self.names.remove(from).unwrap();
        self.names.insert(to.to_owned(), node);
        let prefix = format!("{from}/");
        let below: Vec<_> = self.names.keys().filter(|n| n.starts_with(&prefix)).cloned().collect();
        for name in below {
            let node = self.names.remove(&name).unwrap();
            self.names.insert(format!("{to}/{}", &name[prefix.len()..]), node);
        }
    }

    /// As [`read_tree`] should find it.
    pub fn names(&self) -> Names {
        let seen = |(name, number): (&String, &usize)| {
            let node = &self.nodes[number];
            let (kind, size) = match &node.body {
                Body::File(bytes) => ('f', bytes.len() as u64),
                Body::Dir => ('d', 0),
                Body::Link(target) => ('l', target.len() as u64),
            };
            let links = match kind {
                'd' => 2 + self.subdirs(name),
                _ => self.names.values().filter(|other| *other == number).count() as u64,
            };
            let seen = Seen { kind, mode: node.mode, links, size, digest: node.digest };
            (name.clone(), seen)
        };
        self.names.iter().map(seen).collect()
    }

    fn subdirs(&self, name: &str) -> u64 {
        let is_in = |path: &str| path.rsplit_once('/').is_some_and(|(parent, _)| parent == name);
        let is_dir = |number: &usize| matches!(self.nodes[number].body, Body::Dir);
        self.names.iter().filter(|(path, node)| is_in(path) && is_dir(node)).count() as u64
    }

    // ---- what a writer may choose from

    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub fn len_of(&self, name: &str) -> usize {
        match self.names.get(name).map(|node| &self.nodes[node].body) {
            Some(Body::File(bytes)) => bytes.len(),
            _ => 0,
        }
    }

    /// Names of this kind, and for directories whether they are empty.
    pub fn of_kind(&self, kind: char) -> Vec<String> {
        let names = self.names();
        names.into_iter().filter(|(_, seen)| seen.kind == kind).map(|(name, _)| name).collect()
    }

    pub fn is_empty_dir(&self, name: &str) -> bool {
        let prefix = format!("{name}/");
        !self.names.keys().any(|other| other.starts_with(&prefix))
    }
}
