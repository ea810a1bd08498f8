//! Bytes of one file that were written and not yet cut.

use std::collections::BTreeMap;
use std::ops::Range;

/// Memory of a range besides its bytes: its place in the map, and what the allocator adds.
const RANGE_BYTES: usize = 80;
/// A range that grows takes at most this much more than it needs: doubling would make a bound on
/// bytes a bound on half of the memory.
const SPARE_BYTES: usize = 256 * 1024;

/// Most memory that a write of `len` bytes may add.
pub(super) const fn memory_of_write(len: usize) -> usize {
    len + RANGE_BYTES + SPARE_BYTES
}

/// Memory that a new range takes from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    /// Bytes before the range, for what is put under it later.
    pub(super) front: usize,
    /// Bytes in all; fewer than the range needs are none to spare.
    pub(super) bytes: usize,
}

/// Bytes of one range, which may have room before and behind them.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    memory: Vec<u8>,
    /// Where the range begins in `memory`.
    front: usize,
}

impl Run {
    /// `data` with room around it.
    pub(super) fn with_room(data: &[u8], room: Room) -> Self {
        let mut memory = Vec::with_capacity(room.bytes.max(room.front + data.len()));
        memory.resize(room.front, 0);
        memory.extend_from_slice(data);
        Self { memory, front: room.front }
    }

    /// Memory that it takes.
    pub(super) fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// Adds bytes behind.
    pub(super) fn append(&mut self, more: &[u8]) {
        let len = self.len();
        let memory = &mut self.memory;
        if memory.capacity() - memory.len() < more.len() {
            memory.reserve_exact(more.len() + len.min(SPARE_BYTES));
        }
        memory.extend_from_slice(more);
    }

    /// Adds bytes before; moves the others only if there is no room.
    pub(super) fn prepend(&mut self, data: &[u8]) {
        if data.len() > self.front {
            let mut joined =
                Self::with_room(data, Room { front: 0, bytes: data.len() + self.len() });
            joined.append(self);
            *self = joined;
            return;
        }
        self.front -= data.len();
        self.memory[self.front..self.front + data.len()].copy_from_slice(data);
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.front..]
    }

    /// Keeps the first `len` bytes; returns the others.
    fn split_off(&mut self, len: usize) -> Self {
        self.memory.split_off(self.front + len).into()
    }

    /// Keeps the first `len` bytes, and little to spare.
    fn truncate(&mut self, len: usize) {
        self.memory.truncate(self.front + len);
        self.memory.shrink_to(self.memory.len() + SPARE_BYTES);
    }
}

impl std::ops::Deref for Run {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.front..]
    }
}

impl From<Vec<u8>> for Run {
    fn from(memory: Vec<u8>) -> Self {
        Self { memory, front: 0 }
    }
}

/// Ranges of this length and shorter, so many at least, are not parts of streams.
const SCATTERED_BYTES: usize = 32 * 1024;
const SCATTERED_MIN: usize = 16;

/// Dirty ranges of one file: disjoint, and never touching, so a stream is one range.
#[derive(Clone, Debug, Default)]
pub(super) struct DirtyRanges {
    ranges: BTreeMap<u64, Run>,
    bytes: usize,
    memory: usize,
}

impl DirtyRanges {
    /// Buffered bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Memory that takes: many ranges of a few bytes are mostly overhead.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// What was written here and there, a little at each place; 0 for a stream, also for one whose
    /// few bytes have much room. Bytes, with what each place takes.
    pub(super) fn scattered(&self) -> usize {
        let places = self.ranges.len();
        let few = places >= SCATTERED_MIN && self.bytes <= SCATTERED_BYTES * places;
        if few { self.bytes + RANGE_BYTES * places } else { 0 }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Length of the longest range that ends at `end`.
    pub(super) fn run_ending_at(&self, end: u64) -> usize {
        self.ranges.range(..end).next_back().map_or(0, |(start, data)| {
            if start + data.len() as u64 == end { data.len() } else { 0 }
        })
    }

    /// Length of the range that begins at `start`.
    pub(super) fn len_at(&self, start: u64) -> usize {
        self.ranges.get(&start).map_or(0, |run| run.len())
    }

    /// Puts `data` at `offset`, over what is there.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        self.write_with(offset, data, Room::default());
    }

