//! Auditing chunks, fingerprints and containers against each other, over one state of the tables.
//!
//! Memory: four bytes per chunk number.

use std::collections::HashMap;

use super::Store;
use super::ledger::audit_damaged;
use super::rows::{ChunkRow, ContainerRow, ContainerState, FingerprintRow, Health, parse_key};
use crate::error::Result;
use crate::kv::{KeyRange, Kv, Order, Table};
use crate::types::{ChunkNo, ContainerId, Fingerprint};

/// What an audit saw.
#[derive(Debug, Default)]
pub struct Audit {
    /// Chunks there are.
    pub chunks: u64,
    /// Containers and the bytes of each.
    pub containers: Vec<(ContainerId, u64)>,
    /// What does not fit together, one sentence each.
    pub problems: Vec<String>,
    raw_lens: Vec<u32>,
    /// Chunks whose rows say that they are damaged.
    bad: u64,
}

impl Audit {
    /// Raw bytes of a chunk; 0 if there is no such chunk.
    #[must_use]
    pub fn raw_len(&self, chunk: ChunkNo) -> u64 {
        let index = usize::try_from(chunk.0).unwrap_or(usize::MAX);
        self.raw_lens.get(index).copied().unwrap_or(0).into()
    }
}

/// Checks that every chunk lies in a container that is there and long enough, and that exactly one
/// fingerprint row leads to it.
///
/// # Errors
/// `Kv` when the tables cannot be read; what they say is a problem, not an error.
pub fn audit(kv: &dyn Kv, store: &Store) -> Result<Audit> {
    let mut audit = Audit::default();
    let containers = audit.containers(kv, store)?;
    audit.chunks(kv, &containers)?;
    audit.fingerprints(kv)?;
    audit_damaged(kv, audit.bad, &mut audit.problems)?;
    Ok(audit)
}

impl Audit {
    fn containers(
        &mut self,
        kv: &dyn Kv,
        store: &Store,
    ) -> Result<HashMap<ContainerId, ContainerRow>> {
        let mut rows = HashMap::new();
        for row in kv.scan(Table::Container, &KeyRange::all(), Order::Forward) {
            let (key, value) = row?;
            let read = parse_key("container", &key).map(ContainerId);
            match read.and_then(|id| Ok((id, ContainerRow::parse(id, &value)?))) {
                Ok((id, row)) => {
                    self.container_file(id, &row, store);
                    self.containers.push((id, row.bytes));
                    rows.insert(id, row);
                }
                Err(e) => self.problems.push(e.to_string()),
            }
        }
        Ok(rows)
    }

    fn container_file(&mut self, id: ContainerId, row: &ContainerRow, store: &Store) {
        let len = store.core.shard(row.shard).and_then(|shard| shard.len(id));
        let wrong = match len {
            // An open container may hold more than was committed.
            Ok(len) if row.state == ContainerState::Open => len < row.bytes,
            Ok(len) => len != row.bytes,
            Err(e) => {
                self.problems.push(format!("Container {id} cannot be opened: {e}"));
                return;
            }
        };
        if wrong {
            let shard = row.shard;
            self.problems.push(format!("Container {id} on shard {shard} has the wrong length"));
        }
    }

    fn chunks(
        &mut self,
        kv: &dyn Kv,
        containers: &HashMap<ContainerId, ContainerRow>,
    ) -> Result<()> {
        for row in kv.scan(Table::Chunk, &KeyRange::all(), Order::Forward) {
            let (key, value) = row?;
            let read = parse_key("chunk", &key).map(ChunkNo);
            match read.and_then(|chunk| Ok((chunk, ChunkRow::parse(chunk, &value)?))) {
                Ok((chunk, row)) => self.chunk(kv, chunk, &row, containers)?,
                Err(e) => self.problems.push(e.to_string()),
            }
        }
        Ok(())
    }

    fn chunk(
        &mut self,
        kv: &dyn Kv,
        chunk: ChunkNo,
        row: &ChunkRow,
        containers: &HashMap<ContainerId, ContainerRow>,
    ) -> Result<()> {
        self.chunks += 1;
        if let Ok(index) = usize::try_from(chunk.0) {
            if self.raw_lens.len() <= index {
                self.raw_lens.resize(index + 1, 0);
            }
            self.raw_lens[index] = row.raw_len;
        }
        let end = u64::from(row.frame_offset) + u64::from(row.frame_len);
        match containers.get(&row.container) {
            None => self.problems.push(format!(
                "Chunk {chunk} lies in container {}, which does not exist",
                row.container
            )),
            Some(container) if end > container.bytes => self
                .problems
                .push(format!("Chunk {chunk} lies beyond the end of container {}", row.container)),
            Some(_) => {}
        }
        if row.health != Health::Good {
            self.bad += 1;
            self.problems.push(format!("Chunk {chunk} is known to be damaged"));
            return Ok(());
        }
        let known = kv.get(Table::Fingerprint, &row.fingerprint.0)?;
        let leads_here = known
            .and_then(|value| FingerprintRow::parse(row.fingerprint, &value).ok())
            .is_some_and(|found| found.chunk == chunk);
        if !leads_here {
            self.problems.push(format!("The fingerprint of chunk {chunk} does not lead to it"));
        }
        Ok(())
    }

    fn fingerprints(&mut self, kv: &dyn Kv) -> Result<()> {
        for row in kv.scan(Table::Fingerprint, &KeyRange::all(), Order::Forward) {
            let (key, value) = row?;
            let Ok(fingerprint) = <[u8; 32]>::try_from(&*key).map(Fingerprint) else {
                self.problems.push("A key of table fingerprint has the wrong length".to_owned());
                continue;
            };
            match FingerprintRow::parse(fingerprint, &value) {
                Ok(row) if self.raw_len(row.chunk) == 0 => self.problems.push(format!(
                    "Fingerprint {fingerprint} leads to chunk {}, which does not exist",
                    row.chunk
                )),
                Ok(_) => {}
                Err(e) => self.problems.push(e.to_string()),
            }
        }
        Ok(())
    }
}
