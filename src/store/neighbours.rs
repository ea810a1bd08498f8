//! Fingerprints of the chunks behind those that were found: known data mostly comes back in the
//! order in which it was first written, and chunk numbers follow that order.
//!
//! A look into table `fingerprint` reads a block at a random place. When two hits of a stream lie
//! close to each other by number, the rows behind the second are loaded by one scan of table
//! `chunk`, twice as many each time the stream goes on. Hits at random places load nothing.
//!
//! Guarantees: what it finds was committed as good and has not been taken back. A commit that
//! deletes rows of chunks or marks some bad empties it; rows read before a commit are not taken
//! after it; what is going and not committed is known to [`super::pending`], under whose lock this
//! is. Memory is bounded. Does not: know whether a chunk's shard is away.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering::Relaxed;

use super::core::Core;
use super::rows::Health;
use crate::error::Result;
use crate::types::{ChunkNo, Fingerprint};

/// Entries of each half: seven eighths of 32 Ki places, where the map would grow.
const ENTRIES_MAX: usize = 28 * 1024;
/// Memory of both halves: an entry and a byte for each place.
const MEMORY_BYTES_MAX: usize = 2 * 32 * 1024 * (size_of::<(Fingerprint, ChunkNo)>() + 1);
/// Streams told from each other: files that are written at the same time, and places in one file.
const STREAMS: usize = 16;
/// A hit so many numbers behind the last row that was loaded is of the same stream.
const NEAR: u64 = 64;
/// Rows of the first scan, and the most: half a millisecond.
const ROWS_MIN: u64 = 64;
const ROWS_MAX: u64 = 1024;

/// Known data that is coming in.
#[derive(Debug)]
struct Stream {
    /// The number behind the last hit, or behind the last row that was loaded.
    next: u64,
    /// Rows loaded last.
    rows: u64,
}

#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// Two halves: when the young one is full, the old one is emptied and becomes the young one.
    young: HashMap<Fingerprint, ChunkNo>,
    old: HashMap<Fingerprint, ChunkNo>,
    streams: VecDeque<Stream>,
}

impl Neighbours {
    /// Bytes it can have.
    pub(super) const BOUND: usize = MEMORY_BYTES_MAX;

    /// The chunk with these bytes, if it was loaded.
    pub(super) fn find(&mut self, fingerprint: &Fingerprint) -> Option<ChunkNo> {
        if let Some(chunk) = self.young.get(fingerprint) {
            return Some(*chunk);
        }
        let chunk = self.old.remove(fingerprint)?;
        self.insert(*fingerprint, chunk);
        Some(chunk)
    }

    /// Hears of a chunk that table `fingerprint` knew; says which rows to load because of it.
    fn note_hit(&mut self, hit: ChunkNo) -> Option<RangeInclusive<ChunkNo>> {
        let next = hit.0.saturating_add(1);
        let near = |s: &Stream| (s.next..=s.next.saturating_add(NEAR)).contains(&hit.0);
        let known = self.streams.iter().position(near).and_then(|at| self.streams.remove(at));
        if self.streams.len() == STREAMS {
            self.streams.pop_front();
        }
        let Some(known) = known else {
            self.streams.push_back(Stream { next, rows: 0 });
            return None;
        };
        let rows = (2 * known.rows).clamp(ROWS_MIN, ROWS_MAX);
        let end = next.saturating_add(rows);
        self.streams.push_back(Stream { next: end, rows });
        Some(hit..=ChunkNo(end.saturating_sub(1)))
    }

