//! Bounds-checked reading and writing of small binary records.
//!
//! Guarantees: never panics and never allocates, whatever the bytes. A reader that met the end
//! answers `None`; the caller says which record was cut. Numbers are little-endian.
//! Does not: know any record.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Most bytes of a varint: ten groups of seven bits hold 64.
pub const VARINT_BYTES_MAX: usize = 10;

/// Reads a record from its front.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of all of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What is not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// True when everything is read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// `value` if everything is read: records refuse trailing bytes with it.
    pub fn finish<T>(&self, value: T) -> Option<T> {
        self.is_empty().then_some(value)
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(u8::from_le_bytes)
    }

    /// The next two bytes as a number.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next four bytes as a number.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes as a number.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// `len` bytes that must be zero.
    pub fn zeros(&mut self, len: usize) -> Option<()> {
        self.bytes(len)?.iter().all(|b| *b == 0).then_some(())
    }

    /// A number in groups of seven bits, lowest first. Only the shortest form is accepted, so that
    /// a value has one encoding.
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for group in 0..u32::try_from(VARINT_BYTES_MAX).ok()? {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            let shift = group.checked_mul(7)?;
            let placed = bits.checked_shl(shift)?;
            if placed.checked_shr(shift)? != bits {
                return None;
            }
            value |= placed;
            if byte & 0x80 == 0 {
                return (byte != 0 || group == 0).then_some(value);
            }
        }
        None
    }

    /// A varint that fits 32 bits.
    pub fn varint_u32(&mut self) -> Option<u32> {
        self.varint().and_then(|v| u32::try_from(v).ok())
    }
}

/// Appends `value` as [`Reader::varint`] reads it.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_one_form() {
        for value in [0, 1, 127, 128, 300, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert!(out.len() <= VARINT_BYTES_MAX);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.varint().and_then(|v| reader.finish(v)), Some(value));
            for cut in 0..out.len() {
                assert_eq!(Reader::new(out.get(..cut).unwrap()).varint(), None);
            }
        }
        assert_eq!(Reader::new(&[0x80, 0x00]).varint(), None, "longer than needed");
        let mut over = [0xff; 10];
        over[9] = 0x02;
        assert_eq!(Reader::new(&over).varint(), None, "65 bits");
        assert_eq!(Reader::new(&[0xff; 11]).varint(), None);
    }

    #[test]
    fn fixed_numbers_are_little_endian_and_bounded() {
        let bytes = [1, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        let mut r = Reader::new(&bytes);
        assert_eq!((r.u8(), r.u16(), r.u32(), r.u64()), (Some(1), Some(2), Some(3), Some(4)));
        assert_eq!(r.finish(()), None);
        assert_eq!(r.bytes(4), None);
        assert_eq!(r.zeros(2), Some(()));
        assert_eq!(r.rest(), &[9]);
        assert_eq!(r.zeros(1), None);
    }
}