    /// As [`DirtyRanges::write`]. A range that begins with it gets `room`.
    pub(super) fn write_with(&mut self, offset: u64, data: &[u8], room: Room) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len() as u64;
        // The range that begins at or before us, if it reaches us, is extended in place: a stream
        // of writes costs one copy of its bytes.
        let before = match self.ranges.range(..=offset).next_back() {
            Some((&start, old)) if start + old.len() as u64 >= offset => Some(start),
            _ => None,
        };
        let start = before.unwrap_or(offset);
        let mut joined = match before.and_then(|start| self.remove(start)) {
            Some(mut joined) => {
                let at = (offset - start) as usize;
                let overlap = data.len().min(joined.len() - at);
                joined.bytes_mut()[at..at + overlap].copy_from_slice(&data[..overlap]);
                joined.append(&data[overlap..]);
                joined
            }
            None => Run::with_room(data, room),
        };
        // Ranges that begin within us, or where we end, are absorbed.
        let absorbed: Vec<u64> = self.ranges.range(offset + 1..=end).map(|(s, _)| *s).collect();
        for other in absorbed {
            let old = self.remove(other).expect("the key was just listed");
            let known = (start + joined.len() as u64 - other) as usize;
            if let Some(tail) = old.get(known..) {
                joined.append(tail);
            }
        }
        self.insert(start, joined);
    }

    fn remove(&mut self, start: u64) -> Option<Run> {
        let data = self.ranges.remove(&start)?;
        self.bytes -= data.len();
        self.memory -= data.capacity() + RANGE_BYTES;
        Some(data)
    }

    /// Forgets what lies in `range`.
    pub(super) fn discard(&mut self, range: &Range<u64>) {
        let first = self.ranges.range(..range.start).next_back();
        let from = match first {
            Some((&start, data)) if start + data.len() as u64 > range.start => start,
            _ => range.start,
        };
        let hit: Vec<u64> = self.ranges.range(from..range.end).map(|(s, _)| *s).collect();
        for start in hit {
            let mut data = self.remove(start).expect("the key was just listed");
            let end = start + data.len() as u64;
            if end > range.end {
                let tail = data.split_off((range.end - start) as usize);
                self.insert(range.end, tail);
            }
            if start < range.start {
                data.truncate((range.start - start) as usize);
                self.insert(start, data);
            }
        }
    }

    /// Copies what is dirty in the `buf.len()` bytes from `offset` over `buf`.
    pub(super) fn overlay(&self, offset: u64, buf: &mut [u8]) {
        let end = offset + buf.len() as u64;
        let before = self.ranges.range(..offset).next_back();
        for (&start, data) in before.into_iter().chain(self.ranges.range(offset..end)) {
            overlay_piece(start, data, offset, buf);
        }
    }

    /// Puts `data` at `offset` where nothing was written since it was taken. What was written
    /// behind it stays where it is in memory if it has room in front; if nothing was, what comes
    /// gets `room`.
    pub(super) fn write_under(&mut self, offset: u64, data: &[u8], room: Room) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len() as u64;
        let reaching = self
            .ranges
            .range(..offset)
            .next_back()
            .filter(|(start, newer)| **start + newer.len() as u64 >= offset);
        let from = reaching.map_or(offset, |(start, _)| *start);
        let met: Vec<u64> = self.ranges.range(from..=end).map(|(start, _)| *start).collect();
        if met == [end] {
            let mut newer = self.remove(end).expect("the key was just listed");
            newer.prepend(data);
            return self.insert(offset, newer);
        }
        let newer: Vec<_> =
            met.into_iter().filter_map(|start| Some((start, self.remove(start)?))).collect();
        self.write_with(offset, data, room);
        newer.iter().for_each(|(start, newer)| self.write(*start, newer));
    }

    /// Puts all of `older` where nothing was written since it was taken.
    pub(super) fn put_under(&mut self, older: Self) {
        for (start, run) in older.ranges {
            self.write_under(start, &run, Room::default());
        }
    }

    /// True if every byte of the range is dirty.
    pub(super) fn covers(&self, range: &Range<u64>) -> bool {
        self.ranges
            .range(..=range.start)
            .next_back()
            .is_some_and(|(start, data)| start + data.len() as u64 >= range.end)
    }

    /// Start and end of the first dirty range.
    pub(super) fn first(&self) -> Option<Range<u64>> {
        self.ranges.iter().next().map(|(start, data)| *start..start + data.len() as u64)
    }

    /// Start and end of the longest range.
    pub(super) fn longest(&self) -> Option<Range<u64>> {
        let (start, data) = self.ranges.iter().max_by_key(|(_, data)| data.len())?;
        Some(*start..*start + data.len() as u64)
    }

    /// `offset`, if a dirty range has bytes on both sides of it or begins there.
    pub(super) fn range_at(&self, offset: u64) -> Option<u64> {
        let (start, data) = self.ranges.range(..=offset).next_back()?;
        (start + data.len() as u64 > offset).then_some(offset)
    }

    /// Takes the range that begins at `start`.
    pub(super) fn take(&mut self, start: u64) -> Option<Run> {
        self.remove(start)
    }

    /// Takes ranges from the first one on until they take `memory` bytes, one at least.
    pub(super) fn take_first(&mut self, memory: usize) -> Self {
        let mut taken = Self::default();
        while taken.memory < memory
            && let Some(first) = self.first()
            && let Some(run) = self.remove(first.start)
        {
            taken.insert(first.start, run);
        }
        taken
    }

    /// Puts back what [`DirtyRanges::take`] took, or a part of it, unless it was written again.
    pub(super) fn insert(&mut self, start: u64, data: Run) {
        if !data.is_empty() {
            self.bytes += data.len();
            self.memory += data.capacity() + RANGE_BYTES;
            let replaced = self.ranges.insert(start, data);
            assert!(replaced.is_none(), "a range was written twice while it was taken");
        }
    }
}