    fn insert(&mut self, fingerprint: Fingerprint, chunk: ChunkNo) {
        if self.young.len() >= ENTRIES_MAX {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        if self.young.capacity() == 0 {
            self.young.reserve(ENTRIES_MAX);
        }
        self.young.insert(fingerprint, chunk);
    }

    /// Forgets everything: rows it may have seen are gone, or bad.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// Bytes of its entries and of the places kept for more.
    pub(super) fn bytes(&self) -> usize {
        let entries = self.young.capacity() + self.old.capacity();
        entries / 7 * 8 * (size_of::<(Fingerprint, ChunkNo)>() + 1)
    }
}

impl Core {
    /// Table `fingerprint` knew this chunk: loads those behind it, if others of its stream came
    /// before. What cannot be read is left out: this only saves looking.
    pub(super) fn load_neighbours(&self, hit: ChunkNo) {
        let (range, commits) = {
            let mut pending = self.pending.lock();
            let Some(range) = pending.neighbours.note_hit(hit) else { return };
            (range, pending.commits)
        };
        self.stats.activity.index_scans.fetch_add(1, Relaxed);
        let rows = match self.good_chunks(range) {
            Ok(rows) => rows,
            Err(cause) => {
                log::debug!("Rows behind a known chunk not readable chunk={hit} cause={cause}");
                return;
            }
        };
        self.take_neighbours(rows, commits);
    }

    /// Takes rows that were read after so many `commits`, unless there was one since.
    pub(super) fn take_neighbours(&self, rows: Vec<(Fingerprint, ChunkNo)>, commits: u64) {
        let mut pending = self.pending.lock();
        if pending.commits == commits {
            for (fingerprint, chunk) in rows {
                pending.neighbours.insert(fingerprint, chunk);
            }
        }
    }

    /// Fingerprints of committed chunks that are good.
    pub(super) fn good_chunks(
        &self,
        range: RangeInclusive<ChunkNo>,
    ) -> Result<Vec<(Fingerprint, ChunkNo)>> {
        let mut found = Vec::new();
        for row in self.chunk_rows(*range.start(), Some(*range.end()))? {
            let (chunk, row) = row?;
            if row.health == Health::Good {
                found.push((row.fingerprint, chunk));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(number: u64) -> Fingerprint {
        Fingerprint::of(&number.to_le_bytes())
    }

    #[test]
    fn a_stream_loads_more_and_more_and_random_hits_load_nothing() {
        let mut t = Neighbours::default();
        let mut rows = |hit| {
            let range = t.note_hit(ChunkNo(hit))?;
            Some((range.start().0, range.end().0 - range.start().0))
        };
        assert_eq!(rows(1000), None);
        assert_eq!(rows(5), None);
        assert_eq!(rows(1003), Some((1003, 64)));
        assert_eq!(rows(6), Some((6, 64)));
        assert_eq!(rows(1068), Some((1068, 128)), "another stream came between");
        for (at, loaded) in [(1197, 256), (1454, 512), (1967, 1024), (2992, 1024)] {
            assert_eq!(rows(at), Some((at, loaded)));
        }
        for hit in 1..1000 {
            assert_eq!(rows(10_000 + 1000 * hit), None);
        }
        assert_eq!(rows(u64::MAX), None, "the last number is none to begin from");
        assert!(t.streams.len() <= STREAMS);
    }

    #[test]
    fn it_keeps_what_was_used_last_within_its_bound() {
        let mut t = Neighbours::default();
        assert_eq!(t.bytes(), 0);
        for number in 0..10 * ENTRIES_MAX as u64 {
            t.insert(fingerprint(number), ChunkNo(number));
            assert_eq!(t.find(&fingerprint(7)), (number >= 7).then_some(ChunkNo(7)));
        }
        assert!(t.bytes() <= Neighbours::BOUND && t.bytes() > Neighbours::BOUND / 2);
        let last = 10 * ENTRIES_MAX as u64 - 1;
        let mut kept = |back: usize| t.find(&fingerprint(last - back as u64)).is_some();
        assert!(kept(0) && kept(ENTRIES_MAX - 100) && !kept(2 * ENTRIES_MAX));
        t.clear();
        assert_eq!(t.find(&fingerprint(last)), None);
        assert!(t.bytes() <= Neighbours::BOUND);
    }
}
