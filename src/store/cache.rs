//! Decoded frames, bounded by their bytes. `lru` lives here.
//!
//! A frame brings neighbours with it: they are found by their numbers, without their rows. A
//! number never changes its bytes, and each chunk is verified before it is given out, so it does
//! not matter whether a row says by now that the chunk lies elsewhere.
//!
//! Readers of one frame wait for the first of them to load it; readers of different frames never
//! wait for each other's IO.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use super::frame::FrameEntry;
use crate::error::Result;
use crate::types::{ChunkNo, ContainerId, Fingerprint};

/// Container and offset of a frame.
pub(super) type FrameKey = (ContainerId, u32);

/// A chunk of a decoded frame.
#[derive(Clone, Debug)]
pub(super) struct FrameChunk {
    pub(super) entry: FrameEntry,
    /// Offset in the decoded frame.
    pub(super) offset: u32,
    /// Do the bytes have the fingerprint of the directory? Found out when somebody wants them.
    good: OnceLock<bool>,
}

/// A decoded frame.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) chunks: Vec<FrameChunk>,
}

/// Memory of a cached frame besides its bytes and chunks: nodes of list and map, the frame itself,
/// and what the allocator adds. Frames of a few bytes are mostly this.
const FRAME_BYTES: usize = 320;

/// Memory of a chunk in it: its entry, and its place in a map that may be half empty.
const CHUNK_BYTES: usize = size_of::<FrameChunk>() + 2 * size_of::<(ChunkNo, (FrameKey, u32))>();

impl Frame {
    /// The directory's lengths add up to the decoded length.
    pub(super) fn new(entries: &[FrameEntry], bytes: Bytes) -> Self {
        let mut offset = 0;
        let place = |entry: &FrameEntry| {
            let chunk = FrameChunk { entry: *entry, offset, good: OnceLock::new() };
            offset += entry.raw_len;
            chunk
        };
        let chunks = entries.iter().map(place).collect();
        Self { bytes, chunks }
    }

    /// The bytes of a chunk of this frame, if they have its fingerprint: that is looked at once.
    pub(super) fn verified(&self, chunk: &FrameChunk) -> Option<Bytes> {
        let from = chunk.offset as usize;
        let bytes = self.bytes.slice(from..from + chunk.entry.raw_len as usize);
        let good = chunk.good.get_or_init(|| Fingerprint::of(&bytes) == chunk.entry.fingerprint);
        good.then_some(bytes)
    }

    fn cost(&self) -> usize {
        FRAME_BYTES + self.bytes.len() + self.chunks.len() * CHUNK_BYTES
    }
}

struct Inner {
    frames: LruCache<FrameKey, Arc<Frame>>,
    /// Frame and place in it of each chunk.
    places: HashMap<ChunkNo, (FrameKey, u32)>,
    bytes: usize,
    loading: HashMap<FrameKey, Arc<Mutex<()>>>,
}

impl Inner {
    fn put(&mut self, key: FrameKey, frame: &Arc<Frame>) {
        self.bytes += frame.cost();
        if let Some(old) = self.frames.put(key, Arc::clone(frame)) {
            self.dropped(key, &old);
        }
        for (place, chunk) in (0..).zip(&frame.chunks) {
            self.places.insert(chunk.entry.chunk, (key, place));
        }
    }

    fn dropped(&mut self, key: FrameKey, old: &Frame) {
        self.bytes -= old.cost();
        for chunk in &old.chunks {
            let number = chunk.entry.chunk;
            if self.places.get(&number).is_some_and(|place| place.0 == key) {
                self.places.remove(&number);
            }
        }
    }
}

pub(super) struct FrameCache {
    limit_bytes: usize,
    inner: Mutex<Inner>,
}

impl FrameCache {
    pub(super) fn new(limit_bytes: usize) -> Self {
        let (places, loading) = Default::default();
        let inner = Inner { frames: LruCache::unbounded(), places, bytes: 0, loading };
        Self { limit_bytes, inner: Mutex::new(inner) }
    }

