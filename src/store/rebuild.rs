//! Rebuilding the tables chunk, fingerprint and container from the containers themselves.
//!
//! Frames are the truth, footers say where they are (see `find`). Three questions decide whether a
//! rebuilt row may be trusted:
//!
//! *Was the chunk committed?* A crash leaves frames behind the committed length, and their numbers
//! are given again to other bytes. Such numbers are at or above the next number of the last commit,
//! and no extent refers to one. So everything from that number on is left out; where the counters
//! are lost, the number after the largest that an extent refers to does as well.
//!
//! *Which of two frames with one number?* A number never changes its bytes: a second frame is made
//! when gc moves a chunk or a write heals it, and both happen before the old frame is free to go.
//! The newest (largest container, then offset) wins if it verifies, since the older one may be the
//! damaged one; otherwise the older stays. If their fingerprints differ, which cannot happen, no
//! row is made: an error is better than wrong bytes.
//!
//! *Open or sealed?* One with a footer is sealed. One without and with sound frames is open: it is
//! cut behind the last committed frame and goes on. One that cannot be read to its end is sealed
//! without a footer, so that nothing of it is cut off.
//!
//! Memory: one bit per chunk and about 100 bytes per container. Not rebuilt: which chunks were
//! found damaged, other than by a lost frame header; reading finds them again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::NextIds;
use super::container::{ContainerHeader, HEADER_BYTES, PlacedFrame};
use super::find::{FoundFrames, find_frames};
use super::rows::{
    ChunkRow, ContainerRow, ContainerState, FingerprintRow, Health, chunk_key, container_key,
    parse_key,
};
use crate::codec::decode;
use crate::error::{Error, Result};
use crate::kv::{Batch, KeyRange, Kv, Order, Table};
use crate::limits::{CLASSES_MAX, FRAME_RAW_BYTES_MAX};
use crate::shard::Shard;
use crate::types::{ChunkNo, ClassId, ContainerId, Fingerprint, ShardId, VolumeId};

/// Problems kept one by one; further ones are only counted.
const PROBLEMS_MAX: usize = 1000;
/// Words of a set of chunk numbers: 2^32 numbers, the chunks of 256 TiB at 64 KiB. A larger number
/// is damage, and must not cost memory.
const CHUNK_WORDS_MAX: usize = 1 << 26;
/// Class of a container whose header is damaged and whose row is lost.
const CLASS_UNKNOWN: ClassId = ClassId(0);

/// Committed rows of the container table, as far as they read: lengths and classes.
pub type OldContainers = HashMap<ContainerId, ContainerRow>;

/// The container rows that can be read.
#[must_use]
pub fn old_containers(kv: &dyn Kv) -> OldContainers {
    let rows = kv.scan(Table::Container, &KeyRange::all(), Order::Forward);
    let parsed = rows.map_while(Result::ok).filter_map(|(key, value)| {
        let id = ContainerId(parse_key("container", &key).ok()?);
        Some((id, ContainerRow::parse(id, &value).ok()?))
    });
    parsed.collect()
}

/// What to rebuild from, and into.
pub struct Rebuild<'a> {
    /// The database, with the three tables empty; `None` to look only.
    pub kv: Option<&'a dyn Kv>,
    /// All shards.
    pub shards: Vec<(ShardId, Arc<dyn Shard>)>,
    /// Whose containers count.
    pub volume: VolumeId,
    /// Chunks with this number or a larger one were never committed.
    pub limit: ChunkNo,
    /// What is known of the containers.
    pub old: OldContainers,
}

/// Chunk numbers, one bit each.
#[derive(Debug, Default)]
pub struct ChunkSet(Vec<u64>);

impl ChunkSet {
    /// Adds a number; true if it is new. One beyond every memory is not taken.
    pub fn insert(&mut self, chunk: ChunkNo) -> bool {
        let (at, bit) = (usize::try_from(chunk.0 / 64).unwrap_or(usize::MAX), chunk.0 % 64);
        if at >= self.0.len() {
            if at > CHUNK_WORDS_MAX {
                return false;
            }
            self.0.resize(at + 1, 0);
        }
        let is_new = self.0[at] & (1 << bit) == 0;
        self.0[at] |= 1 << bit;
        is_new
    }

