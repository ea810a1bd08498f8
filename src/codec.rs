//! Compression of frame payloads. `zstd` lives here and nowhere else.
//!
//! Guarantees: [`decode`] gives back what [`encode`] got, or an error; it never panics and never
//! allocates more than the raw length it was told, at most `FRAME_RAW_BYTES_MAX`.
//! Does not: know what the bytes are, or check that they are the right ones (fingerprints do).

use std::borrow::Cow;
use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::error::{Error, Result};
use crate::limits::FRAME_RAW_BYTES_MAX;

/// How a payload is stored. The tag is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    None = 0,
    /// One Zstandard frame.
    Zstd = 1,
}

impl Codec {
    /// The codec with this on-disk tag, if there is one.
    #[must_use]
    pub fn from_tag(tag: u8) -> Option<Self> {
        Some(match tag {
            0 => Self::None,
            1 => Self::Zstd,
            _ => return None,
        })
    }

    /// The on-disk tag.
    #[must_use]
    pub fn tag(self) -> u8 {
        self as u8
    }
}

/// Level of [`CodecChoice::Adaptive`] while nobody waits: 16 % smaller than level 1 on compiled
/// code and 8 % on sources, in groups of 1 MiB, at two thirds of its speed (docs/DESIGN.md 4.6).
const LEVEL_AT_REST: i32 = 3;
/// Its level while writers wait.
const LEVEL_PRESSED: i32 = 1;

/// What to try on new data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodecChoice {
    /// Nothing: the data is compressed already.
    None,
    /// Zstandard, smaller while there is time and faster while writers wait.
    Adaptive,
    /// Zstandard at this level.
    Zstd {
        /// 1 is fast; zstd clamps what it does not know.
        level: i32,
    },
}

impl CodecChoice {
    /// What to do with `raw` now: `pressed` while writers wait, or soon will.
    #[must_use]
    pub fn settle(self, pressed: bool, raw: &[u8]) -> Self {
        match self {
            Self::Adaptive if !shrinks_in_part(raw) => Self::None,
            Self::Adaptive if pressed => Self::Zstd { level: LEVEL_PRESSED },
            Self::Adaptive => Self::Zstd { level: LEVEL_AT_REST },
            fixed => fixed,
        }
    }
}

/// An encoded payload; borrows the raw bytes when they are stored as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded<'a> {
    /// How.
    pub codec: Codec,
    /// The stored bytes.
    pub bytes: Cow<'a, [u8]>,
}

/// Part of the raw bytes that compression must save, or it is not worth a decoder's time.
const SAVING_SHARE: usize = 32;

/// Contexts of a thread: one for each level that [`CodecChoice::Adaptive`] uses. A context that
/// changes its level after it has refused data keeps the old one.
const ENCODERS_MAX: usize = 2;

struct Encoder {
    level: i32,
    compressor: Compressor<'static>,
}

thread_local! {
    // A context is one or two MB and costs more to set up than a small frame to compress.
    static ENCODERS: RefCell<Vec<Encoder>> = const { RefCell::new(Vec::new()) };
    static DECODER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Encodes `raw` as chosen, or leaves it as it is when that saves less than 1/32.
#[must_use]
pub fn encode(choice: CodecChoice, raw: &[u8]) -> Encoded<'_> {
    let compressed = match choice.settle(false, raw) {
        CodecChoice::Zstd { level } => compress(level, raw),
        _ => None,
    };
    match compressed {
        Some(bytes) => Encoded { codec: Codec::Zstd, bytes: Cow::Owned(bytes) },
        None => Encoded { codec: Codec::None, bytes: Cow::Borrowed(raw) },
    }
}

/// What is tried on a sample: pieces of this many bytes from so many places.
const SAMPLE_PIECE: usize = 1024;
const SAMPLE_PIECES: usize = 16;

