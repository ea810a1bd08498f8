//! A frame: chunks stored together, with their directory.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::checksum::{crc32c, crc32c_of};
use crate::codec::{Codec, Encoded};
use crate::cursor::Reader;
use crate::limits::{CHUNK_BYTES_MAX, FRAME_CHUNKS_MAX, FRAME_RAW_BYTES_MAX};
use crate::types::{ChunkNo, Fingerprint};

/// First bytes of a frame.
pub const FRAME_MAGIC: &[u8; 4] = b"SFFR";
/// Bytes of a frame before its directory.
pub const FRAME_HEADER_BYTES: u32 = 32;
/// Bytes of one directory entry.
pub const FRAME_ENTRY_BYTES: u32 = 44;
/// Frames begin at multiples of this.
pub const FRAME_ALIGN_BYTES: u32 = 8;
/// No frame is longer: header, the longest directory, the longest payload (codecs never grow).
pub const FRAME_BYTES_MAX: u32 =
    FRAME_HEADER_BYTES + FRAME_ENTRY_BYTES * FRAME_CHUNKS_MAX + FRAME_RAW_BYTES_MAX;

/// One chunk of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEntry {
    /// Its number.
    pub chunk: ChunkNo,
    /// Its bytes, 1..=`CHUNK_BYTES_MAX`.
    pub raw_len: u32,
    /// Fingerprint of these bytes.
    pub fingerprint: Fingerprint,
}

/// Header and directory of a frame. Little-endian; `payload` follows the directory, then zeros to a
/// multiple of 8 bytes. Zeros up to the next multiple of 4096 in the container may follow.
///
/// | offset | size | field       | rule                                            |
/// |-------:|-----:|-------------|-------------------------------------------------|
/// |      0 |    4 | magic       | `SFFR`                                          |
/// |      4 |    1 | codec       | [`Codec`] tag                                   |
/// |      5 |    1 | cipher      | 0: none                                         |
/// |      6 |    2 | flags       | 0; unknown bits are refused                     |
/// |      8 |    4 | chunk_count | 1..=`FRAME_CHUNKS_MAX`                          |
/// |     12 |    4 | raw_len     | sum of the chunks, 1..=`FRAME_RAW_BYTES_MAX`    |
/// |     16 |    4 | stored_len  | payload bytes, 1..=raw_len                      |
/// |     20 |    4 | payload_crc | crc32c of the payload                           |
/// |     24 |    4 | zero        | 0                                               |
/// |     28 |    4 | header_crc  | crc32c of bytes 0..28 and the directory         |
/// |     32 | n×44 | directory   | chunk number u64, raw_len u32, fingerprint 32   |
///
/// The decoded payload is the chunks, one after the other, in directory order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameDirectory {
    /// How the payload is encoded.
    pub codec: Codec,
    /// Bytes of all chunks.
    pub raw_len: u32,
    /// Bytes of the payload.
    pub stored_len: u32,
    /// Checksum of the payload.
    pub payload_crc: u32,
    /// The chunks in order.
    pub entries: Vec<FrameEntry>,
}

/// Why bytes are no frame.
pub type Flaw = &'static str;

impl FrameDirectory {
    /// Directory for `entries` encoded as `payload`. The caller keeps the bounds.
    #[must_use]
    pub fn new(entries: Vec<FrameEntry>, payload: &Encoded<'_>) -> Self {
        let raw_len = entries.iter().map(|e| e.raw_len).fold(0, u32::saturating_add);
        Self {
            codec: payload.codec,
            raw_len,
            stored_len: u32::try_from(payload.bytes.len()).unwrap_or(u32::MAX),
            payload_crc: crc32c(&payload.bytes),
            entries,
        }
    }

    /// Bytes of header and directory.
    #[must_use]
    pub fn head_len(&self) -> u32 {
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        count.saturating_mul(FRAME_ENTRY_BYTES).saturating_add(FRAME_HEADER_BYTES)
    }

    /// Bytes of header, directory and payload, without padding.
    #[must_use]
    pub fn frame_len(&self) -> u32 {
        self.head_len().saturating_add(self.stored_len)
    }

    /// Zero bytes after the payload.
    #[must_use]
    pub fn padding(&self) -> u32 {
        let over = self.frame_len() & FRAME_ALIGN_BYTES.wrapping_sub(1);
        if over == 0 { 0 } else { FRAME_ALIGN_BYTES.saturating_sub(over) }
    }