    /// True if it was added.
    #[must_use]
    pub fn contains(&self, chunk: ChunkNo) -> bool {
        let word = usize::try_from(chunk.0 / 64).ok().and_then(|at| self.0.get(at));
        word.is_some_and(|word| word & (1 << (chunk.0 % 64)) != 0)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// Containers that hold committed chunks.
    pub containers: u64,
    /// Chunks that have a place.
    pub chunks: u64,
    /// Of these, chunks whose bytes cannot be read.
    pub unreadable_chunks: u64,
    /// Chunks found at more than one place.
    pub moved_chunks: u64,
    /// Containers that hold nothing that was committed.
    pub leftovers: u64,
    /// Numbers above everything that was found.
    pub next: NextIds,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
    /// Problems beyond these.
    pub more_problems: u64,
    seen: ChunkSet,
    ambiguous: BTreeSet<ChunkNo>,
}

impl Rebuilt {
    /// True if the chunk has a place.
    #[must_use]
    pub fn has(&self, chunk: ChunkNo) -> bool {
        self.seen.contains(chunk) && !self.ambiguous.contains(&chunk)
    }

    /// Notes a problem; the list is bounded.
    pub fn problem(&mut self, text: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text);
        } else {
            self.more_problems += 1;
        }
    }
}

/// A container file, with what its header and its old row say.
struct Source<'a> {
    id: ContainerId,
    shard_id: ShardId,
    shard: &'a dyn Shard,
    class: ClassId,
    len: u64,
    /// Committed bytes, if they are known.
    committed: Option<u64>,
}

/// Scans all containers of all shards and writes what they hold.
///
/// # Errors
/// What the shards say, but for damage; `Kv`.
pub fn rebuild(what: &Rebuild<'_>, progress: &mut dyn FnMut(&str)) -> Result<Rebuilt> {
    let next = NextIds { chunk: what.limit, container: ContainerId(0) };
    let mut out = Rebuilt { next, ..Rebuilt::default() };
    let files = files(what, &mut out)?;
    for (at, (id, shard)) in files.iter().enumerate() {
        progress(&format!("Scanning container {} of {}", at + 1, files.len()));
        out.next.container = out.next.container.max(ContainerId(id.0.saturating_add(1)));
        let (shard_id, shard) = &what.shards[*shard];
        if let Some(source) = source(what, *id, *shard_id, &**shard, &mut out)? {
            let found = find_frames(source.shard, source.id, source.len)?;
            out.container(what, &source, found)?;
        }
    }
    out.drop_ambiguous(what)?;
    Ok(out)
}

/// All container files in the order of their numbers, as indexes of shards. Of two with one number
/// the one that says so itself counts.
fn files(what: &Rebuild<'_>, out: &mut Rebuilt) -> Result<Vec<(ContainerId, usize)>> {
    let mut files = Vec::new();
    for (index, (_, shard)) in what.shards.iter().enumerate() {
        files.extend(shard.list()?.into_iter().map(|id| (id, index)));
    }
    files.sort_unstable();
    let mut kept: Vec<(ContainerId, usize)> = Vec::with_capacity(files.len());
    for (id, index) in files {
        let Some(before) = kept.last_mut().filter(|(other, _)| *other == id) else {
            kept.push((id, index));
            continue;
        };
        let (shard_id, shard) = &what.shards[index];
        out.problem(format!("Container {id} lies on several shards; one of the files is ignored"));
        if header(&**shard, id)?.is_ok_and(|h| h.shard == *shard_id) {
            before.1 = index;
        }
    }
    Ok(kept)
}

type Header = std::result::Result<ContainerHeader, &'static str>;

fn header(shard: &dyn Shard, id: ContainerId) -> Result<Header> {
    let mut bytes = [0; HEADER_BYTES as usize];
    match shard.read_at(id, 0, &mut bytes) {
        Ok(()) => Ok(ContainerHeader::parse(&bytes)),
        Err(Error::Corrupt { .. }) => Ok(Err("it is shorter than a header")),
        Err(other) => Err(other),
    }
}

