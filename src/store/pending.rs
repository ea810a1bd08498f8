//! What is not committed yet: new chunks, open groups, doomed containers, the first failure.
//!
//! One lock guards it all. Nothing under it touches a disk or the database, and no other lock of
//! the store is taken while it is held.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use super::ledger::ScrubRow;
use super::neighbours::Neighbours;
use super::rows::{ChunkRow, ContainerRow, FingerprintRow, Health};
use super::{NextIds, PutHint};
use crate::codec::CodecChoice;
use crate::error::Error;
use crate::limits::{FRAME_CHUNKS_MAX, FRAME_RAW_BYTES_MAX};
use crate::types::{ChunkNo, ClassId, ContainerId, Fingerprint, ShardId};

/// Damaged chunks remembered until the next commit. Damage beyond it is found again later; the
/// bound keeps a rotten disk from filling memory.
const BAD_CHUNKS_MAX: usize = 100_000;
/// Spare room of the maps after a commit, in entries: below it shrinking is not worth the copy.
const SPARE_ENTRIES: usize = 16 * 1024;

/// Memory of a chunk until its commit, without its bytes: its places in the two maps, which are
/// half empty at worst, and its row, waiting in a writer's list that grows by doubling.
const CHUNK_BYTES: usize = 2
    * (size_of::<(ChunkNo, Entry)>()
        + size_of::<(Fingerprint, ChunkNo)>()
        + size_of::<StoredChunk>());
/// The same of a chunk of a doomed container: in a list, in the set, and what the commit deletes.
const DOOMED_BYTES: usize =
    2 * (size_of::<ChunkNo>() + size_of::<ChunkNo>() + size_of::<(ChunkNo, Option<Fingerprint>)>());

/// Memory of what is not committed yet; readable without the lock.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Rows to be written: chunks and doomed chunks.
    rows: AtomicUsize,
    /// Raw bytes in open groups.
    groups: AtomicUsize,
}

impl Load {
    pub(super) fn rows_bytes(&self) -> usize {
        self.rows.load(Relaxed)
    }

    pub(super) fn group_bytes(&self) -> usize {
        self.groups.load(Relaxed)
    }
}

/// Where new chunks of one kind go: a container of one shard and one class.
pub(super) type Lane = (ShardId, ClassId);

/// Where an uncommitted chunk is.
#[derive(Clone, Debug)]
pub(super) enum Spot {
    /// In memory: in an open group or on its way to a container.
    Waiting { raw: Bytes, lane: Lane },
    /// In a container's file. Of two rows of one chunk the one with the higher stamp is newer.
    Stored { row: ChunkRow, lane: Lane, stamp: u64 },
}

#[derive(Clone, Debug)]
pub(super) struct NewChunk {
    pub(super) chunk: ChunkNo,
    pub(super) fingerprint: Fingerprint,
    pub(super) raw: Bytes,
    /// What `raw` is a slice of, if all of that is kept.
    pub(super) buffer: Option<Bytes>,
}

/// Chunks that become one frame.
#[derive(Debug)]
pub(super) struct Job {
    /// Rising; [`Pending::outstanding`] has it until the frame is written.
    pub(super) ticket: u64,
    pub(super) lane: Lane,
    pub(super) codec: CodecChoice,
    pub(super) chunks: Vec<NewChunk>,
    pub(super) raw_bytes: usize,
}

#[derive(Debug)]
struct Group {
    codec: CodecChoice,
    chunks: Vec<NewChunk>,
    raw_bytes: usize,
}

/// What a put finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The chunk is there.
    Yes(ChunkNo),
    /// It is there and bad: store the bytes anew under this number.
    Bad(ChunkNo),
    /// It is not there.
    No,
}

/// A row that a writer has made since the last seal.
#[derive(Clone, Debug)]
pub(super) struct StoredChunk {
    pub(super) chunk: ChunkNo,
    pub(super) row: ChunkRow,
    pub(super) stamp: u64,
}

#[derive(Debug)]
struct Entry {
    fingerprint: Fingerprint,
    spot: Spot,
}

