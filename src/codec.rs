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

/// What to try on new data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodecChoice {
    /// Nothing: the data is compressed already.
    None,
    /// Zstandard at this level.
    Zstd {
        /// 1 is fast; zstd clamps what it does not know.
        level: i32,
    },
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

struct Encoder {
    level: i32,
    compressor: Compressor<'static>,
}

thread_local! {
    // A context is about 1 MB and costs more to set up than a small frame to compress.
    static ENCODER: RefCell<Option<Encoder>> = const { RefCell::new(None) };
    static DECODER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Encodes `raw` as chosen, or leaves it as it is when that saves less than 1/32.
#[must_use]
pub fn encode(choice: CodecChoice, raw: &[u8]) -> Encoded<'_> {
    let compressed = match choice {
        CodecChoice::None => None,
        CodecChoice::Zstd { level } => compress(level, raw),
    };
    match compressed {
        Some(bytes) => Encoded { codec: Codec::Zstd, bytes: Cow::Owned(bytes) },
        None => Encoded { codec: Codec::None, bytes: Cow::Borrowed(raw) },
    }
}

/// `None` if the result does not fit the bound that makes it worth while, or zstd fails: raw bytes
/// are always right.
fn compress(level: i32, raw: &[u8]) -> Option<Vec<u8>> {
    let bound = raw.len() - raw.len().div_ceil(SAVING_SHARE);
    let mut out = Vec::with_capacity(bound);
    ENCODER.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|encoder| encoder.level != level) {
            *slot = Some(Encoder { level, compressor: Compressor::new(level).ok()? });
        }
        slot.as_mut()?.compressor.compress_to_buffer(raw, &mut out).ok()
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
    fn what_is_encoded_decodes() {
        for len in [0, 1, 31, 32, 33, 1000, 100_000, FRAME_RAW_BYTES_MAX as usize] {
            for raw in [vec![7; len], noise(len)] {
                for choice in [CodecChoice::None, ZSTD, CodecChoice::Zstd { level: 5 }] {
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