fn source<'a>(
    what: &Rebuild<'_>,
    id: ContainerId,
    shard_id: ShardId,
    shard: &'a dyn Shard,
    out: &mut Rebuilt,
) -> Result<Option<Source<'a>>> {
    let old = what.old.get(&id).filter(|row| row.shard == shard_id);
    let mut class = old.map_or(CLASS_UNKNOWN, |row| row.class);
    match header(shard, id)? {
        Ok(found) if found.volume != what.volume => {
            out.problem(format!("Container {id} belongs to volume {}; ignored", found.volume));
            return Ok(None);
        }
        Ok(found) => {
            if found.id != id {
                out.problem(format!("Container {id} has the header of container {}", found.id));
            }
            class = found.class;
        }
        Err(flaw) => out.problem(format!("Container {id}: {flaw}")),
    }
    debug_assert!(usize::from(class.0) < CLASSES_MAX, "both parsers check it");
    let len = shard.len(id)?;
    let committed = old.map(|row| row.bytes);
    if let Some(bytes) = committed.filter(|bytes| *bytes > len) {
        out.problem(format!("Container {id} has {len} bytes where {bytes} were committed"));
    }
    Ok(Some(Source { id, shard_id, shard, class, len, committed }))
}

impl Rebuilt {
    fn container(
        &mut self,
        what: &Rebuild<'_>,
        source: &Source<'_>,
        found: FoundFrames,
    ) -> Result<()> {
        let FoundFrames { frames, lost, end, sealed, flaw_at, flaws } = found;
        // What a crash tore lies behind the committed bytes and is no damage.
        let torn = !sealed && flaw_at.zip(source.committed).is_some_and(|(at, len)| at >= len);
        let flaws = if torn { Vec::new() } else { flaws };
        let sound = flaws.is_empty();
        flaws.into_iter().for_each(|flaw| self.problem(flaw));
        let is_committed = |frame: &PlacedFrame| {
            frame.directory.entries.iter().any(|entry| entry.chunk < what.limit)
        };
        if let Some(last) = entries(&frames).chain(entries(&lost)).map(|(_, e)| e.chunk).max() {
            self.next.chunk = self.next.chunk.max(ChunkNo(last.0.saturating_add(1)));
        }
        let last = frames.iter().rposition(is_committed);
        if last.is_none() && !lost.iter().any(is_committed) {
            self.leftovers += 1;
            return Ok(());
        }
        // Behind the last committed frame an open container holds what a crash left.
        let is_open = !sealed && sound;
        let counted = if is_open { last.map_or(0, |last| last + 1) } else { frames.len() };
        let counted: Vec<&PlacedFrame> = frames.iter().take(counted).chain(&lost).collect();
        let bytes = match counted.last() {
            Some(last) if is_open => frame_end(last),
            _ => source.len.max(end),
        };
        let mut batch = Batch::default();
        let row = container_row(source, is_open, bytes, &counted);
        batch.put(Table::Container, container_key(source.id), row.to_bytes());
        for (frame, health) in frames
            .iter()
            .map(|frame| (frame, Health::Good))
            .chain(lost.iter().map(|frame| (frame, Health::Bad)))
        {
            self.frame(what, source, (frame, health), &mut batch)?;
        }
        self.containers += 1;
        write(what, batch)
    }

    fn frame(
        &mut self,
        what: &Rebuild<'_>,
        source: &Source<'_>,
        (frame, health): (&PlacedFrame, Health),
        batch: &mut Batch,
    ) -> Result<()> {
        let mut offset = 0;
        for entry in &frame.directory.entries {
            let row = ChunkRow {
                health,
                container: source.id,
                frame_offset: frame.offset,
                frame_len: frame.directory.frame_len(),
                offset,
                raw_len: entry.raw_len,
                frame_raw_len: frame.directory.raw_len,
                fingerprint: entry.fingerprint,
            };
            offset += entry.raw_len;
            if entry.chunk >= what.limit {
                continue;
            }
            if self.has(entry.chunk) || self.ambiguous.contains(&entry.chunk) {
                self.moved_chunks += 1;
                write(what, std::mem::take(batch))?;
                self.second_place(what, source, frame, (entry.chunk, &row))?;
                continue;
            }
            self.seen.insert(entry.chunk);
            self.chunks += 1;
            self.unreadable_chunks += u64::from(health == Health::Bad);
            put(batch, entry.chunk, &row);
        }
        Ok(())
    }

