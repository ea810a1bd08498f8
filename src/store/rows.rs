//! Rows of the chunk, fingerprint and container tables.
//!
//! Keys are big-endian numbers or the fingerprint. Values begin with a state byte; numbers are
//! varints; unknown states and trailing bytes are refused. Everything here can be rebuilt from the
//! containers, except which chunks were found damaged.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::container::HEADER_BYTES;
use super::frame::{FRAME_ALIGN_BYTES, FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::cursor::{Reader, put_varint};
use crate::error::{Error, Result};
use crate::limits::{CHUNK_BYTES_MAX, CLASSES_MAX, FRAME_RAW_BYTES_MAX};
use crate::types::{ChunkNo, ClassId, ContainerId, Fingerprint, ShardId};

/// Key in `chunk`: the number, big-endian.
#[must_use]
pub fn chunk_key(chunk: ChunkNo) -> [u8; 8] {
    chunk.0.to_be_bytes()
}

/// Key in `container`: the number, big-endian.
#[must_use]
pub fn container_key(id: ContainerId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// The number that a key of `chunk` or `container` is.
///
/// # Errors
/// `Corrupt` if it is none.
pub fn parse_key(table: &'static str, key: &[u8]) -> Result<u64> {
    let mut reader = Reader::new(key);
    let number = reader.array().and_then(|bytes| reader.finish(u64::from_be_bytes(bytes)));
    number.ok_or_else(|| Error::corrupt(format!("key in table {table}"), "it is no number"))
}

/// Is a chunk known to be bad?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// Nothing is known against it.
    Good = 0,
    /// It was found damaged or missing: it is not used for dedup until it is stored anew.
    Bad = 1,
}

impl Health {
    fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            0 => Some(Self::Good),
            1 => Some(Self::Bad),
            _ => None,
        }
    }
}

/// Value in `chunk`: where a chunk lies.
///
/// | field        | form    | rule                                            |
/// |--------------|---------|-------------------------------------------------|
/// | health       | u8      | [`Health`] tag                                  |
/// | container    | varint  |                                                 |
/// | frame_offset | varint  | at least 64                                     |
/// | frame_len    | varint  | header, directory and payload; ≤ a frame's most |
/// | offset       | varint  | in the decoded frame                            |
/// | raw_len      | varint  | 1..=`CHUNK_BYTES_MAX`                           |
/// | behind       | varint  | bytes of the decoded frame behind the chunk     |
/// | fingerprint  | 32      |                                                 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRow {
    /// Is it usable?
    pub health: Health,
    /// The container.
    pub container: ContainerId,
    /// Offset of its frame in the container.
    pub frame_offset: u32,
    /// Bytes of the frame without padding: one read gets it all.
    pub frame_len: u32,
    /// Offset of the chunk in the decoded frame.
    pub offset: u32,
    /// Bytes of the chunk.
    pub raw_len: u32,
    /// Bytes of the decoded frame.
    pub frame_raw_len: u32,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
}

impl ChunkRow {
    /// The chunk's share of its frame as it was written, header, directory and padding included.
    /// The shares of all chunks of a frame add up to the frame exactly.
    #[must_use]
    pub fn stored_share(&self) -> u64 {
        let frame_bytes = u64::from(self.frame_len).next_multiple_of(u64::from(FRAME_ALIGN_BYTES));
        let up_to = |raw: u32| {
            let whole = u64::from(self.frame_raw_len).max(1);
            frame_bytes.saturating_mul(u64::from(raw)).checked_div(whole).unwrap_or(0)
        };
        let end = self.offset.saturating_add(self.raw_len);
        up_to(end).saturating_sub(up_to(self.offset))
    }

    /// True if `other` points at the same bytes, whatever is known of their health.
    #[must_use]
    pub fn same_place(&self, other: &Self) -> bool {
        Self { health: other.health, ..*self } == *other
    }

