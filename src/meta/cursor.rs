//! Numbers in records: a reader that checks every bound, and the writing functions to match.
//!
//! A varint is LEB128: seven bits per byte, lowest first, the top bit says that more follow. The
//! shortest form is the only valid one. Signed numbers are zigzag-coded first: 0, -1, 1, -2 …
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Reading fails with what is wrong with the bytes.
pub(super) type Parsed<T> = Result<T, &'static str>;

/// Reads a record from its front.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn u8(&mut self) -> Parsed<u8> {
        let (first, rest) = self.rest.split_first().ok_or("it ends too early")?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn varint(&mut self) -> Parsed<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err("a number exceeds 64 bits");
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                let overlong = byte == 0 && shift > 0;
                return if overlong { Err("a number is longer than needed") } else { Ok(value) };
            }
        }
        Err("a number exceeds 64 bits")
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
        let len = usize::try_from(len).map_err(|_| "it ends too early")?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or("it ends too early")?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The next `N` bytes, for big-endian numbers in keys.
    pub(super) fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or("it ends too early")?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Parsed<()> {
        if self.rest.is_empty() { Ok(()) } else { Err("bytes follow its end") }
    }
}

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(0x80 | (value & 0x7f) as u8);
        value >>= 7;
    }
    out.push(value as u8);
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
