//! The memory of append buffers, over all containers that share a budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::direct::{BLOCK, PIECE};

/// Buffer of a container that gets no whole one: a sixteenth of it, so that a container for each of
/// ten classes on each of 256 shards takes 170 MiB and not 2.5 GiB.
const SMALL_PIECE: usize = 64 * 1024;

/// Bounds the buffers of containers that were appended to since their last sync: whole ones while
/// they fit, small ones after.
#[derive(Debug)]
pub struct AppendBudget {
    bound: usize,
    used: AtomicUsize,
}

impl AppendBudget {
    /// With room for `bound` bytes of whole buffers.
    #[must_use]
    pub fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self { bound, used: AtomicUsize::new(0) })
    }

    /// Bytes in use.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// The most that `containers` appended to at a time can use.
    #[must_use]
    pub fn most(&self, containers: usize) -> usize {
        self.bound.saturating_add((SMALL_PIECE + BLOCK).saturating_mul(containers))
    }

    /// Memory for a buffer: a whole one if it fits.
    pub(super) fn take(self: &Arc<Self>) -> Buffer {
        self.take_whole().unwrap_or_else(|| {
            self.used.fetch_add(SMALL_PIECE + BLOCK, Relaxed);
            self.buffer(SMALL_PIECE)
        })
    }

    /// Memory for a whole buffer, if it fits.
    pub(super) fn take_whole(self: &Arc<Self>) -> Option<Buffer> {
        let whole = PIECE + BLOCK;
        let fits = |used: usize| (used + whole <= self.bound).then_some(used + whole);
        let taken = self.used.fetch_update(Relaxed, Relaxed, fits);
        taken.ok().map(|_| self.buffer(PIECE))
    }

    fn buffer(self: &Arc<Self>, piece: usize) -> Buffer {
        let memory = vec![0; piece + BLOCK];
        let skip = memory.as_ptr().align_offset(BLOCK);
        Buffer { memory, skip, piece, budget: Arc::clone(self) }
    }
}

/// Aligned memory that goes back to its budget.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Vec<u8>,
    skip: usize,
    piece: usize,
    budget: Arc<AppendBudget>,
}

impl Buffer {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[self.skip..self.skip + self.piece]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.skip..self.skip + self.piece]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.memory.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{AppendBudget, BLOCK, PIECE, SMALL_PIECE};

    #[test]
    fn whole_buffers_while_they_fit_and_small_ones_after() {
        let budget = AppendBudget::new(2 * (PIECE + BLOCK));
        let buffers: Vec<_> = (0..4).map(|_| budget.take()).collect();
        let sizes: Vec<_> = buffers.iter().map(|buffer| buffer.bytes().len()).collect();
        assert_eq!(sizes, [PIECE, PIECE, SMALL_PIECE, SMALL_PIECE]);
        assert!(
            buffers.iter().all(|buffer| (buffer.bytes().as_ptr() as usize).is_multiple_of(BLOCK))
        );
        assert!(budget.bytes() <= budget.most(2));
        drop(buffers);
        assert_eq!(budget.bytes(), 0);
        assert_eq!(budget.take().bytes().len(), PIECE);
    }
}
