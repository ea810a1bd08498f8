//! Ingest: bytes of a file → zero runs and chunks → chunk numbers.
//!
//! Guarantees: the pieces it returns cover what it was given, in order, up to `rest`; a cut depends
//! only on the bytes from the start of its segment on (content-defined) or on the file offset
//! (fixed), so the same bytes give the same chunks. With `more` it stops before a cut that only the
//! end of the data would have forced. Relies on: `store` for exact dedup and the worker threads.
//! Does not: know inodes or extents; decide the class. `fastcdc` and `mincdc` live here.

mod gear;
mod zero;

use bytes::Bytes;
use mincdc::{MinCdcHash4, SliceChunker};
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use crate::classify::{Chunking, ClassSpec, CodecSetting};
use crate::codec::CodecChoice;
use crate::error::Result;
use crate::stats::Stats;
use crate::store::{PutHint, Store};
use crate::types::{ChunkNo, ShardId};
use gear::Gear;
use zero::zero_runs;

/// A part of the data that was given: a chunk, or a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First byte, from the start of the data.
    pub start: usize,
    /// Bytes.
    pub len: usize,
    /// The chunk that holds them; `None` for zeros.
    pub chunk: Option<ChunkNo>,
}

/// What became of the data.
#[derive(Debug, Default)]
pub struct Ingested {
    /// In order, without gaps, from byte 0.
    pub pieces: Vec<Piece>,
    /// The first byte that was not cut; the length of the data unless more is to come.
    pub rest: usize,
}

/// Where new chunks go.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The class decides chunking and codec.
    pub class: &'a ClassSpec,
    /// The shard chosen for it.
    pub shard: ShardId,
    /// New chunks are copied; else they keep the buffer they lie in until they are written.
    pub copy: bool,
}

/// Cuts `data`, which begins at byte `offset` of its file, and stores what is new.
///
/// With `more` set, the end of the data is not the end of what is known: the last bytes, at most
/// one largest chunk and a zero run, are left for the next call.
///
/// # Errors
/// What `Store::put` says; chunks put before the error are harmless and found again next time.
pub fn ingest(
    store: &Store,
    stats: &Stats,
    target: Target<'_>,
    data: &Bytes,
    offset: u64,
    more: bool,
) -> Result<Ingested> {
    let mut done = Ingested::default();
    let counters = stats.class(target.class.id);
    let codec = codec_choice(target.class.codec);
    let group_bytes = target.class.group_bytes;
    let hint = PutHint { class: target.class.id, shard: target.shard, codec, group_bytes };
    let mut fresh = 0;
    for segment in segments(data, offset, more) {
        counters.written_bytes.fetch_add(segment.range.len() as u64, Relaxed);
        if segment.zero {
            counters.zero_bytes.fetch_add(segment.range.len() as u64, Relaxed);
            done.push(segment.range, None);
            continue;
        }
        let bytes = &data[segment.range.clone()];
        let open_end = more && segment.range.end == data.len();
        let start = segment.range.start;
        let mut at = start;
        // A chunk is cut and stored before the next one is cut: it is in the processor's cache.
        for len in cut(target.class.chunking, bytes, offset + start as u64, open_end) {
            let raw = data.slice(at..at + len);
            // Where half of what was cut is new, the buffer is no larger than copies would be.
            let keep = (2 * fresh >= at).then_some(data);
            let put = if target.copy {
                let copy = Bytes::copy_from_slice(&raw);
                store.put_of(Some(&copy), copy.clone(), hint)?
            } else {
                store.put_of(keep, raw, hint)?
            };
            fresh += if put.known { 0 } else { len };
            done.push(at..at + len, Some(put.chunk));
            at += len;
        }
        let left = segment.range.end - at;
        counters.written_bytes.fetch_sub(left as u64, Relaxed);
    }
    Ok(done)
}

