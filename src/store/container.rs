//! A container: header, frames, and the footer that repeats every frame's directory.
//!
//! | part    | bytes                                              |
//! |---------|----------------------------------------------------|
//! | header  | 64                                                 |
//! | frames  | see [`FrameDirectory`], each at a multiple of 8    |
//! | footer  | when sealed: start, one entry per frame, trailer   |

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::frame::{FRAME_MAGIC, Flaw, FrameDirectory};
use crate::checksum::crc32c;
use crate::cursor::Reader;
use crate::limits::{CLASSES_MAX, CONTAINER_BYTES_MAX};
use crate::types::{ClassId, ContainerId, ShardId, VolumeId};

const HEADER_MAGIC: &[u8; 8] = b"STRATAFC";
const FOOTER_MAGIC: &[u8; 8] = b"STRATAFI";
const TRAILER_MAGIC: &[u8; 8] = b"STRATAFF";
const VERSION: u16 = 1;

/// Bytes of the header: frames begin here.
pub const HEADER_BYTES: u32 = 64;
/// Bytes of the trailer.
pub const TRAILER_BYTES: u32 = 32;
/// Zeros between frames end at a multiple of this.
pub const BLOCK_BYTES: u32 = 4096;

/// First bytes of a container. Little-endian, 64 bytes.
///
/// | offset | size | field      | rule                                  |
/// |-------:|-----:|------------|---------------------------------------|
/// |      0 |    8 | magic      | `STRATAFC`                            |
/// |      8 |    2 | version    | 1; others are refused                 |
/// |     10 |    1 | class      | below `CLASSES_MAX`                   |
/// |     11 |    1 | flags      | 0; unknown bits are refused           |
/// |     12 |    2 | shard      | the shard it was written to           |
/// |     14 |    2 | zero       | 0                                     |
/// |     16 |    8 | container  | its number                            |
/// |     24 |   16 | volume     | id of the volume                      |
/// |     40 |   20 | zero       | 0                                     |
/// |     60 |    4 | header_crc | crc32c of bytes 0..60                 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerHeader {
    /// Class of its chunks.
    pub class: ClassId,
    /// Shard it was written to.
    pub shard: ShardId,
    /// Its number.
    pub id: ContainerId,
    /// Its volume.
    pub volume: VolumeId,
}

impl ContainerHeader {
    /// The header as stored.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES as usize);
        out.extend_from_slice(HEADER_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[self.class.0, 0]);
        out.extend_from_slice(&self.shard.0.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.id.0.to_le_bytes());
        out.extend_from_slice(&self.volume.0);
        out.extend_from_slice(&[0; 20]);
        let crc = crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Parses and verifies the header at the front of `bytes`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        const SHORT: Flaw = "its header is cut short";
        let mut reader = Reader::new(bytes);
        let body = reader.bytes(60).ok_or(SHORT)?;
        if reader.u32().ok_or(SHORT)? != crc32c(body) {
            return Err("the checksum of its header does not match");
        }
        let mut reader = Reader::new(body);
        if reader.array().as_ref() != Some(HEADER_MAGIC) {
            return Err("it is no container");
        }
        if reader.u16() != Some(VERSION) {
            return Err("its format version is unknown");
        }
        let class = reader.u8().filter(|c| usize::from(*c) < CLASSES_MAX);
        let class = ClassId(class.ok_or("its class is out of bounds")?);
        if reader.u8() != Some(0) {
            return Err("it has unknown flags");
        }
        let mut rest = || {
            let shard = ShardId(reader.u16()?);
            reader.zeros(2)?;
            let id = ContainerId(reader.u64()?);
            let volume = VolumeId(reader.array()?);
            reader.zeros(20)?;
            reader.finish(Self { class, shard, id, volume })
        };
        rest().ok_or("its reserved bytes are not zero")
    }
}

/// Where a frame lies and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedFrame {
    /// Offset of its first byte in the container.
    pub offset: u32,
    /// Its header and directory.
    pub directory: FrameDirectory,
}

/// Collects a container's footer while its frames are written.
///
/// | part    | bytes                                                                   |
/// |---------|-------------------------------------------------------------------------|
/// | start   | `STRATAFI`                                                              |
/// | entries | per frame: offset u32, copy of its header and directory                 |
/// | trailer | `STRATAFF`, frame_count u32, footer_len u32 (start and entries),        |
/// |         | footer_crc u32, zero 8, trailer_crc u32 (crc32c of the 28 bytes before) |
#[derive(Clone, Debug)]
pub struct FooterBuilder {
    body: Vec<u8>,
    frames: u32,
}