/// False if pieces from all over `raw` have all byte values equally often, and do not get smaller
/// together: media, archives, ciphertext. What repeats at a distance only is missed, but that is
/// for deduplication to find. Short data is worth a try as a whole. The idea is that of btrfs'
/// `compress_heuristic` and of early abort in ZFS.
fn shrinks_in_part(raw: &[u8]) -> bool {
    const SAMPLE: usize = SAMPLE_PIECE * SAMPLE_PIECES;
    if raw.len() < 4 * SAMPLE {
        return true;
    }
    let step = raw.len() / SAMPLE_PIECES;
    let mut sample = Vec::with_capacity(SAMPLE);
    for place in raw.chunks_exact(step).take(SAMPLE_PIECES) {
        let piece = &place[..SAMPLE_PIECE];
        if is_skewed(piece) {
            return true;
        }
        sample.extend_from_slice(piece);
    }
    compress_to(LEVEL_PRESSED, &sample, SAMPLE - SAMPLE_PIECE / 8).is_some()
}

/// True if the byte values are so unequally frequent that coding them by frequency may save 1/32:
/// the sum of their squares is a quarter above that of noise, which varies by 2 % in 1 KiB.
fn is_skewed(piece: &[u8]) -> bool {
    let mut counts = [0u64; 256];
    piece.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    let len = piece.len() as u64;
    4 * squares > 5 * (len + len * len / 256)
}

/// `None` if the result does not fit the bound that makes it worth while, or zstd fails: raw bytes
/// are always right.
fn compress(level: i32, raw: &[u8]) -> Option<Vec<u8>> {
    compress_to(level, raw, raw.len() - raw.len().div_ceil(SAVING_SHARE))
}

/// `None` if the result has more than `bound` bytes, or zstd fails.
fn compress_to(level: i32, raw: &[u8], bound: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bound);
    ENCODERS.with_borrow_mut(|encoders| {
        let place = encoders.iter().position(|encoder| encoder.level == level);
        let place = place.or_else(|| {
            encoders.truncate(ENCODERS_MAX - 1);
            encoders.push(Encoder { level, compressor: Compressor::new(level).ok()? });
            Some(encoders.len() - 1)
        })?;
        encoders.get_mut(place)?.compressor.compress_to_buffer(raw, &mut out).ok()
    })?;
    // Capacity may exceed the bound that was asked for.
    (out.len() <= bound).then_some(out)
}

/// The `raw_len` bytes that `stored` stands for.
///
/// # Errors
/// `Corrupt` if `stored` does not decode to exactly `raw_len` bytes.
pub fn decode(codec: Codec, stored: &[u8], raw_len: usize) -> Result<Vec<u8>> {
    let corrupt = |detail: String| Error::corrupt("payload", detail);
    if raw_len > FRAME_RAW_BYTES_MAX as usize {
        return Err(corrupt(format!("{raw_len} raw bytes are more than any frame holds")));
    }
    let raw = match codec {
        Codec::None if stored.len() == raw_len => stored.to_vec(),
        Codec::None => {
            let have = stored.len();
            return Err(corrupt(format!("{have} bytes are stored where {raw_len} were written")));
        }
        Codec::Zstd => decompress(stored, raw_len).map_err(|e| corrupt(e.to_string()))?,
    };
    if raw.len() != raw_len {
        let have = raw.len();
        return Err(corrupt(format!("it decodes to {have} bytes where {raw_len} were written")));
    }
    Ok(raw)
}

