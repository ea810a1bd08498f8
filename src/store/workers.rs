//! Threads that turn jobs into frames: encode, then write to the lane's container.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use super::core::Core;
use super::frame::{FrameDirectory, FrameEntry};
use super::pending::{Job, NewChunk};
use super::rows::{ChunkRow, Health};
use super::writer::{ReadyFrame, Site};
use crate::codec::encode;
use crate::error::{Error, Result};
use crate::types::ContainerId;

/// Starts `count` workers. They end when the queue is closed.
pub(super) fn start(core: &Arc<Core>, count: usize) -> Result<Vec<JoinHandle<()>>> {
    let mut workers = Vec::with_capacity(count);
    for number in 0..count {
        let core_of_worker = Arc::clone(core);
        let builder = std::thread::Builder::new().name(format!("store-{number}"));
        match builder.spawn(move || work(&core_of_worker)) {
            Ok(worker) => workers.push(worker),
            Err(error) => {
                core.queue.close();
                for worker in workers {
                    let _ = worker.join();
                }
                return Err(Error::io("start a thread for", Path::new("the store"), error));
            }
        }
    }
    Ok(workers)
}

fn work(core: &Core) {
    while let Some(job) = core.queue.take() {
        run(core, job);
    }
}

/// Hands a job to the workers. Who meets a full queue does the next job himself: all processors
/// encode then, and with more to do than they can, nobody waits idly.
pub(super) fn submit(core: &Core, mut job: Job) {
    while let Err(back) = core.queue.try_push(job) {
        job = back;
        if let Some(next) = core.queue.take_or_wait() {
            run(core, next);
        }
    }
}

fn run(core: &Core, mut job: Job) {
    let raw_bytes = job.raw_bytes;
    let done = catch_unwind(AssertUnwindSafe(|| store_somewhere(core, &mut job)));
    let done = done.unwrap_or_else(|_| {
        Err(Error::invalid("A worker of the store panicked; see the log, then mount again"))
    });
    if let Err(cause) = done {
        // A full disk loses nothing: the job is kept, and the commit tells.
        let full = matches!(cause, Error::NoSpace { .. });
        let level = if full { log::Level::Debug } else { log::Level::Error };
        log::log!(level, "Frame not written shard={} cause={cause}", job.lane.0);
        core.pending.lock().failed(job, cause);
    }
    core.queue.done(raw_bytes);
    // Taking the lock makes sure that nobody is between his look and his wait.
    let _pending = core.pending.lock();
    core.progress.notify_all();
}

/// Writes the frame of one job; to another shard if its own is gone.
fn store_somewhere(core: &Core, job: &mut Job) -> Result<()> {
    let mut tried = vec![job.lane.0];
    loop {
        let cause = match store(core, job) {
            Err(cause @ Error::ShardMissing { .. }) => cause,
            done => return done,
        };
        let Some(other) = core.detour(&tried) else { return Err(cause) };
        log::warn!("Frame goes elsewhere shard={} instead={other} cause={cause}", job.lane.0);
        tried.push(other);
        job.lane.0 = other;
    }
}

/// Writes the frame of one job.
fn store(core: &Core, job: &Job) -> Result<()> {
    let raw = joined(&job.chunks, job.raw_bytes);
    let payload = encode(job.codec.settle(core.queue.is_pressed(), &raw), &raw);
    let directory = FrameDirectory::new(job.chunks.iter().map(entry).collect(), &payload);
    let head = directory.to_bytes();
    let numbers: Vec<_> = job.chunks.iter().map(|new| new.chunk).collect();
    let frame = ReadyFrame {
        head: &head,
        payload: &payload.bytes,
        padding: directory.padding(),
        raw_len: directory.raw_len,
        chunks: &numbers,
    };
    let shard = core.shard(job.lane.0)?;
    let site = Site {
        shard: &*shard,
        lane: job.lane,
        volume: core.options.volume,
        next_container: &core.next_container,
        container_bytes: core.options.container_bytes,
        faults: &core.faults,
    };
    let writer = core.writer(job.lane);
    let mut writer = writer.lock();
    let placed = writer.append(&site, &frame).map_err(|cause| match shard.probe() {
        Err(gone @ Error::ShardMissing { .. }) => gone,
        _ => cause,
    })?;
    let rows = rows(&directory, placed.container, placed.offset);
    // Still under the writer's lock: a seal takes the bytes and their rows, or neither.
    let stored = core.pending.lock().stored(job, &rows);
    writer.note(stored);
    drop(writer);
    if let Some(full) = placed.full {
        full.finish(&core.faults);
    }
    let stored_bytes = u64::from(directory.frame_len()) + u64::from(directory.padding());
    core.stats.class(job.lane.1).stored_bytes.fetch_add(stored_bytes, Relaxed);
    Ok(())
}

