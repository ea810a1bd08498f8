//! This room's parsers, for `crate::fuzz`.

use super::container::{ContainerHeader, FooterBuilder, PlacedFrame, parse_footer, parse_trailer};
use super::find::find_frames;
use super::frame::{FrameDirectory, FrameEntry};
use super::ledger::ScrubRow;
use super::rows::{ChunkRow, ContainerRow, ContainerState, FingerprintRow, Health, parse_key};
use crate::checksum::{crc32c, crc32c_of};
use crate::codec::{CodecChoice, encode};
use crate::shard::{MemoryShard, Shard};
use crate::types::{ChunkNo, ClassId, ContainerId, Fingerprint, ShardId, VolumeId};

const TRAILER: usize = 32;

/// A container's header.
#[must_use]
pub fn header(bytes: &[u8]) -> usize {
    ContainerHeader::parse(bytes).map_or(0, |_| size_of::<ContainerHeader>())
}

/// A valid one.
#[must_use]
pub fn golden_header() -> Vec<u8> {
    let volume = VolumeId([7; 16]);
    ContainerHeader { class: ClassId(1), shard: ShardId(0), id: ContainerId(9), volume }.to_bytes()
}

fn size_of_frame(directory: &FrameDirectory) -> usize {
    size_of::<PlacedFrame>() + directory.entries.capacity() * size_of::<FrameEntry>()
}

/// A frame's header and directory.
#[must_use]
pub fn frame(bytes: &[u8]) -> usize {
    FrameDirectory::parse(bytes).map_or(0, |directory| size_of_frame(&directory))
}

/// A valid frame with this many chunks, payload and padding included.
#[must_use]
pub fn golden_frame(chunks: u8) -> Vec<u8> {
    let raw: Vec<u8> = (0..chunks).flat_map(|n| [n; 40]).collect();
    let payload = encode(CodecChoice::Zstd { level: 1 }, &raw);
    let entries = (0..chunks).map(|n| FrameEntry {
        chunk: ChunkNo(n.into()),
        raw_len: 40,
        fingerprint: Fingerprint::of(&[n; 40]),
    });
    let mut bytes = FrameDirectory::new(entries.collect(), &payload).to_bytes();
    bytes.extend_from_slice(&payload.bytes);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// Makes the header's checksum fit.
pub fn seal_frame(bytes: &mut [u8]) {
    let Ok(head_len) = FrameDirectory::peek_head_len(bytes) else { return };
    let Some(directory) = bytes.get(32..head_len as usize) else { return };
    let crc = crc32c_of(&[&bytes[..28], directory]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
}

/// A footer: body, then trailer.
#[must_use]
pub fn footer(bytes: &[u8]) -> usize {
    let Some(body_len) = bytes.len().checked_sub(TRAILER) else { return 0 };
    let (body, trailer) = bytes.split_at(body_len);
    let frames = parse_trailer(trailer).and_then(|trailer| parse_footer(trailer, body));
    frames.map_or(0, |frames| frames.iter().map(|f| size_of_frame(&f.directory)).sum())
}

/// A valid one.
#[must_use]
pub fn golden_footer() -> Vec<u8> {
    let mut builder = FooterBuilder::default();
    for (at, chunks) in [(64, 1), (256, 5)] {
        if let Ok(directory) = FrameDirectory::parse(&golden_frame(chunks)) {
            builder.push(at, &directory.to_bytes());
        }
    }
    builder.to_bytes()
}

/// Makes lengths and checksums of the trailer fit the body.
pub fn seal_footer(bytes: &mut [u8]) {
    let Some(body_len) = bytes.len().checked_sub(TRAILER) else { return };
    let (body, trailer) = bytes.split_at_mut(body_len);
    trailer[12..16].copy_from_slice(&u32::try_from(body_len).unwrap_or(0).to_le_bytes());
    trailer[16..20].copy_from_slice(&crc32c(body).to_le_bytes());
    let crc = crc32c(&trailer[..28]);
    trailer[28..].copy_from_slice(&crc.to_le_bytes());
}

/// A whole container file.
#[must_use]
pub fn container(bytes: &[u8]) -> usize {
    let (shard, id) = (MemoryShard::new(), ContainerId(9));
    let made = shard.create(id).and_then(|mut appender| appender.append(&[bytes]));
    let found = made.and_then(|_| find_frames(&shard, id, bytes.len() as u64));
    found.map_or(0, |found| {
        let frames = found.frames.iter().chain(&found.lost);
        let flaws: usize = found.flaws.iter().map(String::len).sum();
        frames.map(|f| size_of_frame(&f.directory)).sum::<usize>() + flaws
    })
}

/// A valid container, with or without a footer.
#[must_use]
pub fn golden_container(sealed: bool) -> Vec<u8> {
    let mut bytes = golden_header();
    let mut footer = FooterBuilder::default();
    for chunks in [1, 5, 2] {
        let frame = golden_frame(chunks);
        if let Ok(directory) = FrameDirectory::parse(&frame) {
            footer.push(u32::try_from(bytes.len()).unwrap_or(0), &directory.to_bytes());
        }
        bytes.extend(frame);
    }
    if sealed {
        bytes.extend(footer.to_bytes());
    }
    bytes
}

/// Rows and keys of the three tables.
#[must_use]
pub fn rows(bytes: &[u8]) -> usize {
    let chunk = ChunkRow::parse(ChunkNo(1), bytes).map_or(0, |_| size_of::<ChunkRow>());
    let container = ContainerRow::parse(ContainerId(1), bytes);
    let container = container.map_or(0, |_| size_of::<ContainerRow>());
    let fingerprint = FingerprintRow::parse(Fingerprint([0; 32]), bytes);
    let fingerprint = fingerprint.map_or(0, |_| size_of::<FingerprintRow>());
    let key = parse_key("chunk", bytes).map_or(0, |_| 8);
    let scrub = ScrubRow::parse(ContainerId(1), bytes).map_or(0, |_| size_of::<ScrubRow>());
    chunk.max(container).max(fingerprint).max(key).max(scrub)
}

/// Valid ones.
#[must_use]
pub fn golden_rows() -> Vec<Vec<u8>> {
    let chunk = ChunkRow {
        health: Health::Good,
        container: ContainerId(300),
        frame_offset: 64,
        frame_len: 200,
        offset: 5,
        raw_len: 1000,
        frame_raw_len: 1005,
        fingerprint: Fingerprint([0x11; 32]),
    };
    let container = ContainerRow {
        state: ContainerState::Sealed,
        class: ClassId(2),
        shard: ShardId(1),
        bytes: 300,
        chunks: 3,
        raw_bytes: 200,
        stored_bytes: 100,
        first: ChunkNo(7),
        last: ChunkNo(9),
    };
    let fingerprint = FingerprintRow { health: Health::Bad, chunk: ChunkNo(128) };
    vec![chunk.to_bytes(), container.to_bytes(), fingerprint.to_bytes(), vec![0; 8]]
}
