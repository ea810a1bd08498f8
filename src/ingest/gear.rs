//! FastCDC's cut points, four places at a time.
//!
//! The gear hash of a position depends on the 64 bytes before it at most, so places far apart can
//! be looked at independently of each other. One place after the other, each hash waits for the
//! one before; four interleaved chains use the processor instead. The tables, the masks and what
//! counts as a cut are those of `fastcdc::v2020` at its default normalization; a test holds the
//! cuts equal to that crate's.

use std::ops::Range;
use std::sync::LazyLock;

use fastcdc::v2020::{Normalization, get_gear_with_seed, select_masks};

/// Chains at a time: two are half as fast again as one, four twice as fast.
const LANES: usize = 4;
/// Positions of one chain before the next place is looked at; even.
const LANE: usize = 1024;
/// Bytes that can be seen in a hash.
const MEMORY: usize = 64;

/// What each byte adds to the hash, and twice that: a step of two bytes shifts once.
struct Tables {
    once: [u64; 256],
    twice: [u64; 256],
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let (once, twice) = get_gear_with_seed(0);
    Tables {
        once: std::array::from_fn(|byte| once[byte]),
        twice: std::array::from_fn(|byte| twice[byte]),
    }
});

/// Sizes of chunks in bytes, all even, and the masks that go with them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gear {
    min: usize,
    avg: usize,
    max: usize,
    /// Bits that are zero at a cut below the average size: one more than the average asks for.
    early: u64,
    /// The same from the average size on: one less.
    late: u64,
}

impl Gear {
    pub(super) fn new(min: usize, avg: usize, max: usize) -> Self {
        let (early, late) = select_masks(avg, Normalization::Level1);
        Self { min, avg, max, early, late }
    }

    /// Length of the first chunk of `data`: all of it if nothing says otherwise.
    pub(super) fn first_cut(&self, data: &[u8]) -> usize {
        let len = data.len().min(self.max);
        if data.len() <= self.min {
            return len;
        }
        let data = &data[..len];
        // Positions are tested in pairs; a last odd one is none.
        let (center, end) = (self.avg.min(len) & !1, len & !1);
        let tables: &Tables = &TABLES;
        let early = self.find(tables, data, self.min..center, self.early);
        let cut = early.or_else(|| self.find(tables, data, center.max(self.min)..end, self.late));
        cut.unwrap_or(len)
    }

    /// The first of `positions` whose hash has no bit of `mask`.
    fn find(
        &self,
        tables: &Tables,
        data: &[u8],
        positions: Range<usize>,
        mask: u64,
    ) -> Option<usize> {
        let Range { start: mut at, end } = positions;
        while end.saturating_sub(at) >= LANES * LANE {
            if let Some(step) = self.any_in_lanes(tables, data, at, mask) {
                // It is in one of the lanes; an earlier lane may have one further on.
                return (0..LANES).find_map(|lane| {
                    let lane = at + lane * LANE;
                    self.scan(tables, data, lane + step..lane + LANE, mask)
                });
            }
            at += LANES * LANE;
        }
        self.scan(tables, data, at..end, mask)
    }

    /// The first step at which any of the lanes from `at` on has a cut.
    fn any_in_lanes(&self, tables: &Tables, data: &[u8], at: usize, mask: u64) -> Option<usize> {
        let (lanes, _) = data[at..at + LANES * LANE].as_chunks::<LANE>();
        let [lane0, lane1, lane2, lane3] = lanes else { return None };
        let before = |lane: usize| self.hash_before(tables, data, at + lane * LANE);
        let (mut hash0, mut hash1, mut hash2, mut hash3) =
            (before(0), before(1), before(2), before(3));
        let twice = mask << 1;
        let mut step = 0;
        while step < LANE {
            hash0 = (hash0 << 2).wrapping_add(tables.twice[usize::from(lane0[step])]);
            hash1 = (hash1 << 2).wrapping_add(tables.twice[usize::from(lane1[step])]);
            hash2 = (hash2 << 2).wrapping_add(tables.twice[usize::from(lane2[step])]);
            hash3 = (hash3 << 2).wrapping_add(tables.twice[usize::from(lane3[step])]);
            if hash0 & twice == 0 || hash1 & twice == 0 || hash2 & twice == 0 || hash3 & twice == 0
            {
                return Some(step);
            }
            hash0 = hash0.wrapping_add(tables.once[usize::from(lane0[step + 1])]);
            hash1 = hash1.wrapping_add(tables.once[usize::from(lane1[step + 1])]);
            hash2 = hash2.wrapping_add(tables.once[usize::from(lane2[step + 1])]);
            hash3 = hash3.wrapping_add(tables.once[usize::from(lane3[step + 1])]);
            if hash0 & mask == 0 || hash1 & mask == 0 || hash2 & mask == 0 || hash3 & mask == 0 {
                return Some(step);
            }
            step += 2;
        }
        None
    }

