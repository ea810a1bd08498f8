//! The file that makes a directory a shard.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::checksum::crc32c;
use crate::cursor::Reader;
use crate::error::{Error, Result};
use crate::types::{ShardId, VolumeId};

const MAGIC: &[u8; 8] = b"STRATASH";
const VERSION: u16 = 1;

/// Content of `shard.id`. Little-endian, 64 bytes.
///
/// | offset | size | field   | rule                                   |
/// |-------:|-----:|---------|----------------------------------------|
/// |      0 |    8 | magic   | `STRATASH`                             |
/// |      8 |    2 | version | 1; others are refused                  |
/// |     10 |    2 | shard   | number of the shard in its volume      |
/// |     12 |   16 | volume  | id of the volume                       |
/// |     28 |   32 | zero    | zero                                   |
/// |     60 |    4 | crc     | crc32c of bytes 0..60                  |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) volume: VolumeId,
    pub(super) shard: ShardId,
}

impl Marker {
    pub(super) const LEN: usize = 64;

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.shard.0.to_le_bytes());
        out.extend_from_slice(&self.volume.0);
        out.extend_from_slice(&[0; 32]);
        let crc = crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// `path` is for the message.
    pub(super) fn parse(bytes: &[u8], path: &str) -> Result<Self> {
        let damaged = || Error::Shard {
            what: format!(
                "File {path} is damaged, so its shard is not used; restore this file from a backup"
            ),
        };
        let mut reader = Reader::new(bytes);
        let body = reader.bytes(60).ok_or_else(damaged)?;
        let crc = reader.u32().and_then(|crc| reader.finish(crc)).ok_or_else(damaged)?;
        if crc != crc32c(body) {
            return Err(damaged());
        }
        let mut reader = Reader::new(body);
        let magic = reader.array().ok_or_else(damaged)?;
        let version = reader.u16().ok_or_else(damaged)?;
        if &magic == MAGIC && version != VERSION {
            return Err(Error::Unknown {
                what: format!(
                    "File {path} has format version {version} and this program knows {VERSION}; \
                     use a newer stratafs"
                ),
            });
        }
        let mut rest = || {
            let shard = ShardId(reader.u16()?);
            let volume = VolumeId(reader.array()?);
            reader.zeros(32)?;
            reader.finish(Self { volume, shard })
        };
        if &magic != MAGIC {
            return Err(damaged());
        }
        rest().ok_or_else(damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_fixed_and_every_flip_is_refused() {
        let marker = Marker { volume: VolumeId([0xab; 16]), shard: ShardId(0x0102) };
        let bytes = marker.to_bytes();
        let mut golden = b"STRATASH\x01\x00\x02\x01".to_vec();
        golden.extend_from_slice(&[0xab; 16]);
        golden.extend_from_slice(&[0; 32]);
        assert_eq!(bytes.get(..60), Some(&golden[..]));
        assert_eq!(bytes.len(), Marker::LEN);
        assert_eq!(Marker::parse(&bytes, "p").unwrap(), marker);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            if let Some(byte) = bad.get_mut(at) {
                *byte ^= 1;
            }
            assert!(Marker::parse(&bad, "p").is_err(), "flip at {at}");
            assert!(Marker::parse(bytes.get(..at).unwrap(), "p").is_err(), "cut at {at}");
        }
        let mut newer = golden.clone();
        if let Some(version) = newer.get_mut(8) {
            *version = 2;
        }
        newer.extend_from_slice(&crc32c(&newer).to_le_bytes());
        assert!(matches!(Marker::parse(&newer, "p"), Err(Error::Unknown { .. })));
    }
}
