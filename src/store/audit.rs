//! Auditing chunks, fingerprints and containers against each other, over one state of the tables.
//!
//! What the tables hold is a problem, never an error; a part of a table that cannot be read is
//! named, and the rest is looked at. Chunks are taken [`WINDOW_CHUNKS`] at a time, about 20 bytes
//! each; with more of them fingerprints (and, by the caller, extents) are read several times.

use std::collections::{BTreeMap, HashMap};

use super::Store;
use super::core::Core;
use super::ledger::audit_damaged;
use super::rows::{
    ChunkRow, ContainerRow, ContainerState, FingerprintRow, Health, chunk_key, parse_key,
};
use crate::error::{Error, Result};
use crate::kv::{KeyRange, Kv, Order, Row, Table};
use crate::types::{ChunkNo, ContainerId, Fingerprint};

/// Chunks held in memory at a time: 160 MB.
pub const WINDOW_CHUNKS: usize = 1 << 23;
/// Problems kept one by one; further ones are only counted.
const PROBLEMS_MAX: usize = 1000;

/// What an audit saw.
#[derive(Debug, Default)]
pub struct Audit {
    /// Chunks there are.
    pub chunks: u64,
    /// Containers that can be looked at, and the bytes of each.
    pub containers: Vec<(ContainerId, u64)>,
    /// What does not fit together, one sentence each.
    pub problems: Vec<String>,
    /// Problems beyond these.
    pub more_problems: u64,
    tallies: HashMap<ContainerId, Tally>,
    next: ChunkNo,
    done: bool,
    /// Chunks whose rows say that they are damaged.
    bad: u64,
    /// Containers on shards that are away, by the sentence that says so.
    away: BTreeMap<String, u64>,
}

/// A container's row and what chunk rows say of it.
#[derive(Debug)]
struct Tally {
    row: ContainerRow,
    chunks: u64,
    raw_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    chunk: ChunkNo,
    raw_len: u32,
    /// First bytes of its fingerprint: two chunks that share them by chance are not to be expected.
    prefix: u64,
    led_to: bool,
}

/// Chunks with consecutive rows.
#[derive(Debug, Default)]
pub struct Window {
    seen: Vec<Seen>,
    lower: ChunkNo,
    /// `None` is the end of all numbers.
    upper: Option<ChunkNo>,
}

impl Window {
    fn holds(&self, chunk: ChunkNo) -> bool {
        self.lower <= chunk && self.upper.is_none_or(|upper| chunk < upper)
    }

    fn find(&self, chunk: ChunkNo) -> Option<usize> {
        self.seen.binary_search_by_key(&chunk, |seen| seen.chunk).ok()
    }

    /// Raw bytes of a chunk, 0 if there is none; `None` if another window has it.
    #[must_use]
    pub fn raw_len(&self, chunk: ChunkNo) -> Option<u64> {
        let len = || self.find(chunk).map_or(0, |at| self.seen[at].raw_len.into());
        self.holds(chunk).then(len)
    }
}

impl Audit {
    /// Begins an audit: checks that every container is there and as long as its row says.
    #[must_use]
    pub fn begin(kv: &dyn Kv, store: &Store) -> Self {
        let mut audit = Self::default();
        for row in kv.scan(Table::Container, &KeyRange::all(), Order::Forward) {
            let Some((key, value)) = audit.row(row) else { break };
            let read = parse_key("container", &key).map(ContainerId);
            match read.and_then(|id| Ok((id, ContainerRow::parse(id, &value)?))) {
                Ok((id, row)) => {
                    audit.container_file(id, &row, &store.core);
                    audit.tallies.insert(id, Tally { row, chunks: 0, raw_bytes: 0 });
                }
                Err(e) => audit.problem(e.to_string()),
            }
        }
        for (why, count) in std::mem::take(&mut audit.away) {
            audit.problem(format!("{count} containers were not checked: {why}"));
        }
        audit
    }

    /// Checks the next chunks: each has to lie in a container, and exactly one fingerprint has to
    /// lead to it. `None` when all were seen. `max` is [`WINDOW_CHUNKS`] but in tests.
    pub fn next_window(&mut self, kv: &dyn Kv, max: usize) -> Option<Window> {
        if self.done {
            return None;
        }
        let mut window = Window { lower: self.next, ..Window::default() };
        let range = KeyRange { lower: chunk_key(self.next).to_vec(), upper: None };
        for row in kv.scan(Table::Chunk, &range, Order::Forward) {
            let Some((key, value)) = self.row(row) else { break };
            let Ok(chunk) = parse_key("chunk", &key).map(ChunkNo) else {
                self.problem("A key of table chunk is no number".to_owned());
                continue;
            };
            if window.seen.len() >= max.max(1) {
                window.upper = Some(chunk);
                break;
            }
            self.chunks += 1;
            match ChunkRow::parse(chunk, &value) {
                Ok(row) => {
                    self.chunk(chunk, &row);
                    let prefix = prefix(&row.fingerprint);
                    window.seen.push(Seen { chunk, raw_len: row.raw_len, prefix, led_to: false });
                }
                Err(e) => self.problem(e.to_string()),
            }
        }
        self.fingerprints(kv, &mut window);
        match window.upper {
            Some(upper) => self.next = upper,
            None => self.done = true,
        }
        Some(window)
    }