fn decompress(stored: &[u8], raw_len: usize) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(raw_len);
    DECODER.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(Decompressor::new()?);
        }
        match slot.as_mut() {
            Some(decoder) => decoder.decompress_to_buffer(stored, &mut out).map(drop),
            None => unreachable!("the slot was filled above"),
        }
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZSTD: CodecChoice = CodecChoice::Zstd { level: 1 };

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .take(len)
        .collect()
    }

    #[test]
    fn a_sample_tells_whether_it_is_worth_a_try() {
        let text: Vec<u8> = (0..60_000).flat_map(|n: u32| n.to_string().into_bytes()).collect();
        let noise = noise(256 * 1024);
        assert!(!shrinks_in_part(&noise));
        assert!(shrinks_in_part(&text));
        assert!(shrinks_in_part(&noise[..63 * 1024]), "short data is tried");
        let again = noise[..512].repeat(512);
        assert!(!is_skewed(&again[..1024]) && shrinks_in_part(&again), "it repeats");
        // A twelfth of it anywhere is seen.
        for at in [0, 100_000, 230_000] {
            let mut mixed = noise.clone();
            mixed[at..at + 22_000].copy_from_slice(&text[..22_000]);
            assert!(shrinks_in_part(&mixed), "text at {at}");
        }
        assert_eq!(CodecChoice::Adaptive.settle(true, &noise), CodecChoice::None);
        assert_eq!(ZSTD.settle(true, &noise), ZSTD, "who asks for a level gets it");
    }

    #[test]
    fn what_is_encoded_decodes() {
        for len in [0, 1, 31, 32, 33, 1000, 100_000, FRAME_RAW_BYTES_MAX as usize] {
            for raw in [vec![7; len], noise(len)] {
                let level5 = CodecChoice::Zstd { level: 5 };
                for choice in [CodecChoice::None, ZSTD, level5, CodecChoice::Adaptive] {
                    let stored = encode(choice, &raw);
                    assert_eq!(decode(stored.codec, &stored.bytes, len).unwrap(), raw);
                }
            }
        }
    }

    #[test]
    fn compression_that_saves_little_is_dropped() {
        assert_eq!(encode(ZSTD, &noise(100_000)).codec, Codec::None);
        assert_eq!(encode(CodecChoice::None, &[0; 1000]).codec, Codec::None);
        let easy = encode(ZSTD, &[0; 100_000]);
        assert_eq!(easy.codec, Codec::Zstd);
        assert!(easy.bytes.len() < 1000);
        // 1/40 of zeros after noise: it shrinks, but not by 1/32.
        let mut mostly = noise(97_500);
        mostly.resize(100_000, 0);
        assert_eq!(encode(ZSTD, &mostly).codec, Codec::None);
    }

    #[test]
    fn what_adapts_is_smaller_at_rest_and_the_fast_level_when_pressed() {
        let words = |n: u32| format!("{} ", n % 977).into_bytes();
        let text: Vec<u8> = (0..20_000).flat_map(words).collect();
        let bytes = |choice| encode(choice, &text).bytes.into_owned();
        let adaptive = CodecChoice::Adaptive;
        assert_eq!(bytes(adaptive.settle(true, &text)), bytes(ZSTD));
        assert_eq!(bytes(adaptive.settle(false, &text)), bytes(adaptive));
        assert_ne!(bytes(adaptive), bytes(ZSTD));
        // A refusal, and a third level, leave nothing behind.
        let (fast, small) = (bytes(ZSTD), bytes(adaptive));
        for level in [1, 2, 3, 9] {
            assert_eq!(encode(CodecChoice::Zstd { level }, &noise(100_000)).codec, Codec::None);
            assert_eq!((bytes(ZSTD), bytes(adaptive)), (fast.clone(), small.clone()));
        }
        assert_eq!(CodecChoice::None.settle(true, &text), CodecChoice::None);
        assert_eq!(ZSTD.settle(false, &text), ZSTD);
    }

    #[test]
    fn wrong_lengths_and_damage_are_errors() {
        let raw = b"strata ".repeat(1000);
        let stored = encode(ZSTD, &raw);
        for len in [0, raw.len() - 1, raw.len() + 1, usize::MAX] {
            assert!(decode(Codec::Zstd, &stored.bytes, len).is_err(), "{len}");
            assert!(decode(Codec::None, &raw, len).is_err(), "{len}");
        }
        assert!(decode(Codec::Zstd, &[], raw.len()).is_err());
        for at in 0..stored.bytes.len() {
            let mut bad = stored.bytes.to_vec();
            bad[at] ^= 0x10;
            // Some flips are harmless to zstd; none may panic or change the length.
            if let Ok(out) = decode(Codec::Zstd, &bad, raw.len()) {
                assert_eq!(out.len(), raw.len());
            }
        }
    }

    #[test]
    fn tags_are_fixed() {
        for (tag, codec) in [(0, Codec::None), (1, Codec::Zstd)] {
            assert_eq!(codec.tag(), tag);
            assert_eq!(Codec::from_tag(tag), Some(codec));
        }
        assert_eq!(Codec::from_tag(2), None);
    }
}
