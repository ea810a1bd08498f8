//! Opening: brings the shards to the state the tables speak of.

use std::sync::Arc;

use super::NextIds;
use super::core::Core;
use super::rows::{ContainerRow, ContainerState, parse_key};
use super::writer::{OpenContainer, log_closed};
use crate::env::Point;
use crate::error::{Error, Result};
use crate::kv::{KeyRange, Order, Table};
use crate::shard::Shard;
use crate::types::{ContainerId, ShardId};

impl Core {
    /// Refuses numbers that would be given twice.
    pub(super) fn check_numbers(&self, next: NextIds) -> Result<()> {
        let tables = [(Table::Chunk, next.chunk.0), (Table::Container, next.container.0)];
        for (table, next) in tables {
            let last = self.kv.scan(table, &KeyRange::all(), Order::Backward).next();
            let Some((key, _)) = last.transpose()? else { continue };
            let last = parse_key(table.name(), &key)?;
            if last >= next {
                return Err(Error::corrupt(
                    format!("table {}", table.name()),
                    format!(
                        "it holds number {last}, and the next one is said to be {next}; \
                         `stratafs rebuild-index` mends that"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Takes a shard into use: deletes what a crash left, goes on with its open containers.
    pub(super) fn attach(&self, id: ShardId, shard: Arc<dyn Shard>) -> Result<()> {
        if self.has_shard(id) {
            return Err(Error::Exists { what: format!("Shard {id}") });
        }
        if !self.release(id) {
            let what = format!(
                "Shard {id} is back, but what was written to it before it went is \
                               not committed yet"
            );
            return Err(Error::Busy { what });
        }
        if self.options.read_only {
            self.insert_shard(id, shard);
            return Ok(());
        }
        let mut open = Vec::new();
        let mut without_row = Vec::new();
        let mut found = shard.list()?.into_iter().peekable();
        // Both in rising order: what lies between two rows has none.
        for row in self.container_rows() {
            let (container, row) = row?;
            while let Some(between) = found.next_if(|found| *found < container) {
                without_row.push(between);
            }
            found.next_if_eq(&container);
            if row.shard == id && row.state == ContainerState::Open {
                open.push((container, row));
            }
        }
        without_row.extend(found);
        self.clear_leftovers(id, &*shard, without_row)?;
        for (container, row) in open {
            match self.reopen(&shard, container, row) {
                Ok(open) => self.writer((id, row.class)).lock().adopt(open),
                Err(cause @ (Error::Corrupt { .. } | Error::NotFound { .. })) => {
                    log_closed(container, &cause);
                    let row = ContainerRow { state: ContainerState::Sealed, ..row };
                    self.pending.lock().corrected.push((container, row));
                }
                Err(cause) => return Err(cause),
            }
        }
        self.insert_shard(id, shard);
        Ok(())
    }

    /// Cuts a container to its committed length. Its footer so far is collected when it is needed:
    /// that is a read for every frame.
    fn reopen(
        &self,
        shard: &Arc<dyn Shard>,
        id: ContainerId,
        row: ContainerRow,
    ) -> Result<OpenContainer> {
        self.faults.hit(Point::RecoverReopen)?;
        let appender = shard.reopen(id, row.bytes)?;
        Ok(OpenContainer::reopened(id, appender, row, self.options.container_bytes, shard))
    }
}