/// A container that is to be forgotten.
#[derive(Debug)]
struct Doom {
    chunks: Vec<ChunkNo>,
    /// It was doomed in the txg that is being committed, or before: the next batch carries it.
    due: bool,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    next_chunk: u64,
    next_ticket: u64,
    next_stamp: u64,
    /// Commits so far: tells a put that what it read from the database may be old.
    pub(super) commits: u64,
    /// Raw bytes of waiting chunks.
    pub(super) waiting_bytes: usize,
    chunks: HashMap<ChunkNo, Entry>,
    by_fingerprint: HashMap<Fingerprint, ChunkNo>,
    /// Committed chunks that are likely to come next.
    pub(super) neighbours: Neighbours,
    groups: HashMap<Lane, Group>,
    /// Raw bytes that all groups may have together.
    groups_max: usize,
    load: Arc<Load>,
    outstanding: BTreeSet<u64>,
    doomed: HashMap<ContainerId, Doom>,
    doomed_chunks: HashSet<ChunkNo>,
    /// Found bad at this place, not yet recorded in the database.
    pub(super) bad: HashMap<ChunkNo, ChunkRow>,
    /// Recorded as bad and found good at this place.
    pub(super) good: HashMap<ChunkNo, ChunkRow>,
    /// Verifications not yet recorded in the database.
    pub(super) verified: HashMap<ContainerId, ScrubRow>,
    /// Container rows that recovery corrected.
    pub(super) corrected: Vec<(ContainerId, ContainerRow)>,
    /// First cause that new chunks cannot be stored.
    pub(super) failure: Option<Error>,
    /// Jobs that failed; [`Pending::retry`] takes them up again.
    stuck: Vec<Job>,
}

impl Pending {
    pub(super) fn new(next: NextIds, groups_max: usize) -> Self {
        Self { next_chunk: next.chunk.0, groups_max, ..Self::default() }
    }

    pub(super) fn load(&self) -> Arc<Load> {
        Arc::clone(&self.load)
    }

    fn note_rows(&self) {
        let doomed = DOOMED_BYTES * self.doomed_chunks.len();
        self.load.rows.store(CHUNK_BYTES * self.chunks.len() + doomed, Relaxed);
    }

    pub(super) fn next_chunk(&self) -> ChunkNo {
        ChunkNo(self.next_chunk)
    }

    /// Is `fingerprint` known? `row` is what the database says, if it was asked.
    pub(super) fn known(&self, fingerprint: &Fingerprint, row: Option<FingerprintRow>) -> Known {
        if let Some(chunk) = self.by_fingerprint.get(fingerprint) {
            return self.judge(*chunk, Health::Good);
        }
        match row {
            Some(row) if !self.doomed_chunks.contains(&row.chunk) => {
                self.judge(row.chunk, row.health)
            }
            _ => Known::No,
        }
    }

    /// As [`Pending::known`], of committed chunks near those that were found before.
    pub(super) fn known_nearby(&mut self, fingerprint: &Fingerprint) -> Known {
        let chunk = self.neighbours.find(fingerprint);
        let row = chunk.map(|chunk| FingerprintRow { health: Health::Good, chunk });
        self.known(fingerprint, row)
    }

    fn judge(&self, chunk: ChunkNo, health: Health) -> Known {
        if health == Health::Bad || self.bad.contains_key(&chunk) {
            Known::Bad(chunk)
        } else {
            Known::Yes(chunk)
        }
    }

    pub(super) fn spot(&self, chunk: ChunkNo) -> Option<Spot> {
        self.chunks.get(&chunk).map(|entry| entry.spot.clone())
    }

    pub(super) fn contains(&self, chunk: ChunkNo) -> bool {
        self.chunks.contains_key(&chunk)
    }