    /// The verified bytes of a chunk, if a frame that holds it is here.
    pub(super) fn find(&self, chunk: ChunkNo) -> Option<Bytes> {
        let (frame, place) = {
            let mut inner = self.inner.lock();
            let (key, place) = *inner.places.get(&chunk)?;
            (Arc::clone(inner.frames.get(&key)?), place)
        };
        frame.verified(frame.chunks.get(place as usize)?)
    }

    /// The frame, and whether it was there.
    pub(super) fn get_or_load(
        &self,
        key: FrameKey,
        load: impl FnOnce() -> Result<Frame>,
    ) -> Result<(Arc<Frame>, bool)> {
        let gate = {
            let mut inner = self.inner.lock();
            if let Some(frame) = inner.frames.get(&key) {
                return Ok((Arc::clone(frame), true));
            }
            Arc::clone(inner.loading.entry(key).or_default())
        };
        let _loading = gate.lock();
        if let Some(frame) = self.inner.lock().frames.get(&key) {
            return Ok((Arc::clone(frame), true));
        }
        let loaded = load().map(Arc::new);
        let mut inner = self.inner.lock();
        inner.loading.remove(&key);
        let frame = loaded?;
        inner.put(key, &frame);
        while inner.bytes > self.limit_bytes {
            let Some((key, old)) = inner.frames.pop_lru() else { break };
            inner.dropped(key, &old);
        }
        Ok((frame, false))
    }

    /// Bytes of the frames that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }

    /// Drops the frames of a container that is gone.
    pub(super) fn forget(&self, id: ContainerId) {
        let mut inner = self.inner.lock();
        let keys: Vec<FrameKey> =
            inner.frames.iter().map(|(key, _)| *key).filter(|key| key.0 == id).collect();
        for key in keys {
            if let Some(old) = inner.frames.pop(&key) {
                inner.dropped(key, &old);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn frame(len: usize) -> Frame {
        Frame { bytes: vec![1; len].into(), chunks: Vec::new() }
    }

    fn key(n: u32) -> FrameKey {
        (ContainerId(u64::from(n % 2)), n)
    }

    #[test]
    fn it_keeps_what_fits_and_was_used_last() {
        let cache = FrameCache::new(2 * FRAME_BYTES + 250);
        let hit = |n| cache.get_or_load(key(n), || Ok(frame(100))).unwrap().1;
        assert!(!hit(1) && !hit(2) && hit(1));
        assert!(!hit(3), "pushes 2 out");
        assert!(hit(1) && hit(3) && !hit(2));
        assert!(cache.bytes() <= 2 * FRAME_BYTES + 250);
        cache.forget(ContainerId(1));
        assert!(hit(2) && !hit(3));
        assert_eq!(cache.bytes(), 2 * (FRAME_BYTES + 100));
    }

    #[test]
    fn an_error_is_not_kept_and_a_giant_is_not_cached() {
        let cache = FrameCache::new(FRAME_BYTES + 250);
        assert!(cache.get_or_load(key(1), || Err(Error::NotEmpty)).is_err());
        assert!(!cache.get_or_load(key(1), || Ok(frame(300))).unwrap().1);
        assert!(!cache.get_or_load(key(1), || Ok(frame(1))).unwrap().1);
        assert!(cache.inner.lock().loading.is_empty());
        assert_eq!(cache.bytes(), FRAME_BYTES + 1);
    }

    #[test]
    fn readers_of_one_frame_load_it_once() {
        let cache = FrameCache::new(FRAME_BYTES + 1000);
        let loads = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let load = || {
                        loads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Ok(frame(10))
                    };
                    cache.get_or_load(key(1), load).unwrap();
                });
            }
        });
        assert_eq!(loads.into_inner(), 1);
    }
}
