//! The log of what a process did to a directory, and what of it a disk must have kept.
//!
//! A record: op, length of the first path, of the second one, 0 (four u32); inode, offset, length
//! of the data (three u64); paths; data. All in the machine's order. tests/media/shim.c writes it.
//!
//! What a crash leaves is taken from POSIX at its worst, not from what ext4 or xfs happen to do:
//! - `fsync` and `fdatasync` of a file keep its bytes and, if it grew, its length. A shorter length
//!   is kept by `fsync` only. They keep no name, not even that of a new file.
//! - `fsync` of a directory keeps the names in it: creations, renames, removals. It keeps nothing
//!   of the files behind them, nor the directory's own name in its parent.
//! - In the database's directory alone, the first sync of a new file keeps its name too, as ext4,
//!   xfs and btrfs do: RocksDB relies on it when CURRENT begins to name a new MANIFEST.
//! - Everything else may have happened or not, independently per file and per name, in any order
//!   but the order of changes of one and the same name; a rename happens whole or not at all.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file or directory of the log; inode numbers are used again, these are not.
pub type Id = usize;

/// What happened to a name in one directory.
#[derive(Clone, Debug)]
pub enum NameChange {
    Put(String, Id),
    Move(String, String),
    Gone(String),
}

/// What happened to the bytes of one file.
#[derive(Clone, Debug)]
pub enum ByteChange {
    Write(u64, Vec<u8>),
    Length(u64),
}

/// A file or a directory: what is safe, and what came since.
#[derive(Clone, Debug)]
pub enum Node {
    Dir { names: BTreeMap<String, Id>, unsynced: Vec<NameChange> },
    File { bytes: Vec<u8>, unsynced: Vec<ByteChange> },
}

