//! The gate, and the one bit per chunk that says it is in use: why gc cannot take what is alive.
//!
//! Every change holds the gate open, from before it learns a chunk's number to after its extents
//! are staged and [`Gate::mark`] was told. So, whenever the gate is closed, no change stands
//! between "this chunk is known" and the extent that says so, and each of these holds:
//!
//! 1. A marking begins with the gate closed ([`Gate::begin`]). From then on each extent that is
//!    staged marks its chunk, whoever makes it: a write, a dedup hit, a copied range.
//! 2. An extent staged before is in the next commit, which the walk waits for. It is met in the
//!    database, live extents first, then old ones; a row that ends moves to `history` in one batch,
//!    so it is met at one place or at the other. A snapshot makes no extent: it keeps those there
//!    are from ending.
//! 3. A container is forgotten with the gate closed ([`Gate::forget_dead`]), if no chunk of it is
//!    marked. Then no extent refers to it, by 1 and 2. None can later: its fingerprints are unknown
//!    from that moment, before the gate opens, so a put of the same bytes stores them anew.
//!
//! Chunks from the horizon on, younger than the marking, are never candidates. A horizon that is
//! too low is safe.
//!
//! This file is also compiled into the tests, with the locks of a scheduler that tries orders
//! (tests/it/races.rs): it may name only what `super` and `super::sync` have there, too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sync::{AtomicU64, Ordering::Relaxed, RwLock, RwLockReadGuard, RwLockWriteGuard};
use super::{ChunkNo, ContainerId};

/// One bit per chunk below the horizon.
#[derive(Debug)]
pub struct Marks {
    bits: Vec<AtomicU64>,
    horizon: ChunkNo,
}

impl Marks {
    fn new(horizon: ChunkNo) -> Self {
        let words = usize::try_from(horizon.0.div_ceil(64)).expect("a bitmap that fits memory");
        Self { bits: (0..words).map(|_| AtomicU64::new(0)).collect(), horizon }
    }

    /// Notes that a chunk is in use.
    pub(super) fn set(&self, chunk: ChunkNo) {
        if chunk < self.horizon {
            // Relaxed: who sets holds the gate open, who decides has closed it.
            self.bits[(chunk.0 / 64) as usize].fetch_or(1 << (chunk.0 % 64), Relaxed);
        }
    }

    /// True if the chunk is in use, or too young to tell.
    #[must_use]
    pub fn is_live(&self, chunk: ChunkNo) -> bool {
        chunk >= self.horizon
            || self.bits[(chunk.0 / 64) as usize].load(Relaxed) & (1 << (chunk.0 % 64)) != 0
    }

    /// First chunk number that is not covered.
    #[must_use]
    pub fn horizon(&self) -> ChunkNo {
        self.horizon
    }

    /// Marked chunks.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.bits.iter().map(|word| u64::from(word.load(Relaxed).count_ones())).sum()
    }

    /// Memory of the bits.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bits.len() as u64 * 8
    }
}

/// A container that may be forgotten, and all chunks that have their place there.
pub(super) struct Candidate {
    pub(super) id: ContainerId,
    pub(super) chunks: Vec<ChunkNo>,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Gate {
    lock: RwLock<()>,
    marks: RwLock<Option<Arc<Marks>>>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { lock: RwLock::new(()), marks: RwLock::new(None) }
    }

    /// For one change: the gate stays open while the result lives.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, ()> {
        self.lock.read()
    }

    /// Closes the gate: no change is under way while the result lives.
    pub(super) fn write(&self) -> RwLockWriteGuard<'_, ()> {
        self.lock.write()
    }

    /// Notes that extents refer to chunks, for a marking that is under way. The caller holds the
    /// gate open since before it learnt the numbers.
    pub(super) fn mark(&self, chunks: impl Iterator<Item = ChunkNo>) {
        if let Some(marks) = &*self.marks.read() {
            chunks.for_each(|chunk| marks.set(chunk));
        }
    }

    /// Begins a marking of the chunks below `horizon`, which were all given out before the call.
    pub(super) fn begin(&self, horizon: ChunkNo) -> Arc<Marks> {
        let marks = Arc::new(Marks::new(horizon));
        let _closed = self.lock.write();
        *self.marks.write() = Some(Arc::clone(&marks));
        marks
    }

    /// Memory of the marking that is under way.
    pub(super) fn marks_bytes(&self) -> u64 {
        self.marks.read().as_ref().map_or(0, |marks| marks.bytes())
    }

    /// Ends the marking.
    pub(super) fn end(&self) {
        *self.marks.write() = None;
    }

    /// Lets `doom` forget the candidates of which no chunk is in use, all under one short closing
    /// of the gate. The walk is over. `doom` may refuse; the answer is what it said, false for
    /// those that are in use, and for how long the gate was closed.
    pub(super) fn forget_dead(
        &self,
        marks: &Marks,
        candidates: Vec<Candidate>,
        mut doom: impl FnMut(Candidate) -> bool,
    ) -> (Vec<bool>, Duration) {
        let _closed = self.lock.write();
        let since = Instant::now();
        let is_dead = |c: &Candidate| !c.chunks.iter().any(|chunk| marks.is_live(*chunk));
        let forgotten = candidates.into_iter().map(|c| is_dead(&c) && doom(c)).collect();
        (forgotten, since.elapsed())
    }
}
