//! Trees as a test expects and finds them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use stratafs::check::{self, CheckOptions};
use stratafs::env::Env;
use stratafs::error::{Error, Result};
use stratafs::types::{At, Cookie, FileKind, Fingerprint, Ino};
use stratafs::volume::{OpenFile, OpenOptions, Volume};

use crate::testkit::{MIB, wait_until};

/// What lies behind a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Dir,
    Link(String),
    /// Length and fingerprint of its bytes.
    File(usize, Fingerprint),
}

impl Entry {
    pub fn file(bytes: &[u8]) -> Self {
        Self::File(bytes.len(), Fingerprint::of(bytes))
    }
}

/// Paths below a root.
pub type Tree = BTreeMap<String, Entry>;

/// Everything a volume shows: the live tree and its snapshots by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub live: Tree,
    pub snapshots: BTreeMap<String, Tree>,
}

impl State {
    /// The first path that is different, for people.
    pub fn difference(&self, expected: &Self) -> String {
        let mut all = vec![("live".to_owned(), &self.live, &expected.live)];
        let none = Tree::new();
        for name in self.snapshots.keys().chain(expected.snapshots.keys()) {
            let tree = |state: &'_ Self| state.snapshots.get(name).cloned();
            if tree(self).is_none() || tree(expected).is_none() {
                return format!("snapshot {name} is only in one of them");
            }
            let found = self.snapshots.get(name).unwrap_or(&none);
            all.push((name.clone(), found, expected.snapshots.get(name).unwrap_or(&none)));
        }
        for (place, found, expected) in all {
            for path in found.keys().chain(expected.keys()) {
                if found.get(path) != expected.get(path) {
                    let (found, expected) = (found.get(path), expected.get(path));
                    return format!("{place}: {path} is {found:?} instead of {expected:?}");
                }
            }
        }
        "none".to_owned()
    }
}

/// Opens a volume as it lies there. A child that another test starts has a copy of a lock until it
/// becomes its program.
pub fn open(dir: &Path, read_only: bool) -> Result<Arc<Volume>> {
    let mut opened = None;
    wait_until("the lock is free", || {
        let purpose = "a test".to_owned();
        let options = OpenOptions { env: Env::system(), purpose, read_only };
        opened = Some(Volume::open(dir, options));
        !matches!(opened, Some(Err(Error::Busy { .. })))
    });
    opened.expect("it was tried")
}

/// Everything in a volume. Reading it verifies every byte.
pub fn state_of(volume: &Arc<Volume>) -> Result<State> {
    let mut state = State { live: tree_at(volume, At::Live)?, ..State::default() };
    for snapshot in volume.snapshots() {
        let name = String::from_utf8(snapshot.name.to_vec()).unwrap();
        state.snapshots.insert(name, tree_at(volume, At::Epoch(snapshot.epoch))?);
    }
    Ok(state)
}

fn tree_at(volume: &Arc<Volume>, at: At) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut dirs = vec![(Ino::ROOT, String::new())];
    while let Some((dir, path)) = dirs.pop() {
        let mut after = Cookie(0);
        loop {
            let some = volume.list(at, dir, after, 100)?;
            let Some(last) = some.last() else { break };
            after = last.cookie;
            for entry in some {
                let path = format!("{path}/{}", String::from_utf8_lossy(&entry.name));
                let found = match entry.kind {
                    FileKind::Directory => {
                        dirs.push((entry.ino, path.clone()));
                        Entry::Dir
                    }
                    FileKind::Symlink => {
                        let target = volume.stat(at, entry.ino)?.inode.target;
                        Entry::Link(String::from_utf8(target.to_vec()).unwrap())
                    }
                    _ => Entry::file(&read_whole(&volume.open_file(at, entry.ino)?)?),
                };
                tree.insert(path, found);
            }
        }
    }
    Ok(tree)
}

fn read_whole(file: &OpenFile) -> Result<Vec<u8>> {
    let len = usize::try_from(file.stat()?.inode.size).unwrap();
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let piece = file.read(bytes.len() as u64, MIB)?;
        assert!(!piece.is_empty(), "a read stops at {} of {len}", bytes.len());
        bytes.extend(piece);
    }
    Ok(bytes)
}

/// What `check --read-data` has to say against a volume.
pub fn problems(volume: &Volume) -> Vec<String> {
    match check::run(volume, CheckOptions { read_data: true }, &mut |_| {}) {
        Ok(report) => report.problems,
        Err(error) => vec![format!("It cannot be checked: {error}")],
    }
}
