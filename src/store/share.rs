//! What every chunk takes, over one state of the tables.

use super::rows::{ChunkRow, parse_key};
use crate::error::Result;
use crate::kv::{KeyRange, Kv, Order, Table};
use crate::types::ChunkNo;

/// Calls `each` with number, raw bytes and stored bytes of every chunk, in number order.
/// Stored bytes are the chunk's share of the frame it lies in ([`ChunkRow::stored_share`]).
///
/// # Errors
/// `Corrupt`, `Kv`.
pub fn each_share(kv: &dyn Kv, each: &mut dyn FnMut(ChunkNo, u64, u64)) -> Result<()> {
    for row in kv.scan(Table::Chunk, &KeyRange::all(), Order::Forward) {
        let (key, value) = row?;
        let chunk = ChunkNo(parse_key("chunk", &key)?);
        let row = ChunkRow::parse(chunk, &value)?;
        each(chunk, u64::from(row.raw_len), row.stored_share());
    }
    Ok(())
}