impl Default for FooterBuilder {
    fn default() -> Self {
        Self { body: FOOTER_MAGIC.to_vec(), frames: 0 }
    }
}

impl FooterBuilder {
    /// Adds a frame; `head` is its header and directory.
    pub fn push(&mut self, offset: u32, head: &[u8]) {
        self.body.extend_from_slice(&offset.to_le_bytes());
        self.body.extend_from_slice(head);
        self.frames = self.frames.saturating_add(1);
    }

    /// Bytes of the footer if it were written now.
    #[must_use]
    pub fn len(&self) -> u64 {
        (self.body.len() as u64).saturating_add(u64::from(TRAILER_BYTES))
    }

    /// The footer as stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut trailer = Vec::with_capacity(TRAILER_BYTES as usize);
        trailer.extend_from_slice(TRAILER_MAGIC);
        let len = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
        for field in [self.frames, len, crc32c(&self.body), 0, 0] {
            trailer.extend_from_slice(&field.to_le_bytes());
        }
        let crc = crc32c(&trailer);
        trailer.extend_from_slice(&crc.to_le_bytes());
        let mut out = self.body.clone();
        out.extend_from_slice(&trailer);
        out
    }
}

/// Bytes of the footer body (start and entries) that the trailer `bytes` announces.
///
/// # Errors
/// What is wrong with the trailer.
pub fn parse_trailer(bytes: &[u8]) -> Result<Trailer, Flaw> {
    const FLAW: Flaw = "its footer's trailer is damaged";
    let mut reader = Reader::new(bytes);
    let body = reader.bytes(28).ok_or(FLAW)?;
    let crc = reader.u32().and_then(|crc| reader.finish(crc)).ok_or(FLAW)?;
    if crc != crc32c(body) {
        return Err(FLAW);
    }
    let mut reader = Reader::new(body);
    if reader.array().as_ref() != Some(TRAILER_MAGIC) {
        return Err("it has no footer");
    }
    let mut rest = || {
        let frames = reader.u32()?;
        let body_len = reader.u32().filter(|len| *len <= CONTAINER_BYTES_MAX)?;
        let body_crc = reader.u32()?;
        reader.zeros(8)?;
        reader.finish(Trailer { frames, body_len, body_crc })
    };
    rest().ok_or(FLAW)
}

/// The parsed trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Entries in the footer.
    pub frames: u32,
    /// Bytes of start and entries.
    pub body_len: u32,
    /// Checksum of these.
    pub body_crc: u32,
}

/// Parses the footer body that `trailer` announced.
///
/// # Errors
/// What is wrong with it.
pub fn parse_footer(trailer: Trailer, body: &[u8]) -> Result<Vec<PlacedFrame>, Flaw> {
    const FLAW: Flaw = "its footer is damaged";
    if body.len() != trailer.body_len as usize || crc32c(body) != trailer.body_crc {
        return Err("the checksum of its footer does not match");
    }
    let mut reader = Reader::new(body);
    if reader.array().as_ref() != Some(FOOTER_MAGIC) {
        return Err(FLAW);
    }
    let mut frames = Vec::new();
    while !reader.is_empty() {
        let offset = reader.u32().filter(|at| *at >= HEADER_BYTES).ok_or(FLAW)?;
        let directory = FrameDirectory::parse(reader.rest())?;
        reader.bytes(directory.head_len() as usize).ok_or(FLAW)?;
        frames.push(PlacedFrame { offset, directory });
    }
    if frames.len() != trailer.frames as usize {
        return Err(FLAW);
    }
    Ok(frames)
}

/// What begins at a place where a frame may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// A frame.
    Frame,
    /// Zeros up to the next block.
    Zeros,
    /// The footer.
    Footer,
    /// None of these.
    Foreign,
}