    /// A chunk that has a place already was found at another, newer one.
    fn second_place(
        &mut self,
        what: &Rebuild<'_>,
        source: &Source<'_>,
        frame: &PlacedFrame,
        (chunk, row): (ChunkNo, &ChunkRow),
    ) -> Result<()> {
        let Some(kv) = what.kv else { return Ok(()) };
        let before = kv.get(Table::Chunk, &chunk_key(chunk))?;
        let before = before.map(|bytes| ChunkRow::parse(chunk, &bytes)).transpose()?;
        let Some(before) = before else { return Ok(()) };
        if before.fingerprint != row.fingerprint {
            self.problem(format!(
                "Chunk {chunk} is there with different bytes in containers {} and {}; neither is \
                 used",
                before.container, row.container
            ));
            self.ambiguous.insert(chunk);
            let mut batch = Batch::default();
            for fingerprint in [before.fingerprint, row.fingerprint] {
                batch.delete(Table::Fingerprint, fingerprint.0);
            }
            return write(what, batch);
        }
        let good = row.health == Health::Good && verifies(source, frame, row)?;
        if !good && before.health == Health::Good {
            return Ok(());
        }
        let mut batch = Batch::default();
        put(&mut batch, chunk, row);
        self.unreadable_chunks -= u64::from(before.health == Health::Bad);
        self.unreadable_chunks += u64::from(row.health == Health::Bad);
        write(what, batch)
    }

    fn drop_ambiguous(&mut self, what: &Rebuild<'_>) -> Result<()> {
        let mut batch = Batch::default();
        for chunk in &self.ambiguous {
            batch.delete(Table::Chunk, chunk_key(*chunk));
            batch.delete(Table::Damaged, chunk_key(*chunk));
        }
        self.chunks -= self.ambiguous.len() as u64;
        write(what, batch)
    }
}

fn entries(
    frames: &[PlacedFrame],
) -> impl Iterator<Item = (&PlacedFrame, &super::frame::FrameEntry)> {
    frames.iter().flat_map(|frame| frame.directory.entries.iter().map(move |e| (frame, e)))
}

fn frame_end(frame: &PlacedFrame) -> u64 {
    let directory = &frame.directory;
    u64::from(frame.offset) + u64::from(directory.frame_len()) + u64::from(directory.padding())
}

fn container_row(
    source: &Source<'_>,
    is_open: bool,
    bytes: u64,
    frames: &[&PlacedFrame],
) -> ContainerRow {
    let chunks = || frames.iter().flat_map(|f| &f.directory.entries).map(|e| e.chunk);
    ContainerRow {
        state: if is_open { ContainerState::Open } else { ContainerState::Sealed },
        class: source.class,
        shard: source.shard_id,
        bytes,
        chunks: chunks().count() as u64,
        raw_bytes: frames.iter().map(|f| u64::from(f.directory.raw_len)).sum(),
        stored_bytes: frames.iter().map(|f| frame_end(f) - u64::from(f.offset)).sum(),
        first: chunks().min().unwrap_or(ChunkNo(u64::MAX)),
        last: chunks().max().unwrap_or(ChunkNo(0)),
    }
}

fn put(batch: &mut Batch, chunk: ChunkNo, row: &ChunkRow) {
    batch.put(Table::Chunk, chunk_key(chunk), row.to_bytes());
    let leads = FingerprintRow { health: row.health, chunk };
    batch.put(Table::Fingerprint, row.fingerprint.0, leads.to_bytes());
    match row.health {
        Health::Bad => batch.put(Table::Damaged, chunk_key(chunk), Vec::new()),
        Health::Good => batch.delete(Table::Damaged, chunk_key(chunk)),
    }
}

fn write(what: &Rebuild<'_>, batch: Batch) -> Result<()> {
    match what.kv {
        Some(kv) if !batch.changes.is_empty() => kv.write(batch),
        _ => Ok(()),
    }
}

/// True if the bytes at this place have the fingerprint.
fn verifies(source: &Source<'_>, frame: &PlacedFrame, row: &ChunkRow) -> Result<bool> {
    let directory = &frame.directory;
    let mut payload = vec![0; directory.stored_len.min(FRAME_RAW_BYTES_MAX) as usize];
    let at = u64::from(frame.offset) + u64::from(directory.head_len());
    match source.shard.read_at(source.id, at, &mut payload) {
        Err(Error::Corrupt { .. }) => return Ok(false),
        other => other?,
    }
    let raw = decode(directory.codec, &payload, directory.raw_len as usize);
    let start = row.offset as usize;
    let chunk =
        raw.ok().and_then(|raw| raw.get(start..start + row.raw_len as usize).map(Fingerprint::of));
    Ok(chunk == Some(row.fingerprint))
}
