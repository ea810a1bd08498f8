//! Damage on the disk, behind the volume's back.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// All container files of the volume's own shard.
pub fn container_files(volume_dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in fs::read_dir(volume_dir.join("shards/0/containers")).unwrap() {
        let files = fs::read_dir(folder.unwrap().path()).unwrap();
        found.extend(files.map(|file| file.unwrap().path()));
    }
    found.sort();
    found
}

/// Flips the first byte of `content` where it lies in a container, as one piece: bytes that do not
/// compress are stored as they are. Returns the container's file.
#[track_caller]
pub fn rot(volume_dir: &Path, content: &[u8]) -> PathBuf {
    for path in container_files(volume_dir) {
        let bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(content.len()).position(|window| window == content) {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[bytes[at] ^ 0x40], at as u64).unwrap();
            return path;
        }
    }
    panic!("no container holds these bytes");
}