/// Tells what `bytes` begin with; eight are enough.
#[must_use]
pub fn begin_of(bytes: &[u8]) -> Begin {
    if bytes.starts_with(FRAME_MAGIC) {
        Begin::Frame
    } else if bytes.starts_with(FOOTER_MAGIC) {
        Begin::Footer
    } else if bytes.starts_with(&[0; 4]) {
        Begin::Zeros
    } else {
        Begin::Foreign
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Codec;
    use crate::store::frame::FrameEntry;
    use crate::types::{ChunkNo, Fingerprint};
    use proptest::prelude::*;

    fn header() -> ContainerHeader {
        ContainerHeader {
            class: ClassId(5),
            shard: ShardId(0x0201),
            id: ContainerId(0x0a0b),
            volume: VolumeId([0xcd; 16]),
        }
    }

    fn directory() -> FrameDirectory {
        let entry =
            FrameEntry { chunk: ChunkNo(1), raw_len: 9, fingerprint: Fingerprint([0xee; 32]) };
        FrameDirectory {
            codec: Codec::Zstd,
            raw_len: 9,
            stored_len: 4,
            payload_crc: 0x1122_3344,
            entries: vec![entry],
        }
    }

    fn footer() -> Vec<u8> {
        let mut builder = FooterBuilder::default();
        builder.push(64, &directory().to_bytes());
        builder.push(0x0100, &directory().to_bytes());
        assert_eq!(builder.len(), builder.to_bytes().len() as u64);
        builder.to_bytes()
    }

    fn parse_whole(bytes: &[u8]) -> Result<Vec<PlacedFrame>, Flaw> {
        let (body, trailer) = bytes.split_at_checked(bytes.len().saturating_sub(32)).unwrap();
        parse_footer(parse_trailer(trailer)?, body)
    }

    fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
        let mut bad = bytes.to_vec();
        if let Some(byte) = bad.get_mut(at) {
            *byte ^= 0x40;
        }
        bad
    }

    #[test]
    fn header_bytes_are_fixed() {
        let bytes = header().to_bytes();
        let mut golden = b"STRATAFC\x01\0\x05\0\x01\x02\0\0\x0b\x0a\0\0\0\0\0\0".to_vec();
        golden.extend_from_slice(&[0xcd; 16]);
        golden.extend_from_slice(&[0; 20]);
        golden.extend_from_slice(&0x2ec9_5337_u32.to_le_bytes());
        assert_eq!(bytes, golden);
        assert_eq!(ContainerHeader::parse(&bytes).unwrap(), header());
        for at in 0..bytes.len() {
            assert!(ContainerHeader::parse(&flipped(&bytes, at)).is_err(), "flip at {at}");
        }
    }

    #[test]
    fn footer_bytes_are_fixed() {
        let bytes = footer();
        let head = directory().to_bytes();
        let mut golden = b"STRATAFI\x40\0\0\0".to_vec();
        golden.extend_from_slice(&head);
        golden.extend_from_slice(b"\0\x01\0\0");
        golden.extend_from_slice(&head);
        golden.extend_from_slice(b"STRATAFF\x02\0\0\0\xa8\0\0\0");
        golden.extend_from_slice(&0xab82_ee35_u32.to_le_bytes());
        golden.extend_from_slice(&[0; 8]);
        golden.extend_from_slice(&0xaafb_0343_u32.to_le_bytes());
        assert_eq!(bytes, golden);
        let frames = parse_whole(&bytes).unwrap();
        assert_eq!(frames.iter().map(|f| f.offset).collect::<Vec<_>>(), [64, 256]);
        assert!(frames.iter().all(|f| f.directory == directory()));
    }

    #[test]
    fn every_flip_of_a_footer_is_refused() {
        let bytes = footer();
        for at in 0..bytes.len() {
            assert!(parse_whole(&flipped(&bytes, at)).is_err(), "flip at {at}");
        }
    }

    #[test]
    fn begin_is_told_from_eight_bytes() {
        assert_eq!(begin_of(b"SFFR\0\0\0\0"), Begin::Frame);
        assert_eq!(begin_of(b"STRATAFI"), Begin::Footer);
        assert_eq!(begin_of(&[0; 8]), Begin::Zeros);
        assert_eq!(begin_of(b"garbage!"), Begin::Foreign);
        assert_eq!(begin_of(b""), Begin::Foreign);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ContainerHeader::parse(&bytes);
            let _ = parse_trailer(&bytes);
            let len = u32::try_from(bytes.len()).unwrap();
            let trailer = Trailer { frames: 1, body_len: len, body_crc: crc32c(&bytes) };
            let _ = parse_footer(trailer, &bytes);
            let mut started = FOOTER_MAGIC.to_vec();
            started.extend_from_slice(&bytes);
            let trailer = Trailer {
                frames: 1,
                body_len: len.saturating_add(8),
                body_crc: crc32c(&started),
            };
            let _ = parse_footer(trailer, &started);
        }
    }
}