    /// The row as stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.push(self.health as u8);
        put_varint(&mut out, self.container.0);
        let end = self.offset.saturating_add(self.raw_len);
        let behind = self.frame_raw_len.saturating_sub(end);
        for field in [self.frame_offset, self.frame_len, self.offset, self.raw_len, behind] {
            put_varint(&mut out, u64::from(field));
        }
        out.extend_from_slice(&self.fingerprint.0);
        out
    }

    /// Parses the row of `chunk`.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn parse(chunk: ChunkNo, bytes: &[u8]) -> Result<Self> {
        let parse = || {
            let mut reader = Reader::new(bytes);
            let mut row = Self {
                health: Health::from_tag(reader.u8()?)?,
                container: ContainerId(reader.varint()?),
                frame_offset: reader.varint_u32()?,
                frame_len: reader.varint_u32()?,
                offset: reader.varint_u32()?,
                raw_len: reader.varint_u32()?,
                frame_raw_len: reader.varint_u32()?,
                fingerprint: Fingerprint(reader.array()?),
            };
            let end = row.offset.checked_add(row.raw_len)?;
            row.frame_raw_len = row.frame_raw_len.checked_add(end)?;
            let good = row.frame_offset >= HEADER_BYTES
                && (FRAME_HEADER_BYTES..=FRAME_BYTES_MAX).contains(&row.frame_len)
                && (1..=CHUNK_BYTES_MAX).contains(&row.raw_len)
                && row.frame_raw_len <= FRAME_RAW_BYTES_MAX;
            reader.finish(row).filter(|_| good)
        };
        parse().ok_or_else(|| damaged("chunk", chunk))
    }
}

/// Value in `fingerprint`: the chunk with it.
///
/// | field  | form   | rule            |
/// |--------|--------|-----------------|
/// | health | u8     | [`Health`] tag  |
/// | chunk  | varint |                 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FingerprintRow {
    /// Bad: the next put stores the bytes anew, under the same number.
    pub health: Health,
    /// The chunk.
    pub chunk: ChunkNo,
}

impl FingerprintRow {
    /// The row as stored.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = vec![self.health as u8];
        put_varint(&mut out, self.chunk.0);
        out
    }

    /// Parses the row of `fingerprint`.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn parse(fingerprint: Fingerprint, bytes: &[u8]) -> Result<Self> {
        let parse = || {
            let mut reader = Reader::new(bytes);
            let health = Health::from_tag(reader.u8()?)?;
            let chunk = ChunkNo(reader.varint()?);
            reader.finish(Self { health, chunk })
        };
        parse().ok_or_else(|| damaged("fingerprint", fingerprint))
    }
}

/// Is a container still appended to?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ContainerState {
    /// Yes; it has no footer.
    Open = 0,
    /// No.
    Sealed = 1,
}

/// Value in `container`.
///
/// | field        | form   | rule                                      |
/// |--------------|--------|-------------------------------------------|
/// | state        | u8     | [`ContainerState`] tag                    |
/// | class        | u8     | below `CLASSES_MAX`                       |
/// | shard        | varint | 16 bits                                   |
/// | bytes        | varint | committed length of the file              |
/// | chunks       | varint | chunks in its frames                      |
/// | raw_bytes    | varint | bytes of these                            |
/// | stored_bytes | varint | bytes of its frames                       |
/// | first        | varint | smallest chunk number in it               |
/// | last         | varint | largest chunk number in it                |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerRow {
    /// Open or sealed.
    pub state: ContainerState,
    /// Class of its chunks.
    pub class: ClassId,
    /// Where it lies.
    pub shard: ShardId,
    /// Committed length of the file.
    pub bytes: u64,
    /// Chunks in its frames.
    pub chunks: u64,
    /// Bytes of these.
    pub raw_bytes: u64,
    /// Bytes of its frames, headers included.
    pub stored_bytes: u64,
    /// Smallest chunk number in it.
    pub first: ChunkNo,
    /// Largest chunk number in it.
    pub last: ChunkNo,
}

impl ContainerRow {
    /// The row as stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![self.state as u8, self.class.0];
        put_varint(&mut out, u64::from(self.shard.0));
        let counts = [self.bytes, self.chunks, self.raw_bytes, self.stored_bytes];
        for field in counts.into_iter().chain([self.first.0, self.last.0]) {
            put_varint(&mut out, field);
        }
        out
    }

    /// Parses the row of `id`.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn parse(id: ContainerId, bytes: &[u8]) -> Result<Self> {
        let parse = || {
            let mut reader = Reader::new(bytes);
            let state = match reader.u8()? {
                0 => ContainerState::Open,
                1 => ContainerState::Sealed,
                _ => return None,
            };
            let row = Self {
                state,
                class: ClassId(reader.u8().filter(|c| usize::from(*c) < CLASSES_MAX)?),
                shard: ShardId(u16::try_from(reader.varint()?).ok()?),
                bytes: reader.varint()?,
                chunks: reader.varint()?,
                raw_bytes: reader.varint()?,
                stored_bytes: reader.varint()?,
                first: ChunkNo(reader.varint()?),
                last: ChunkNo(reader.varint()?),
            };
            reader.finish(row)
        };
        parse().ok_or_else(|| damaged("container", id))
    }
}