    /// True if the database knows everything.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
            && self.doomed.is_empty()
            && self.bad.is_empty()
            && self.good.is_empty()
            && self.verified.is_empty()
            && self.corrected.is_empty()
    }

    pub(super) fn take_number(&mut self) -> ChunkNo {
        let chunk = self.next_chunk();
        self.next_chunk += 1;
        chunk
    }

    /// Never gives `chunk` or a smaller number.
    pub(super) fn skip_number(&mut self, chunk: ChunkNo) {
        self.next_chunk = self.next_chunk.max(chunk.0.saturating_add(1));
    }

    /// Adds a chunk; returns the groups this closed, ready for a worker.
    pub(super) fn add(&mut self, new: NewChunk, hint: PutHint) -> Vec<Job> {
        let lane = (hint.shard, hint.class);
        let len = new.raw.len();
        self.waiting_bytes += len;
        self.bad.remove(&new.chunk);
        self.good.remove(&new.chunk);
        let spot = Spot::Waiting { raw: new.raw.clone(), lane };
        self.chunks.insert(new.chunk, Entry { fingerprint: new.fingerprint, spot });
        self.by_fingerprint.insert(new.fingerprint, new.chunk);
        self.note_rows();

        let mut jobs = Vec::new();
        let group_bytes = hint.group_bytes as usize;
        if len >= group_bytes / 2 {
            let group = Group { codec: hint.codec, chunks: vec![new], raw_bytes: len };
            jobs.push(self.job(lane, group));
            return jobs;
        }
        let fits = |group: &Group| {
            group.codec == hint.codec && group.raw_bytes + len <= FRAME_RAW_BYTES_MAX as usize
        };
        if self.groups.get(&lane).is_some_and(|group| !fits(group)) {
            jobs.extend(self.close_group(lane));
        }
        let empty = || Group { codec: hint.codec, chunks: Vec::new(), raw_bytes: 0 };
        let group = self.groups.entry(lane).or_insert_with(empty);
        group.raw_bytes += len;
        group.chunks.push(new);
        self.load.groups.fetch_add(len, Relaxed);
        let full =
            group.raw_bytes >= group_bytes || group.chunks.len() >= FRAME_CHUNKS_MAX as usize;
        if full {
            jobs.extend(self.close_group(lane));
        }
        // Every class on every shard may have a group open: together they are bounded, too.
        while self.load.group_bytes() > self.groups_max {
            let largest = self.groups.iter().max_by_key(|(_, group)| group.raw_bytes);
            let Some(lane) = largest.map(|(lane, _)| *lane) else { break };
            jobs.extend(self.close_group(lane));
        }
        jobs
    }

    fn close_group(&mut self, lane: Lane) -> Option<Job> {
        let group = self.groups.remove(&lane)?;
        self.load.groups.fetch_sub(group.raw_bytes, Relaxed);
        Some(self.job(lane, group))
    }

    fn job(&mut self, lane: Lane, group: Group) -> Job {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.outstanding.insert(ticket);
        let Group { codec, chunks, raw_bytes } = group;
        Job { ticket, lane, codec, chunks, raw_bytes }
    }

    /// Closes all groups.
    pub(super) fn close_groups(&mut self) -> Vec<Job> {
        let lanes: Vec<Lane> = self.groups.keys().copied().collect();
        lanes.into_iter().filter_map(|lane| self.close_group(lane)).collect()
    }

    /// All tickets below it were given before now.
    pub(super) fn horizon(&self) -> u64 {
        self.next_ticket
    }

    /// True when no job with a ticket below `horizon` is left.
    pub(super) fn is_done(&self, horizon: u64) -> bool {
        self.outstanding.first().is_none_or(|ticket| *ticket >= horizon)
    }

    /// Records that the frame of `job` is in its container; `rows` are its chunks' rows in order.
    pub(super) fn stored(&mut self, job: &Job, rows: &[ChunkRow]) -> Vec<StoredChunk> {
        self.outstanding.remove(&job.ticket);
        let mut stored = Vec::with_capacity(rows.len());
        for (new, row) in job.chunks.iter().zip(rows) {
            let stamp = self.next_stamp;
            self.next_stamp += 1;
            self.waiting_bytes = self.waiting_bytes.saturating_sub(new.raw.len());
            if let Some(entry) = self.chunks.get_mut(&new.chunk) {
                entry.spot = Spot::Stored { row: *row, lane: job.lane, stamp };
            }
            stored.push(StoredChunk { chunk: new.chunk, row: *row, stamp });
        }
        stored
    }

    /// Keeps a job that failed, and the first cause.
    pub(super) fn failed(&mut self, job: Job, cause: Error) {
        self.stuck.push(job);
        self.fail(cause);
    }

    /// Keeps the first cause. A cause that no retry can mend replaces one that it can.
    pub(super) fn fail(&mut self, cause: Error) {
        let replace = match &self.failure {
            None => true,
            Some(first) => is_passing(first) && !is_passing(&cause),
        };
        if replace {
            self.failure = Some(cause);
        }
    }

    /// The stuck jobs, to be tried again, if the failure may have passed.
    pub(super) fn retry(&mut self) -> Vec<Job> {
        if self.failure.as_ref().is_some_and(is_passing) {
            self.failure = None;
            return std::mem::take(&mut self.stuck);
        }
        Vec::new()
    }

    /// Remembers that `chunk` cannot be read, unless it is being stored anew right now. True if
    /// that is new.
    pub(super) fn note_bad(&mut self, chunk: ChunkNo, row: &ChunkRow) -> bool {
        let current = match self.chunks.get(&chunk).map(|entry| &entry.spot) {
            None => true,
            Some(Spot::Waiting { .. }) => false,
            Some(Spot::Stored { row: newest, .. }) => newest.same_place(row),
        };
        if !current || self.bad.len() >= BAD_CHUNKS_MAX {
            return false;
        }
        self.good.remove(&chunk);
        self.bad.insert(chunk, *row).is_none()
    }

    /// Remembers that `chunk`, which `row` says is bad, can be read there.
    pub(super) fn note_good(&mut self, chunk: ChunkNo, row: &ChunkRow) {
        self.bad.remove(&chunk);
        let recorded = row.health == Health::Bad && !self.chunks.contains_key(&chunk);
        if recorded && self.good.len() < BAD_CHUNKS_MAX {
            self.good.insert(chunk, *row);
        }
    }

    /// True if `chunk` has been stored anew at `row`'s place and is not committed there yet.
    pub(super) fn is_stored_at(&self, chunk: ChunkNo, row: &ChunkRow) -> bool {
        let spot = self.chunks.get(&chunk).map(|entry| &entry.spot);
        matches!(spot, Some(Spot::Stored { row: newest, .. }) if newest.same_place(row))
    }

    /// Forgets the fingerprints of a container. False if a chunk of it is being stored anew: until
    /// that is committed its row points here.
    pub(super) fn doom(&mut self, id: ContainerId, chunks: Vec<ChunkNo>) -> bool {
        if self.doomed.contains_key(&id) {
            return true;
        }
        if chunks.iter().any(|chunk| self.chunks.contains_key(chunk)) {
            return false;
        }
        self.doomed_chunks.extend(chunks.iter().copied());
        self.doomed.insert(id, Doom { chunks, due: false });
        self.note_rows();
        true
    }

    /// Ends the open txg: what was doomed in it may go with the next batch.
    pub(super) fn freeze(&mut self) {
        self.doomed.values_mut().for_each(|doom| doom.due = true);
    }

    /// Containers whose rows go with the next batch.
    pub(super) fn due(&self) -> Vec<ContainerId> {
        self.doomed.iter().filter(|(_, doom)| doom.due).map(|(id, _)| *id).collect()
    }

    pub(super) fn is_doomed(&self, chunk: ChunkNo) -> bool {
        self.doomed_chunks.contains(&chunk)
    }

    /// The rows of these chunks are in the database.
    pub(super) fn drop_committed(&mut self, stored: &[StoredChunk]) {
        for done in stored {
            let Some(entry) = self.chunks.get(&done.chunk) else { continue };
            if !matches!(entry.spot, Spot::Stored { stamp, .. } if stamp == done.stamp) {
                continue;
            }
            let fingerprint = entry.fingerprint;
            self.chunks.remove(&done.chunk);
            if self.by_fingerprint.get(&fingerprint) == Some(&done.chunk) {
                self.by_fingerprint.remove(&fingerprint);
            }
        }
        self.note_rows();
    }

    /// The rows of this container are gone from the database.
    pub(super) fn drop_doomed(&mut self, id: ContainerId) {
        self.verified.remove(&id);
        let Some(doom) = self.doomed.remove(&id) else { return };
        for chunk in doom.chunks {
            self.doomed_chunks.remove(&chunk);
        }
        self.note_rows();
    }

    /// Gives back memory that a large commit needed.
    pub(super) fn shrink(&mut self) {
        self.chunks.shrink_to(self.chunks.len() * 2 + SPARE_ENTRIES);
        self.by_fingerprint.shrink_to(self.by_fingerprint.len() * 2 + SPARE_ENTRIES);
        self.doomed_chunks.shrink_to(self.doomed_chunks.len() * 2 + SPARE_ENTRIES);
    }
}

/// A full disk may have room again and a shard may come back; anything else needs the volume to be
/// opened again.
fn is_passing(cause: &Error) -> bool {
    matches!(cause, Error::NoSpace { .. } | Error::ShardMissing { .. })
}