/// Copies what `data`, which begins at `start`, has of the `buf.len()` bytes from `offset`.
pub(super) fn overlay_piece(start: u64, data: &[u8], offset: u64, buf: &mut [u8]) {
    let from = start.max(offset);
    let to = (start + data.len() as u64).min(offset + buf.len() as u64);
    if from < to {
        let source = &data[(from - start) as usize..(to - start) as usize];
        buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Op {
        Write(u64, Vec<u8>),
        Discard(u64, u64),
        TakeAndPutBack,
        WriteUnder(u64, Vec<u8>),
        /// A write that begins a range with so much room in front, and so much in all.
        WriteWith(u64, Vec<u8>, usize, usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0u64..200, proptest::collection::vec(1u8.., 0..40))
                .prop_map(|(o, d)| Op::Write(o, d)),
            1 => (0u64..200, 0u64..60).prop_map(|(o, l)| Op::Discard(o, o + l)),
            1 => Just(Op::TakeAndPutBack),
            2 => (0u64..200, proptest::collection::vec(1u8.., 0..40))
                .prop_map(|(o, d)| Op::WriteUnder(o, d)),
            2 => (0u64..200, proptest::collection::vec(1u8.., 0..40), 0usize..50, 0usize..150)
                .prop_map(|(o, d, f, b)| Op::WriteWith(o, d, f, b)),
        ]
    }

    #[test]
    fn a_stream_has_little_to_spare_and_small_ranges_are_counted() {
        let mut dirty = DirtyRanges::default();
        for piece in 0..1000 {
            dirty.write(piece * 4096, &[1; 4096]);
            assert!(dirty.memory() <= memory_of_write(dirty.bytes()));
        }
        let mut sparse = DirtyRanges::default();
        (0..1000).for_each(|at| sparse.write(at * 10, &[1]));
        assert_eq!(sparse.bytes(), 1000);
        assert!(sparse.memory() >= 1000 * RANGE_BYTES);
    }

    /// The rest of a stream, in memory with room, is none of these: it must not be cut early.
    #[test]
    fn a_little_at_many_places_is_scattered_and_a_stream_is_not() {
        let mut stream = DirtyRanges::default();
        let room = Room { front: 100_000, bytes: 5_000_000 };
        stream.write_with(0, &[1; 1000], room);
        assert!(stream.memory() >= 5_000_000);
        assert_eq!(stream.scattered(), 0);
        let mut pages = DirtyRanges::default();
        for page in 0..20 {
            assert_eq!(pages.scattered() > 0, page >= 16, "{page} places");
            pages.write(page * 10_000, &[1; 4096]);
        }
        assert_eq!(pages.scattered(), 20 * (4096 + RANGE_BYTES));
        pages.write(1_000_000, &vec![1; 2_000_000]);
        assert_eq!(pages.scattered(), 0, "most of it is a stream");
    }

    #[test]
    fn so_much_is_taken_and_no_more() {
        let mut dirty = DirtyRanges::default();
        (0..20).for_each(|place| dirty.write(place * 10_000, &[1; 4096]));
        let all = dirty.memory();
        let first = dirty.take_first(3 * 4096);
        assert_eq!((first.bytes(), dirty.bytes()), (3 * 4096, 17 * 4096));
        assert_eq!(first.memory() + dirty.memory(), all);
        assert_eq!(dirty.first(), Some(30_000..34_096));
        assert_eq!(dirty.take_first(1).bytes(), 4096, "at least one");
        assert_eq!(dirty.take_first(usize::MAX).bytes(), 16 * 4096);
        assert!(dirty.is_empty() && dirty.take_first(1).is_empty());
    }

    /// The rest of a take, put under what came meanwhile, moves none of it.
    #[test]
    fn a_stream_with_room_stays_where_it_is() {
        let mut dirty = DirtyRanges::default();
        let room = Room { front: 300, bytes: 4000 };
        dirty.write_with(5000, &[1; 1000], room);
        let place = |dirty: &DirtyRanges, at: u64| {
            let (start, run) = dirty.ranges.range(..=at).next_back().unwrap();
            run[(at - start) as usize..].as_ptr()
        };
        let before = place(&dirty, 5000);
        dirty.write_under(4800, &[2; 200], room);
        dirty.write(6000, &[3; 2000]);
        assert_eq!(place(&dirty, 5000), before);
        let taken = dirty.take(4800).unwrap();
        assert_eq!(*taken, [vec![2; 200], vec![1; 1000], vec![3; 2000]].concat());
        // Without newer bytes the rest begins a range that has the room; one that has none moves.
        dirty.write_under(7900, &taken[3100..], room);
        assert_eq!(dirty.memory(), 4000 + RANGE_BYTES);
        dirty.write_under(7000, &[4; 900], room);
        let moved = dirty.take(7000).unwrap();
        assert_eq!(*moved, [vec![4; 900], vec![3; 100]].concat());
    }

    proptest! {
        /// The ranges are a byte array in which 0 means "not dirty".
        #[test]
        fn matches_a_byte_array(ops in proptest::collection::vec(op(), 1..60)) {
            let mut dirty = DirtyRanges::default();
            let mut model = [0u8; 256];
            for op in ops {
                match op {
                    Op::Write(offset, data) => {
                        dirty.write(offset, &data);
                        model[offset as usize..offset as usize + data.len()]
                            .copy_from_slice(&data);
                    }
                    Op::WriteWith(offset, data, front, bytes) => {
                        dirty.write_with(offset, &data, Room { front, bytes });
                        model[offset as usize..offset as usize + data.len()]
                            .copy_from_slice(&data);
                    }
                    Op::WriteUnder(offset, data) => {
                        let room = Room { front: 20, bytes: 100 };
                        dirty.write_under(offset, &data, room);
                        for (byte, old) in model[offset as usize..].iter_mut().zip(data) {
                            *byte = if *byte == 0 { old } else { *byte };
                        }
                    }
                    Op::Discard(from, to) => {
                        dirty.discard(&(from..to));
                        model[from as usize..(to as usize).min(256)].fill(0);
                    }
                    Op::TakeAndPutBack => {
                        if let Some(first) = dirty.first() {
                            let data = dirty.take(first.start).unwrap();
                            dirty.insert(first.start, data);
                        }
                    }
                }
                let mut seen = [0u8; 256];
                dirty.overlay(0, &mut seen);
                prop_assert_eq!(seen, model);
                let count = model.iter().filter(|b| **b != 0).count();
                prop_assert_eq!(dirty.bytes(), count);
                prop_assert_eq!(dirty.is_empty(), count == 0);
                let memory = dirty.ranges.values().map(|d| d.capacity() + RANGE_BYTES);
                prop_assert_eq!(dirty.memory(), memory.sum::<usize>());
                let starts: Vec<_> = dirty.ranges.iter()
                    .map(|(s, d)| (*s, s + d.len() as u64)).collect();
                prop_assert!(starts.windows(2).all(|p| p[0].1 <= p[1].0));
            }
        }
    }
}
