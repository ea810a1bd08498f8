//! Numbers in records: [`crate::cursor`] with reasons, and signed numbers.
//!
//! Signed numbers are zigzag-coded: 0, -1, 1, -2 …
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::cursor::Reader;
pub(super) use crate::cursor::put_varint;

/// Reading fails with what is wrong with the bytes.
pub(super) type Parsed<T> = Result<T, &'static str>;

const SHORT: &str = "it ends too early";

/// Reads a record from its front.
pub(super) struct Cursor<'a>(Reader<'a>);

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(Reader::new(bytes))
    }

    pub(super) fn u8(&mut self) -> Parsed<u8> {
        self.0.u8().ok_or(SHORT)
    }

    pub(super) fn varint(&mut self) -> Parsed<u64> {
        self.0.varint().ok_or("a number is cut, too large or longer than needed")
    }

    pub(super) fn varint_u32(&mut self) -> Parsed<u32> {
        u32::try_from(self.varint()?).map_err(|_| "a number exceeds 32 bits")
    }

    pub(super) fn zigzag(&mut self) -> Parsed<i64> {
        let code = self.varint()?;
        Ok((code >> 1).cast_signed() ^ (code & 1).cast_signed().wrapping_neg())
    }

    /// The next `len` bytes.
    pub(super) fn bytes(&mut self, len: u64) -> Parsed<&'a [u8]> {
        usize::try_from(len).ok().and_then(|len| self.0.bytes(len)).ok_or(SHORT)
    }

    /// The next `N` bytes, for big-endian numbers in keys.
    pub(super) fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        self.0.array().ok_or(SHORT)
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0.rest()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Parsed<()> {
        if self.is_empty() { Ok(()) } else { Err("bytes follow its end") }
    }
}

/// Appends a signed varint.
pub(super) fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

#[cfg(test)]
mod tests {
    use super::{Cursor, put_varint, put_zigzag};

    #[test]
    fn varints_have_these_bytes() {
        let cases: [(u64, &[u8]); 6] = [
            (0, &[0]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (1 << 56, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ];
        for (value, bytes) in cases {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes);
            let mut cursor = Cursor::new(bytes);
            assert_eq!(cursor.varint(), Ok(value));
            assert!(cursor.end().is_ok());
        }
    }

    #[test]
    fn zigzag_keeps_small_numbers_short() {
        let cases = [(0, 1), (-1, 1), (63, 1), (-64, 1), (64, 2), (i64::MIN, 10), (i64::MAX, 10)];
        for (value, len) in cases {
            let mut out = Vec::new();
            put_zigzag(&mut out, value);
            assert_eq!(out.len(), len, "{value}");
            assert_eq!(Cursor::new(&out).zigzag(), Ok(value));
        }
    }

    #[test]
    fn bad_varints_are_refused() {
        let bad: [&[u8]; 6] = [
            &[],
            &[0x80],
            &[0x80, 0],
            &[0xff, 0x80, 0],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0],
        ];
        for bytes in bad {
            assert!(Cursor::new(bytes).varint().is_err(), "{bytes:?}");
        }
        assert!(Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0x10]).varint_u32().is_err());
        assert!(Cursor::new(&[1, 2]).bytes(3).is_err());
        assert!(Cursor::new(&[1, 2]).bytes(u64::MAX).is_err());
        assert!(Cursor::new(&[1, 2]).array::<4>().is_err());
        assert!(Cursor::new(&[1]).end().is_err());
    }
}
