//! The superblock: says that a directory is a volume, which, and who may open it.

use std::fs;
use std::path::Path;

use crate::checksum::crc32c;
use crate::cursor::Reader;
use crate::error::{Error, Result};
use crate::sys::disk;
use crate::types::{Timestamp, VolumeId};

/// Name of the file in the volume directory.
pub const SUPERBLOCK_FILE: &str = "superblock";
/// The format this program writes, and the only one it reads. Format 1 was never released; its rows
/// of chunks and snapshots were shorter.
pub const FORMAT_VERSION: u32 = 2;
const MAGIC: &[u8; 8] = b"STRATAFS";
const LEN: usize = 128;

/// The file `superblock`. Little-endian, 128 bytes. FORMAT.md §1.
///
/// | offset | size | field | rule |
/// |-------:|-----:|-------|------|
/// | 0 | 8 | magic | `STRATAFS` |
/// | 8 | 4 | version | 2; others are refused |
/// | 12 | 4 | zero | |
/// | 16 | 8 | features | bits a program must know to open the volume; none yet |
/// | 24 | 16 | volume id | random |
/// | 40 | 8 | created | seconds since 1970, signed |
/// | 48 | 76 | zero | |
/// | 124 | 4 | crc | CRC-32C of bytes 0..124 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) id: VolumeId,
    pub(super) created: Timestamp,
}

impl Superblock {
    pub(super) fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.id.0);
        bytes[40..48].copy_from_slice(&self.created.secs.to_le_bytes());
        let crc = crc32c(&bytes[..LEN - 4]);
        bytes[LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let damaged = |detail: &str| {
            Error::corrupt(
                format!("superblock {}", path.display()),
                format!("{detail}; restore the file from a copy of the volume directory"),
            )
        };
        if bytes.len() != LEN {
            return Err(damaged(&format!("it has {} bytes instead of {LEN}", bytes.len())));
        }
        if &bytes[..8] != MAGIC {
            return Err(damaged("it does not begin with STRATAFS"));
        }
        let (body, crc) = bytes.split_at(LEN - 4);
        if crc != crc32c(body).to_le_bytes() {
            return Err(damaged("its checksum is wrong"));
        }
        let mut reader = Reader::new(&body[8..]);
        let version = reader.u32().ok_or_else(|| damaged("it is cut"))?;
        if version != FORMAT_VERSION {
            let way_out = if version < FORMAT_VERSION {
                "copy its files out with the stratafs that made it"
            } else {
                "use a newer stratafs"
            };
            return Err(Error::Unknown {
                what: format!(
                    "Volume {} has format version {version}, this program knows only \
                     {FORMAT_VERSION}; {way_out}",
                    path.parent().unwrap_or(path).display()
                ),
            });
        }
        let mut fields = || {
            reader.u32()?;
            let features = reader.u64()?;
            let id = <[u8; 16]>::try_from(reader.bytes(16)?).ok()?;
            Some((features, id, reader.u64()?.cast_signed()))
        };
        let (features, id, secs) = fields().ok_or_else(|| damaged("it is cut"))?;
        if features != 0 {
            return Err(Error::Unknown {
                what: format!(
                    "Volume {} uses feature flags {features:#x} that this program does not know; \
                 use a newer stratafs",
                    path.parent().unwrap_or(path).display()
                ),
            });
        }
        Ok(Self { id: VolumeId(id), created: Timestamp { secs, nanos: 0 } })
    }

    /// Reads the superblock of the volume in `dir`.
    pub(super) fn load(dir: &Path) -> Result<Self> {
        let not = |why: &str| Error::NotAVolume {
            what: format!(
                "{} {why}; make a volume there with `stratafs init {}`",
                dir.display(),
                dir.display()
            ),
        };
        let path = dir.join(SUPERBLOCK_FILE);
        match fs::metadata(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(not("does not exist"));
            }
            Err(e) => return Err(Error::io("open", dir, e)),
            Ok(found) if !found.is_dir() => return Err(not("is not a directory")),
            Ok(_) => {}
        }
        match fs::read(&path) {
            Ok(bytes) => Self::decode(&bytes, &path),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(not("is not a StrataFS volume: it has no superblock"))
            }
            Err(e) => Err(Error::io("read", &path, e)),
        }
    }

    /// Writes the superblock, whole or not at all, durable on return.
    pub(super) fn store(&self, dir: &Path) -> Result<()> {
        let path = dir.join(SUPERBLOCK_FILE);
        disk::write_file_durably(&path, &self.encode()).map_err(|e| Error::io("write", &path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Superblock {
        Superblock { id: VolumeId([7; 16]), created: Timestamp { secs: 0x0102_0304, nanos: 0 } }
    }

    #[test]
    fn the_bytes_are_golden() {
        let mut expected = [0; LEN];
        expected[..8].copy_from_slice(b"STRATAFS");
        expected[8] = 2;
        expected[24..40].fill(7);
        expected[40..44].copy_from_slice(&[4, 3, 2, 1]);
        expected[124..].copy_from_slice(&[0, 0, 0, 0]);
        let bytes = sample().encode();
        assert_eq!(bytes[..124], expected[..124]);
        assert_eq!(Superblock::decode(&bytes, Path::new("/v/superblock")).unwrap(), sample());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = sample().encode();
        for bit in 0..LEN * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = Superblock::decode(&bad, Path::new("/v/superblock")).unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        }
        assert!(Superblock::decode(&good[..100], Path::new("/v/superblock")).is_err());
    }

    #[test]
    fn unknown_versions_and_features_are_named() {
        for (at, value, word) in
            [(8, 9, "newer"), (8, 1, "version 1, this"), (8, 1, "made it"), (16, 9, "feature")]
        {
            let mut bytes = sample().encode();
            bytes[at] = value;
            let crc = crc32c(&bytes[..LEN - 4]);
            bytes[LEN - 4..].copy_from_slice(&crc.to_le_bytes());
            let error = Superblock::decode(&bytes, Path::new("/v/superblock")).unwrap_err();
            assert!(matches!(error, Error::Unknown { .. }) && error.to_string().contains(word));
        }
    }
}