/// Where `data`, which begins at byte `offset` of its file, would be cut: the chunks, and the first
/// byte that was not cut (see [`ingest`] for `more`). Stores nothing.
#[must_use]
pub fn cuts(
    chunking: Chunking,
    data: &[u8],
    offset: u64,
    more: bool,
) -> (Vec<Range<usize>>, usize) {
    let mut chunks = Vec::new();
    let mut rest = 0;
    for segment in segments(data, offset, more) {
        let Range { start, end } = segment.range;
        rest = end;
        if segment.zero {
            continue;
        }
        let open_end = more && end == data.len();
        rest = start;
        for len in cut(chunking, &data[start..end], offset + start as u64, open_end) {
            chunks.push(rest..rest + len);
            rest += len;
        }
    }
    (chunks, rest)
}

/// What a class's setting asks of the codec.
#[must_use]
pub fn codec_choice(setting: CodecSetting) -> CodecChoice {
    match setting {
        CodecSetting::None => CodecChoice::None,
        CodecSetting::Auto => CodecChoice::Adaptive,
        CodecSetting::Zstd { level } => CodecChoice::Zstd { level },
    }
}

impl Ingested {
    fn push(&mut self, range: Range<usize>, chunk: Option<ChunkNo>) {
        assert_eq!(self.rest, range.start, "pieces leave no gap");
        self.rest = range.end;
        self.pieces.push(Piece { start: range.start, len: range.len(), chunk });
    }
}

struct Segment {
    range: Range<usize>,
    zero: bool,
}

/// Zero runs and what lies between them. With `more`, a zero run at the end that could still grow
/// is a segment like any other: it will be joined by the next one.
fn segments(data: &[u8], offset: u64, more: bool) -> Vec<Segment> {
    let mut out = Vec::new();
    let mut at = 0;
    for run in zero_runs(data, offset, !more) {
        if at < run.start {
            out.push(Segment { range: at..run.start, zero: false });
        }
        at = run.end;
        out.push(Segment { range: run, zero: true });
    }
    if at < data.len() {
        out.push(Segment { range: at..data.len(), zero: false });
    }
    out
}

/// Lengths of the chunks of one segment, found one by one. With `more`, the last cut is one that
/// would also be made if the segment went on.
fn cut(
    chunking: Chunking,
    data: &[u8],
    offset: u64,
    more: bool,
) -> impl Iterator<Item = usize> + '_ {
    let mut left = data;
    std::iter::from_fn(move || {
        let at = offset + (data.len() - left.len()) as u64;
        let len = match chunking {
            Chunking::Fixed { bytes } => cell_at(u64::from(bytes), at, left.len(), more)?,
            _ if left.is_empty() => return None,
            _ if more && left.len() < chunking.largest() as usize => return None,
            Chunking::MinCdc { min, max, .. } => min_cut(left, min as usize, max as usize),
            Chunking::Cdc { min, avg, max } => {
                Gear::new(min as usize, avg as usize, max as usize).first_cut(left)
            }
        };
        left = &left[len..];
        Some(len)
    })
}

/// What is left of `len` bytes at `offset` in the cell of a grid over the file, so that an
/// overwrite in place touches only its own cells. With `more`, a cell that is cut short is none.
fn cell_at(cell: u64, offset: u64, len: usize, more: bool) -> Option<usize> {
    let whole = usize::try_from(cell - offset % cell).expect("a cell is at most one largest chunk");
    if len == 0 || (more && len < whole) { None } else { Some(whole.min(len)) }
}