    /// Header and directory as they lie in the container.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut directory =
            Vec::with_capacity(self.entries.len().saturating_mul(FRAME_ENTRY_BYTES as usize));
        for entry in &self.entries {
            directory.extend_from_slice(&entry.chunk.0.to_le_bytes());
            directory.extend_from_slice(&entry.raw_len.to_le_bytes());
            directory.extend_from_slice(&entry.fingerprint.0);
        }
        let mut out = Vec::with_capacity(directory.len().saturating_add(32));
        out.extend_from_slice(FRAME_MAGIC);
        out.extend_from_slice(&[self.codec.tag(), 0, 0, 0]);
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        for field in [count, self.raw_len, self.stored_len, self.payload_crc, 0] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let crc = crc32c_of(&[&out, &directory]);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&directory);
        out
    }

    /// Bytes of header and directory of the frame that begins with `header`, of which 32 bytes are
    /// enough. Not verified: the directory is needed for that.
    ///
    /// # Errors
    /// What is wrong with the header.
    pub fn peek_head_len(header: &[u8]) -> Result<u32, Flaw> {
        let mut reader = Reader::new(header);
        if reader.array().as_ref() != Some(FRAME_MAGIC) {
            return Err("no frame begins here");
        }
        let count = reader.bytes(4).and_then(|_| reader.u32()).ok_or("its header is cut short")?;
        if !(1..=FRAME_CHUNKS_MAX).contains(&count) {
            return Err("its chunk count is out of bounds");
        }
        Ok(count.saturating_mul(FRAME_ENTRY_BYTES).saturating_add(FRAME_HEADER_BYTES))
    }

    /// Parses and verifies the header and directory at the front of `bytes`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        const SHORT: Flaw = "its header is cut short";
        let head_len = Self::peek_head_len(bytes)?;
        let head = bytes.get(..head_len as usize).ok_or(SHORT)?;
        let mut reader = Reader::new(head);
        let checked = reader.bytes(28).ok_or(SHORT)?;
        let crc = reader.u32().ok_or(SHORT)?;
        let directory = reader.rest();
        if crc != crc32c_of(&[checked, directory]) {
            return Err("the checksum of its header does not match");
        }
        let mut reader = Reader::new(checked);
        reader.bytes(4).ok_or(SHORT)?;
        let codec = reader.u8().and_then(Codec::from_tag).ok_or("its codec is unknown")?;
        if reader.u8() != Some(0) {
            return Err("its cipher is unknown");
        }
        if reader.u16() != Some(0) {
            return Err("it has unknown flags");
        }
        reader.u32().ok_or(SHORT)?;
        let raw_len = reader.u32().ok_or(SHORT)?;
        let stored_len = reader.u32().ok_or(SHORT)?;
        let payload_crc = reader.u32().ok_or(SHORT)?;
        reader.zeros(4).ok_or("its reserved bytes are not zero")?;
        let entries = Self::parse_entries(directory).ok_or("its directory is out of bounds")?;
        let sum: u64 = entries.iter().map(|e| u64::from(e.raw_len)).sum();
        let bounded = raw_len <= FRAME_RAW_BYTES_MAX && (1..=raw_len).contains(&stored_len);
        if !bounded || sum != u64::from(raw_len) {
            return Err("its lengths are out of bounds");
        }
        Ok(Self { codec, raw_len, stored_len, payload_crc, entries })
    }

    fn parse_entries(directory: &[u8]) -> Option<Vec<FrameEntry>> {
        let mut reader = Reader::new(directory);
        let mut entries = Vec::new();
        while !reader.is_empty() {
            let chunk = ChunkNo(reader.u64()?);
            let raw_len = reader.u32()?;
            let fingerprint = Fingerprint(reader.array()?);
            if !(1..=CHUNK_BYTES_MAX).contains(&raw_len) {
                return None;
            }
            entries.push(FrameEntry { chunk, raw_len, fingerprint });
        }
        Some(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{CodecChoice, encode};
    use proptest::prelude::*;

    fn sample() -> (FrameDirectory, Vec<u8>) {
        let raw = b"abcdefgh".to_vec();
        let entries = vec![
            FrameEntry {
                chunk: ChunkNo(0x0102_0304),
                raw_len: 3,
                fingerprint: Fingerprint([0xaa; 32]),
            },
            FrameEntry { chunk: ChunkNo(5), raw_len: 5, fingerprint: Fingerprint([0xbb; 32]) },
        ];
        (FrameDirectory::new(entries, &encode(CodecChoice::None, &raw)), raw)
    }

    #[test]
    fn bytes_are_fixed() {
        let (frame, _) = sample();
        let mut golden = b"SFFR\0\0\0\0\x02\0\0\0\x08\0\0\0\x08\0\0\0".to_vec();
        golden.extend_from_slice(&0x0a94_21b7_u32.to_le_bytes());
        golden.extend_from_slice(&[0; 4]);
        golden.extend_from_slice(&0x23cb_6feb_u32.to_le_bytes());
        golden.extend_from_slice(b"\x04\x03\x02\x01\0\0\0\0\x03\0\0\0");
        golden.extend_from_slice(&[0xaa; 32]);
        golden.extend_from_slice(b"\x05\0\0\0\0\0\0\0\x05\0\0\0");
        golden.extend_from_slice(&[0xbb; 32]);
        assert_eq!(frame.to_bytes(), golden);
        assert_eq!((frame.head_len(), frame.frame_len(), frame.padding()), (120, 128, 0));
        assert_eq!(FrameDirectory::parse(&golden).unwrap(), frame);
    }

    #[test]
    fn every_flip_and_cut_is_refused() {
        let bytes = sample().0.to_bytes();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            if let Some(byte) = bad.get_mut(at) {
                *byte ^= 0x04;
            }
            assert!(FrameDirectory::parse(&bad).is_err(), "flip at {at}");
            assert!(FrameDirectory::parse(bytes.get(..at).unwrap()).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn fields_out_of_bounds_are_refused_though_the_checksum_is_right() {
        let (good, _) = sample();
        let with = |change: fn(&mut FrameDirectory)| {
            let mut bad = good.clone();
            change(&mut bad);
            FrameDirectory::parse(&bad.to_bytes())
        };
        assert!(with(|_| ()).is_ok());
        assert!(with(|f| f.raw_len = 9).is_err());
        assert!(with(|f| f.stored_len = 9).is_err());
        assert!(with(|f| f.stored_len = 0).is_err());
        assert!(with(|f| f.entries.clear()).is_err());
        assert!(with(|f| f.entries.iter_mut().for_each(|e| e.raw_len = 0)).is_err());
        assert!(with(|f| f.entries.iter_mut().for_each(|e| e.raw_len = u32::MAX)).is_err());
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = FrameDirectory::parse(&bytes);
            let mut framed = FRAME_MAGIC.to_vec();
            framed.extend_from_slice(&bytes);
            let _ = FrameDirectory::parse(&framed);
        }
    }
}
