//! The axes of the table: how something is damaged, and where it lies.

use std::path::{Path, PathBuf};

use crate::testkit::random_bytes;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One bit is turned over.
    Flip,
    /// The file ends there.
    Cut,
    /// The file is gone.
    Delete,
    /// Two files change places; two parts of it where there is only one of its kind.
    Swap,
    /// Up to 64 bytes are zeros.
    Zero,
    /// A part is written over another; for containers the file lies there twice.
    Duplicate,
}

impl Damage {
    pub const ALL: [Self; 6] =
        [Self::Flip, Self::Cut, Self::Delete, Self::Swap, Self::Zero, Self::Duplicate];
}

/// Bytes `start..end` of a file.
#[derive(Clone, Debug)]
pub struct Region {
    pub path: PathBuf,
    pub start: usize,
    pub end: usize,
}

impl Region {
    pub fn whole(path: PathBuf) -> Self {
        let end = usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap();
        Self { path, start: 0, end }
    }

    /// Damages the region; `other` is a file of the same kind, if there is one.
    pub fn damage(&self, damage: Damage, seed: u64, other: Option<&Path>) {
        let mut bytes = std::fs::read(&self.path).unwrap();
        let len = self.end - self.start;
        let noise = random_bytes(seed, 16);
        let number = |at: usize| u64::from_le_bytes(noise[at..at + 8].try_into().unwrap());
        let at = self.start + usize::try_from(number(0)).unwrap() % len;
        match damage {
            Damage::Flip => bytes[at] ^= 1 << (number(8) % 8),
            Damage::Cut => bytes.truncate(at),
            Damage::Delete => return std::fs::remove_file(&self.path).unwrap(),
            Damage::Swap if other.is_some() => {
                let other = other.unwrap();
                std::fs::write(&self.path, std::fs::read(other).unwrap()).unwrap();
                return std::fs::write(other, bytes).unwrap();
            }
            Damage::Swap => {
                let part = (len / 2).min(48);
                let (left, right) = bytes[self.start..self.end].split_at_mut(len / 2);
                left[..part].swap_with_slice(&mut right[..part]);
            }
            Damage::Zero => {
                let end = (at + 64).min(self.end);
                bytes[at..end].fill(0);
            }
            Damage::Duplicate => {
                let part = (len / 2).min(48);
                bytes.copy_within(self.start..self.start + part, self.start + len / 2);
            }
        }
        std::fs::write(&self.path, bytes).unwrap();
    }
}

/// Files of the database whose names begin or end so, largest first.
pub fn database_files(dir: &Path, is_meant: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found: Vec<(u64, PathBuf)> = std::fs::read_dir(dir.join("meta"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| is_meant(path.file_name().unwrap().to_str().unwrap()))
        .map(|path| (std::fs::metadata(&path).unwrap().len(), path))
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    assert!(!found.is_empty(), "the stage has no such file");
    found.into_iter().map(|(_, path)| path).collect()
}

/// A container file and where its frames begin.
#[derive(Debug)]
pub struct Container {
    pub path: PathBuf,
    pub frames: Vec<Frame>,
    pub len: usize,
    /// Where the footer begins.
    pub footer: Option<usize>,
}

/// Places in a frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub start: usize,
    pub payload: usize,
    pub end: usize,
}

/// All containers of shard 0, by id.
pub fn containers(dir: &Path) -> Vec<Container> {
    let mut paths = Vec::new();
    for folder in std::fs::read_dir(dir.join("shards/0/containers")).unwrap() {
        let files = std::fs::read_dir(folder.unwrap().path()).unwrap();
        paths.extend(files.map(|file| file.unwrap().path()));
    }
    paths.sort_by_key(|path| path.file_name().unwrap().to_owned());
    paths.into_iter().map(read_container).collect()
}

fn read_container(path: PathBuf) -> Container {
    let bytes = std::fs::read(&path).unwrap();
    let number = |at: usize| {
        usize::try_from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())).unwrap()
    };
    let (mut frames, mut footer, mut at) = (Vec::new(), None, 64);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"SFFR") {
            let payload = at + 32 + 44 * number(at + 8);
            let end = payload + number(at + 16);
            frames.push(Frame { start: at, payload, end });
            at = end.next_multiple_of(8);
        } else if bytes[at..].starts_with(b"STRATAFI") {
            footer = Some(at);
            break;
        } else {
            at += 8;
        }
    }
    Container { path, frames, len: bytes.len(), footer }
}