    /// Compares what the chunks said of their containers, and of themselves, once all windows were
    /// seen.
    pub fn finish(&mut self, kv: &dyn Kv) {
        if let Err(e) = audit_damaged(kv, self.bad, &mut self.problems) {
            self.problem(format!("The list of damaged chunks was not checked: {e}"));
        }
        for (id, tally) in std::mem::take(&mut self.tallies) {
            let row = &tally.row;
            // Chunks that moved away are still counted, so the row may say more, never less.
            if tally.chunks > row.chunks || tally.raw_bytes > row.raw_bytes {
                self.problem(format!(
                    "Container {id} counts {} chunks of {} bytes and has {} of {}",
                    row.chunks, row.raw_bytes, tally.chunks, tally.raw_bytes
                ));
            }
        }
    }

    fn problem(&mut self, text: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text);
        } else {
            self.more_problems += 1;
        }
    }

    fn row(&mut self, row: Result<Row>) -> Option<Row> {
        row.map_err(|e| self.problem(format!("{e}; what lies behind it was not checked"))).ok()
    }

    fn container_file(&mut self, id: ContainerId, row: &ContainerRow, core: &Core) {
        let shard = match core.shard(row.shard) {
            Err(Error::ShardMissing { what }) => {
                *self.away.entry(what).or_default() += 1;
                return;
            }
            shard => shard,
        };
        self.containers.push((id, row.bytes));
        let len = shard.and_then(|shard| shard.len(id));
        let wrong = match len {
            // An open container may hold more than was committed.
            Ok(len) if row.state == ContainerState::Open => len < row.bytes,
            Ok(len) => len != row.bytes,
            Err(e) => {
                self.problem(format!("Container {id} cannot be opened: {e}"));
                return;
            }
        };
        if wrong {
            let shard = row.shard;
            self.problem(format!("Container {id} on shard {shard} has the wrong length"));
        }
    }

    fn chunk(&mut self, chunk: ChunkNo, row: &ChunkRow) {
        let end = u64::from(row.frame_offset) + u64::from(row.frame_len);
        let id = row.container;
        match self.tallies.get_mut(&id) {
            None => {
                self.problem(format!("Chunk {chunk} lies in container {id}, which does not exist"));
            }
            Some(tally) => {
                tally.chunks += 1;
                tally.raw_bytes += u64::from(row.raw_len);
                let (first, last) = (tally.row.first, tally.row.last);
                if end > tally.row.bytes {
                    self.problem(format!("Chunk {chunk} lies beyond the end of container {id}"));
                } else if !(first..=last).contains(&chunk) {
                    self.problem(format!(
                        "Chunk {chunk} lies in container {id}, which says it has {first} to {last}"
                    ));
                }
            }
        }
        if row.health != Health::Good {
            self.bad += 1;
            self.problem(format!("Chunk {chunk} is known to be damaged"));
        }
    }

    /// Marks the chunks of a window that their fingerprints lead to.
    fn fingerprints(&mut self, kv: &dyn Kv, window: &mut Window) {
        let is_first = window.lower == ChunkNo(0);
        for row in kv.scan(Table::Fingerprint, &KeyRange::all(), Order::Forward) {
            if !is_first && row.is_err() {
                break;
            }
            let Some((key, value)) = self.row(row) else { break };
            let Ok(fingerprint) = <[u8; 32]>::try_from(&*key).map(Fingerprint) else {
                if is_first {
                    self.problem("A key of table fingerprint has the wrong length".to_owned());
                }
                continue;
            };
            match FingerprintRow::parse(fingerprint, &value) {
                Ok(row) if window.holds(row.chunk) => match window.find(row.chunk) {
                    None => self.problem(format!(
                        "Fingerprint {fingerprint} leads to chunk {}, which does not exist",
                        row.chunk
                    )),
                    Some(at) if window.seen[at].prefix != prefix(&fingerprint) => {
                        self.problem(format!(
                            "Fingerprint {fingerprint} leads to chunk {}, which has another one",
                            row.chunk
                        ));
                    }
                    Some(at) => window.seen[at].led_to = true,
                },
                Err(e) if is_first => self.problem(e.to_string()),
                _ => {}
            }
        }
        for seen in window.seen.iter().filter(|seen| !seen.led_to) {
            let chunk = seen.chunk;
            self.problem(format!("The fingerprint of chunk {chunk} does not lead to it"));
        }
    }
}

fn prefix(fingerprint: &Fingerprint) -> u64 {
    fingerprint.0.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}