fn joined(chunks: &[NewChunk], raw_bytes: usize) -> Cow<'_, [u8]> {
    if let [only] = chunks {
        return Cow::Borrowed(&only.raw);
    }
    if let Some(raw) = side_by_side(chunks) {
        return Cow::Borrowed(raw);
    }
    let mut raw = Vec::with_capacity(raw_bytes);
    chunks.iter().for_each(|new| raw.extend_from_slice(&new.raw));
    Cow::Owned(raw)
}

/// The bytes of chunks that were cut one after the other from one buffer.
fn side_by_side(chunks: &[NewChunk]) -> Option<&[u8]> {
    let buffer = chunks.first()?.buffer.as_ref()?;
    let place = |new: &NewChunk| {
        let same = new.buffer.as_ref().is_some_and(|other| other.as_ptr() == buffer.as_ptr());
        same.then(|| new.raw.as_ptr().addr().checked_sub(buffer.as_ptr().addr()))?
    };
    let start = place(chunks.first()?)?;
    let next = |end: usize, new: &NewChunk| (place(new)? == end).then_some(end + new.raw.len());
    let end = chunks.iter().try_fold(start, next)?;
    buffer.get(start..end)
}

fn entry(new: &NewChunk) -> FrameEntry {
    let raw_len = u32::try_from(new.raw.len()).expect("put refuses longer chunks");
    FrameEntry { chunk: new.chunk, raw_len, fingerprint: new.fingerprint }
}

fn rows(directory: &FrameDirectory, container: ContainerId, frame_offset: u32) -> Vec<ChunkRow> {
    let mut offset = 0;
    let row = |entry: &FrameEntry| {
        let row = ChunkRow {
            health: Health::Good,
            container,
            frame_offset,
            frame_len: directory.frame_len(),
            offset,
            raw_len: entry.raw_len,
            frame_raw_len: directory.raw_len,
            fingerprint: entry.fingerprint,
        };
        offset += entry.raw_len;
        row
    };
    directory.entries.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn slice(buffer: &Bytes, range: std::ops::Range<usize>) -> NewChunk {
        let raw = buffer.slice(range);
        let fingerprint = crate::types::Fingerprint::of(&raw);
        NewChunk { chunk: crate::types::ChunkNo(1), fingerprint, raw, buffer: Some(buffer.clone()) }
    }

    #[test]
    fn neighbours_in_a_buffer_are_encoded_where_they_are() {
        let buffer = Bytes::from((0..100).collect::<Vec<u8>>());
        let other = Bytes::from((100..200).collect::<Vec<u8>>());
        let near = [slice(&buffer, 10..20), slice(&buffer, 20..35), slice(&buffer, 35..36)];
        let found = side_by_side(&near).unwrap();
        assert_eq!((found, found.as_ptr()), (&buffer[10..36], buffer[10..].as_ptr()));
        let gap = [slice(&buffer, 10..20), slice(&buffer, 21..30)];
        let back = [slice(&buffer, 10..20), slice(&buffer, 0..10)];
        let two = [slice(&buffer, 10..20), slice(&other, 20..30)];
        let copied = NewChunk { buffer: None, ..slice(&buffer, 20..30) };
        for chunks in [gap, back, two, [slice(&buffer, 10..20), copied]] {
            assert_eq!(side_by_side(&chunks), None);
            let whole: Vec<u8> = chunks.iter().flat_map(|new| new.raw.to_vec()).collect();
            assert_eq!(joined(&chunks, whole.len()), whole);
        }
        assert_eq!(side_by_side(&[]), None);
    }
}