fn damaged(table: &str, key: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("row {key} of table {table}"), "it does not parse")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk_row() -> ChunkRow {
        ChunkRow {
            health: Health::Good,
            container: ContainerId(300),
            frame_offset: 64,
            frame_len: 200,
            offset: 5,
            raw_len: 1000,
            frame_raw_len: 1012,
            fingerprint: Fingerprint([0x11; 32]),
        }
    }

    fn container_row() -> ContainerRow {
        ContainerRow {
            state: ContainerState::Sealed,
            class: ClassId(2),
            shard: ShardId(1),
            bytes: 300,
            chunks: 3,
            raw_bytes: 200,
            stored_bytes: 100,
            first: ChunkNo(7),
            last: ChunkNo(9),
        }
    }

    #[test]
    fn bytes_are_fixed() {
        let mut golden = b"\x00\xac\x02\x40\xc8\x01\x05\xe8\x07\x07".to_vec();
        golden.extend_from_slice(&[0x11; 32]);
        assert_eq!(chunk_row().to_bytes(), golden);
        let row = FingerprintRow { health: Health::Bad, chunk: ChunkNo(128) };
        assert_eq!(row.to_bytes(), b"\x01\x80\x01");
        let golden = b"\x01\x02\x01\xac\x02\x03\xc8\x01\x64\x07\x09";
        assert_eq!(container_row().to_bytes(), golden);
        assert_eq!(chunk_key(ChunkNo(0x0102)), [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(container_key(ContainerId(1)), [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(parse_key("chunk", &chunk_key(ChunkNo(9))).unwrap(), 9);
        assert!(parse_key("chunk", b"short").is_err());
    }

    #[test]
    fn cut_and_longer_rows_are_refused() {
        let refused = |bytes: &[u8], parse: &dyn Fn(&[u8]) -> bool| {
            assert!(parse(bytes));
            for cut in 0..bytes.len() {
                assert!(!parse(bytes.get(..cut).unwrap()), "cut at {cut}");
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert!(!parse(&longer));
            let mut unknown = bytes.to_vec();
            if let Some(state) = unknown.first_mut() {
                *state = 2;
            }
            assert!(!parse(&unknown));
        };
        refused(&chunk_row().to_bytes(), &|b| ChunkRow::parse(ChunkNo(1), b).is_ok());
        refused(&container_row().to_bytes(), &|b| ContainerRow::parse(ContainerId(1), b).is_ok());
        let row = FingerprintRow { health: Health::Good, chunk: ChunkNo(1 << 40) };
        let key = Fingerprint([0; 32]);
        refused(&row.to_bytes(), &|b| FingerprintRow::parse(key, b).is_ok());
    }

    #[test]
    fn chunk_rows_out_of_bounds_are_refused() {
        let with = |change: fn(&mut ChunkRow)| {
            let mut row = chunk_row();
            change(&mut row);
            ChunkRow::parse(ChunkNo(1), &row.to_bytes()).is_ok()
        };
        assert!(with(|_| ()));
        assert!(!with(|r| r.frame_offset = 63));
        assert!(!with(|r| r.frame_len = 31));
        assert!(!with(|r| r.frame_len = u32::MAX));
        assert!(!with(|r| r.raw_len = 0));
        assert!(!with(|r| r.offset = u32::MAX));
        assert!(!with(|r| r.frame_raw_len = FRAME_RAW_BYTES_MAX + 1));
    }

    proptest! {
        /// Whatever a frame holds, its chunks' shares are all of its bytes and none twice.
        #[test]
        fn shares_add_up_to_the_frame(
            lens in proptest::collection::vec(1_u32..2000, 1..200), frame_len in 32_u32..100_000
        ) {
            let frame_raw_len = lens.iter().sum();
            let shares = lens.iter().scan(0_u32, |offset, &raw_len| {
                let row =
                    ChunkRow { frame_len, offset: *offset, raw_len, frame_raw_len, ..chunk_row() };
                *offset = offset.saturating_add(raw_len);
                Some(row.stored_share())
            });
            prop_assert_eq!(shares.sum::<u64>(), u64::from(frame_len).next_multiple_of(8));
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = ChunkRow::parse(ChunkNo(1), &bytes);
            let _ = ContainerRow::parse(ContainerId(1), &bytes);
            let _ = FingerprintRow::parse(Fingerprint([0; 32]), &bytes);
        }
    }
}
