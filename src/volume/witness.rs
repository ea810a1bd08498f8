//! The file `last-commit`: says which commit was the last, beside the database.
//!
//! RocksDB cannot tell a log that a crash tore from one that was damaged or cut later: both times
//! it drops what it cannot read, and everything behind it. This file can: it is written after every
//! commit, so a database that is older than it has lost commits whose success was reported.
//!
//! It is not synced, so that no commit waits for it: after a power cut it may be older than the
//! database, never newer. A file that does not read says nothing and refuses nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use log::warn;
use parking_lot::Mutex;

use crate::checksum::crc32c;
use crate::cursor::Reader;
use crate::error::Error;
use crate::types::VolumeId;

/// Name of the file in the volume directory.
pub(super) const WITNESS_FILE: &str = "last-commit";
const MAGIC: &[u8; 8] = b"STRATACM";
/// Within one sector, so that a write of it is never torn by a disk.
const LEN: usize = 64;

/// Content of `last-commit`. Little-endian, 64 bytes. FORMAT.md §1.2.
///
/// | offset | size | field | rule |
/// |-------:|-----:|-------|------|
/// | 0 | 8 | magic | `STRATACM` |
/// | 8 | 8 | txg | number of the commit |
/// | 16 | 16 | volume | id of the volume |
/// | 32 | 28 | zero | |
/// | 60 | 4 | crc | CRC-32C of bytes 0..60 |
pub(super) fn encode(volume: VolumeId, txg: u64) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&txg.to_le_bytes());
    bytes[16..32].copy_from_slice(&volume.0);
    let crc = crc32c(&bytes[..LEN - 4]);
    bytes[LEN - 4..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Volume and number of the commit that `bytes` name.
pub(super) fn decode(bytes: &[u8]) -> Option<(VolumeId, u64)> {
    let mut reader = Reader::new(bytes);
    let body = reader.bytes(LEN - 4)?;
    let crc = reader.u32()?;
    reader.finish(())?;
    let mut reader = Reader::new(body);
    if crc != crc32c(body) || reader.array().as_ref() != Some(MAGIC) {
        return None;
    }
    let txg = reader.u64()?;
    let volume = VolumeId(reader.array()?);
    reader.zeros(28)?;
    reader.finish((volume, txg))
}

/// The number of the last commit that the file in `dir` knows of; 0 if it knows of none.
pub(super) fn read(dir: &Path, volume: VolumeId) -> u64 {
    let path = dir.join(WITNESS_FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return 0,
        Err(e) => {
            warn!("Last commit is unknown file={} cause={e}", path.display());
            return 0;
        }
    };
    match decode(&bytes) {
        Some((owner, txg)) if owner == volume => txg,
        _ => {
            warn!("Last commit is unknown file={} cause=\"it does not read\"", path.display());
            0
        }
    }
}

/// What is wrong when the database in `dir` is at commit `txg` and the file knows of `witnessed`.
pub(super) fn lost_commits(dir: &Path, txg: u64, witnessed: u64) -> Option<Error> {
    if txg >= witnessed {
        return None;
    }
    Some(Error::corrupt(
        format!("metadata database in {}", dir.join("meta").display()),
        format!(
            "it is at commit {txg}, but commit {witnessed} was confirmed: its log was cut or \
             damaged; mount with -o ro to copy out what is there, restore {} from a copy, or \
             remove {} to go on as commit {txg} left it",
            dir.join("meta").display(),
            dir.join(WITNESS_FILE).display()
        ),
    ))
}

/// Writes the file after every commit.
#[derive(Debug)]
pub(super) struct Witness {
    path: PathBuf,
    volume: VolumeId,
    file: Mutex<Option<File>>,
}

impl Witness {
    /// For the volume in `dir`. Nothing is written before the first commit.
    pub(super) fn new(dir: &Path, volume: VolumeId) -> Self {
        Self { path: dir.join(WITNESS_FILE), volume, file: Mutex::default() }
    }

    /// Notes that commit `txg` is durable. A failure costs a proof, not data: it is only logged.
    pub(super) fn note(&self, txg: u64) {
        if let Err(cause) = self.write(txg) {
            warn!("Last commit not noted file={} cause={cause}", self.path.display());
        }
    }

    fn write(&self, txg: u64) -> io::Result<()> {
        let mut file = self.file.lock();
        if file.is_none() {
            let mut options = OpenOptions::new();
            let opened = options.write(true).create(true).truncate(false).open(&self.path)?;
            opened.set_len(LEN as u64)?;
            *file = Some(opened);
        }
        match file.as_ref() {
            Some(file) => file.write_all_at(&encode(self.volume, txg), 0),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: VolumeId = VolumeId([0xab; 16]);

    #[test]
    fn bytes_are_fixed_and_every_flip_is_refused() {
        let bytes = encode(VOLUME, 0x0102);
        let mut golden = b"STRATACM\x02\x01\0\0\0\0\0\0".to_vec();
        golden.extend([0xab; 16]);
        golden.extend([0; 28]);
        assert_eq!(bytes[..60], golden[..]);
        assert_eq!(decode(&bytes), Some((VOLUME, 0x0102)));
        for at in 0..LEN {
            let mut bad = bytes;
            bad[at] ^= 1;
            assert_eq!(decode(&bad), None, "flip at {at}");
            assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn it_never_says_more_than_it_knows() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), VOLUME), 0);
        let witness = Witness::new(dir.path(), VOLUME);
        witness.note(7);
        witness.note(8);
        assert_eq!(read(dir.path(), VOLUME), 8);
        assert_eq!(read(dir.path(), VolumeId([1; 16])), 0, "of another volume");
        std::fs::write(dir.path().join(WITNESS_FILE), b"x").unwrap();
        assert_eq!(read(dir.path(), VOLUME), 0);
        assert!(lost_commits(dir.path(), 8, 8).is_none());
        assert!(lost_commits(dir.path(), 7, 8).is_some());
    }
}