/// One call that changed something, or a mark of the test.
#[derive(Clone, Debug)]
pub enum Event {
    Root(u64),
    Create(u64, PathBuf),
    MakeDir(u64, PathBuf),
    Write(u64, u64, Vec<u8>),
    Length(u64, u64),
    Sync(u64),
    SyncData(u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    Reserve,
    /// From here on, what the test has noted under this number is promised.
    Mark(usize),
}

const MARK: u32 = 100;

/// Appends a mark to the log.
pub fn mark(log: &Path, number: usize) {
    let mut record = Vec::new();
    [MARK, 0, 0, 0].iter().for_each(|word| record.extend(word.to_ne_bytes()));
    [number as u64, 0, 0].iter().for_each(|word| record.extend(word.to_ne_bytes()));
    let mut file = std::fs::OpenOptions::new().append(true).open(log).unwrap();
    file.write_all(&record).unwrap();
}

/// Reads a log. A call that the shim does not understand is a failure.
pub fn read(log: &Path) -> Vec<Event> {
    let bytes = std::fs::read(log).unwrap();
    let mut rest = &bytes[..];
    let mut events = Vec::new();
    while !rest.is_empty() {
        let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_ne_bytes(rest[at..at + 8].try_into().unwrap());
        let (op, first, second) = (word(0), word(4) as usize, word(8) as usize);
        let (ino, offset, len) = (long(16), long(24), long(32) as usize);
        let (one, after) = rest[40..].split_at(first);
        let (two, after) = after.split_at(second);
        let (data, after) = after.split_at(len);
        let path = |bytes: &[u8]| PathBuf::from(String::from_utf8(bytes.to_vec()).unwrap());
        events.push(match op {
            0 => Event::Root(ino),
            1 => Event::Create(ino, path(one)),
            2 => Event::MakeDir(ino, path(one)),
            3 => Event::Write(ino, offset, data.to_vec()),
            4 => Event::Length(ino, offset),
            5 => Event::Sync(ino),
            6 => Event::SyncData(ino),
            7 => Event::Rename(path(one), path(two)),
            8 => Event::Remove(path(one)),
            9 => Event::Reserve,
            MARK => Event::Mark(usize::try_from(ino).unwrap()),
            _ => panic!("A call the shim cannot follow: {}", path(one).join(path(two)).display()),
        });
        rest = after;
    }
    events
}

/// A disk as the log leaves it.
#[derive(Clone, Debug)]
pub struct Disk {
    root: PathBuf,
    pub nodes: Vec<Node>,
    by_ino: HashMap<u64, Id>,
    by_path: HashMap<PathBuf, Id>,
    /// The last mark.
    pub marked: Option<usize>,
}

fn new_dir() -> Node {
    Node::Dir { names: BTreeMap::new(), unsynced: Vec::new() }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Applies one change of bytes.
pub fn apply(bytes: &mut Vec<u8>, change: &ByteChange) {
    match change {
        ByteChange::Write(offset, data) => {
            let (from, to) = (*offset as usize, *offset as usize + data.len());
            if bytes.len() < to {
                bytes.resize(to, 0);
            }
            bytes[from..to].copy_from_slice(data);
        }
        ByteChange::Length(len) => bytes.resize(usize::try_from(*len).unwrap(), 0),
    }
}

impl Disk {
    /// The directory `root` as it is before the log begins: all of it is safe.
    pub fn of(root: &Path) -> Self {
        let mut this = Self {
            root: root.to_owned(),
            nodes: Vec::new(),
            by_ino: HashMap::new(),
            by_path: HashMap::new(),
            marked: None,
        };
        this.take(root);
        this
    }

    fn take(&mut self, path: &Path) -> Id {
        let found = std::fs::symlink_metadata(path).unwrap();
        let id = self.nodes.len();
        self.nodes.push(new_dir());
        self.by_ino.insert(found.ino(), id);
        self.by_path.insert(path.to_owned(), id);
        if found.is_file() {
            let bytes = std::fs::read(path).unwrap();
            self.nodes[id] = Node::File { bytes, unsynced: Vec::new() };
            return id;
        }
        let entries = std::fs::read_dir(path).unwrap();
        let names = entries.map(|entry| entry.unwrap().path());
        let names = names.map(|path| (name_of(&path), self.take(&path))).collect();
        self.nodes[id] = Node::Dir { names, unsynced: Vec::new() };
        id
    }

    /// Lets one thing happen.
    pub fn play(&mut self, event: &Event) {
        match event {
            Event::Root(ino) => assert_eq!(self.by_ino.get(ino), Some(&0), "another directory"),
            Event::Create(ino, path) => {
                let file = Node::File { bytes: Vec::new(), unsynced: Vec::new() };
                self.add(*ino, path, file);
            }
            Event::MakeDir(ino, path) => self.add(*ino, path, new_dir()),
            Event::Write(ino, offset, data) => {
                self.change(*ino, ByteChange::Write(*offset, data.clone()));
            }
            Event::Length(ino, len) => self.change(*ino, ByteChange::Length(*len)),
            Event::Sync(ino) => self.sync(*ino, true),
            Event::SyncData(ino) => self.sync(*ino, false),
            Event::Rename(from, to) => {
                assert_eq!(from.parent(), to.parent(), "renames stay in one directory");
                let id = self.by_path.remove(from).expect("it was made in the log");
                self.by_path.insert(to.clone(), id);
                self.name(from, NameChange::Move(name_of(from), name_of(to)));
            }
            Event::Remove(path) => {
                // What was made outside of the log, as a socket, is nothing to us.
                if self.by_path.remove(path).is_some() {
                    self.name(path, NameChange::Gone(name_of(path)));
                }
            }
            Event::Reserve => {}
            Event::Mark(number) => self.marked = Some(*number),
        }
    }

    fn add(&mut self, ino: u64, path: &Path, node: Node) {
        let id = self.nodes.len();
        self.nodes.push(node);
        self.by_ino.insert(ino, id);
        self.by_path.insert(path.to_owned(), id);
        self.name(path, NameChange::Put(name_of(path), id));
    }

    fn name(&mut self, path: &Path, change: NameChange) {
        let parent = path.parent().unwrap();
        assert!(parent.starts_with(&self.root));
        match &mut self.nodes[self.by_path[parent]] {
            Node::Dir { unsynced, .. } => unsynced.push(change),
            Node::File { .. } => panic!("{} is no directory", parent.display()),
        }
    }

    fn change(&mut self, ino: u64, change: ByteChange) {
        // A file that was there before the log began has no number in it.
        let id = *self.by_ino.get(&ino).expect("only files of the log are written");
        match &mut self.nodes[id] {
            Node::File { unsynced, .. } => unsynced.push(change),
            Node::Dir { .. } => panic!("bytes of a directory"),
        }
    }

    /// The name under which a file of the database was made is safe with its first sync.
    fn keep_name(&mut self, id: Id) {
        let meta = self.by_path.get(&self.root.join("meta")).copied();
        let Some(Node::Dir { names, unsynced }) = meta.map(|meta| &mut self.nodes[meta]) else {
            return;
        };
        let made = |change: &NameChange| matches!(change, NameChange::Put(_, made) if *made == id);
        if let Some(at) = unsynced.iter().position(made) {
            rename(names, &unsynced.remove(at));
        }
    }

    fn sync(&mut self, ino: u64, length_too: bool) {
        let id = self.by_ino[&ino];
        self.keep_name(id);
        match &mut self.nodes[id] {
            Node::Dir { names, unsynced } => {
                unsynced.drain(..).for_each(|change| rename(names, &change));
            }
            Node::File { bytes, unsynced } => {
                let mut len = bytes.len() as u64;
                for change in unsynced.drain(..) {
                    match &change {
                        ByteChange::Length(to) => len = *to,
                        ByteChange::Write(at, data) => len = len.max(at + data.len() as u64),
                    }
                    let cuts = matches!(change, ByteChange::Length(to) if to < bytes.len() as u64);
                    if length_too || !cuts {
                        apply(bytes, &change);
                    }
                }
                if len < bytes.len() as u64 {
                    unsynced.push(ByteChange::Length(len));
                }
            }
        }
    }
}

/// Applies one change of names.
pub fn rename(names: &mut BTreeMap<String, Id>, change: &NameChange) {
    match change {
        NameChange::Put(name, id) => {
            names.insert(name.clone(), *id);
        }
        NameChange::Move(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
        NameChange::Gone(name) => {
            names.remove(name);
        }
    }
}