    /// As [`Gear::find`], one position after the other.
    fn scan(
        &self,
        tables: &Tables,
        data: &[u8],
        positions: Range<usize>,
        mask: u64,
    ) -> Option<usize> {
        let start = positions.start;
        let mut hash = self.hash_before(tables, data, start);
        let found = data.get(positions)?.iter().position(|byte| {
            hash = next(tables, hash, *byte);
            hash & mask == 0
        });
        found.map(|step| start + step)
    }

    /// The hash of what lies before `at`, from the first byte that is hashed at all.
    fn hash_before(&self, tables: &Tables, data: &[u8], at: usize) -> u64 {
        let from = at.saturating_sub(MEMORY).max(self.min).min(at);
        data[from..at].iter().fold(0, |hash, byte| next(tables, hash, *byte))
    }
}

fn next(tables: &Tables, hash: u64, byte: u8) -> u64 {
    (hash << 1).wrapping_add(tables.once[usize::from(byte)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastcdc::v2020::FastCDC;
    use proptest::prelude::*;

    fn ours(data: &[u8], min: usize, avg: usize, max: usize) -> Vec<usize> {
        let (gear, mut left, mut lens) = (Gear::new(min, avg, max), data, Vec::new());
        while !left.is_empty() {
            let len = gear.first_cut(left);
            lens.push(len);
            left = &left[len..];
        }
        lens
    }

    fn theirs(data: &[u8], min: usize, avg: usize, max: usize) -> Vec<usize> {
        FastCDC::new(data, min, avg, max).map(|chunk| chunk.length).collect()
    }

    fn noise(len: usize, seed: u64, bytes: u64) -> Vec<u8> {
        let mut x = seed | 1;
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            u8::try_from((x >> 24) % bytes).unwrap()
        };
        (0..len).map(|_| next()).collect()
    }

    /// Whatever the sizes and the bytes, also few different ones: what was stored is found again.
    #[test]
    fn cuts_are_those_of_the_crate() {
        for (bits, bytes) in [(9, 256), (12, 256), (14, 256), (16, 256), (18, 256), (14, 3)] {
            let avg = 1 << bits;
            let data = noise(24 * avg + 333, bits + bytes, bytes);
            let (min, max) = ((avg / 4).max(64), (avg * 4).max(1024));
            assert_eq!(ours(&data, min, avg, max), theirs(&data, min, avg, max), "{avg} {bytes}");
            assert_eq!(ours(&data, min, avg, avg), theirs(&data, min, avg, avg), "max is avg");
        }
        let zeros = vec![0; 1_000_000];
        assert_eq!(ours(&zeros, 4096, 16384, 65536), theirs(&zeros, 4096, 16384, 65536));
    }

    proptest! {
        /// The end of the data may lie anywhere.
        #[test]
        fn cuts_are_those_of_the_crate_at_any_length(len in 0usize..40_000, seed: u64, few: bool) {
            let data = noise(len, seed, if few { 2 } else { 256 });
            prop_assert_eq!(ours(&data, 256, 1024, 4096), theirs(&data, 256, 1024, 4096));
            prop_assert_eq!(ours(&data, 4096, 16384, 65536), theirs(&data, 4096, 16384, 65536));
        }
    }
}