/// The first chunk of `data`, which is not empty: it ends behind the four bytes whose hash is the
/// smallest between `min` and `max`. Data that is too short to look that far is one chunk: so only
/// the last one depends on where the data ends.
fn min_cut(data: &[u8], min: usize, max: usize) -> usize {
    let cut = SliceChunker::new(data, min, max, MinCdcHash4::new()).next();
    cut.filter(|_| data.len() >= max).map_or(data.len(), |chunk| chunk.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CDC: Chunking = Chunking::Cdc { min: 4096, avg: 16384, max: 65536 };
    const MIN: Chunking = Chunking::MinCdc { min: 8192, avg: 16384, max: 24576 };

    fn lens(chunking: Chunking, data: &[u8], offset: u64, more: bool) -> Vec<usize> {
        cut(chunking, data, offset, more).collect()
    }

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut x = seed | 1;
        (0..len)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                x.to_le_bytes()[3]
            })
            .collect()
    }

    /// Cutting a stream in two calls gives the cuts of one call.
    #[test]
    fn a_stream_is_cut_like_a_whole() {
        let data = noise(1_000_000, 3);
        for chunking in [CDC, MIN] {
            let whole = lens(chunking, &data, 0, false);
            for at in [1, 20_000, 24_576, 500_000, 999_999] {
                let mut split = lens(chunking, &data[..at], 0, true);
                let rest: usize = split.iter().sum();
                split.extend(lens(chunking, &data[rest..], rest as u64, false));
                assert_eq!(split, whole, "{chunking:?} at {at}");
            }
            assert_eq!(whole.iter().sum::<usize>(), data.len());
        }
    }

    #[test]
    fn fixed_cells_follow_the_file_offset() {
        let cells = |len, offset, more| {
            cut(Chunking::Fixed { bytes: 4096 }, &noise(len, 1), offset, more).collect::<Vec<_>>()
        };
        assert_eq!(cells(10_000, 1000, false), [3096, 4096, 2808]);
        assert_eq!(cells(10_000, 1000, true), [3096, 4096]);
        assert_eq!(cells(8192, 0, true), [4096, 4096]);
    }

    /// Cut points are part of what makes volumes dedup against their own past.
    #[test]
    fn cut_points_are_golden() {
        let lens: Vec<_> = cut(CDC, &noise(200_000, 42), 0, false).collect();
        assert_eq!(lens, GOLDEN_LENS);
    }
    const GOLDEN_LENS: [usize; 11] =
        [12941, 10627, 9460, 19780, 17283, 18842, 35064, 16949, 14127, 13692, 31235];

    /// As above. The vectors hold with and without vector instructions: the crate tests that.
    #[test]
    fn smallest_hashes_are_golden() {
        assert_eq!(lens(MIN, &noise(200_000, 42), 0, false), GOLDEN_MIN_LENS);
        let text: Vec<u8> =
            (0..8_000).flat_map(|n| format!("line {n} of {}\n", n % 7).into_bytes()).collect();
        assert_eq!(lens(MIN, &text, 0, false), GOLDEN_MIN_TEXT_LENS);
    }
    const GOLDEN_MIN_LENS: [usize; 12] =
        [16343, 8332, 22837, 15366, 20161, 18886, 12722, 17739, 18029, 15341, 13679, 20565];
    const GOLDEN_MIN_TEXT_LENS: [usize; 9] =
        [8259, 8298, 8250, 8250, 21657, 13290, 16275, 23355, 11256];

    #[test]
    fn smallest_hashes_keep_their_bounds_and_find_the_same_data_behind_an_insertion() {
        let data = noise(2_000_000, 9);
        let found = lens(MIN, &data, 0, false);
        let (last, whole) = found.split_last().unwrap();
        assert!(whole.iter().all(|len| (8192..=24576).contains(len)) && *last <= 24576);
        assert_eq!(lens(MIN, &data[..24575], 0, false), [24575], "too short to look for a cut");
        assert_eq!(lens(MIN, &[], 0, false), [0; 0]);
        let shifted = [&b"a few bytes in front"[..], &data].concat();
        let ends = |all: &[usize]| -> Vec<usize> {
            let sum = |at: &mut usize, len: &usize| {
                *at += len;
                Some(*at)
            };
            all.iter().scan(0, sum).collect()
        };
        let moved: Vec<usize> =
            ends(&lens(MIN, &shifted, 0, false)).iter().map(|e| e - 20).collect();
        let old = ends(&found);
        let same = old.iter().filter(|end| moved.contains(end)).count();
        assert!(same + 5 > old.len(), "{same} of {} cuts stayed", old.len());
    }

    #[test]
    fn zero_runs_become_segments_of_their_own() {
        let mut data = noise(10_000, 1);
        data.extend(vec![0; 40_000]);
        data.extend(noise(10_000, 2));
        let found: Vec<_> =
            segments(&data, 0, false).into_iter().map(|s| (s.range, s.zero)).collect();
        assert_eq!(found, [(0..12288, false), (12288..49152, true), (49152..60000, false)]);
    }
}
