//! Damage as a table: what was done × to what. For every cell: a named error or a full recovery,
//! neighbours readable, never a panic, never a hang, never wrong bytes.
//!
//! There is no spool yet: its cells come with remote shards.

mod cells;
mod rebuild;
mod rows;
mod stage;
mod table;
