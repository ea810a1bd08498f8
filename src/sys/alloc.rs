//! An allocator that counts, for the benches: the work of an operation is seen, not only its time.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The system's allocator, with counts of what Rust code asks it for. What C libraries take is not
/// in them.
#[derive(Debug, Default)]
pub struct CountingAlloc {
    calls: AtomicU64,
    bytes: AtomicU64,
}

impl CountingAlloc {
    /// Nothing counted yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { calls: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Allocations so far, growing ones too, and the bytes they asked for.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.calls.load(Relaxed), self.bytes.load(Relaxed))
    }

    fn count(&self, bytes: usize) {
        self.calls.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }
}

// SAFETY: every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for CountingAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count(layout.size());
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.count(new_size);
        // SAFETY: as above; `ptr` came from the system's allocator.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_allocation_is_counted() {
        let counting = CountingAlloc::new();
        let layout = Layout::from_size_align(100, 8).unwrap();
        // SAFETY: the size is not 0, and what is allocated is given back once.
        unsafe {
            let grown = counting.realloc(counting.alloc(layout), layout, 300);
            counting.dealloc(grown, Layout::from_size_align(300, 8).unwrap());
        }
        assert_eq!(counting.counts(), (2, 400));
    }
}
