//! StrataFS: a writable FUSE filesystem that stores every distinct piece of data once.
//!
//! `docs/DESIGN.md` tells what the rooms below are for and which may import which.

pub mod check;
pub mod checksum;
pub mod classify;
pub mod cli;
pub mod codec;
pub mod config;
pub mod control;
pub mod cursor;
pub mod diff;
pub mod env;
pub mod error;
pub mod export;
pub mod find;
pub mod fuse;
#[doc(hidden)]
pub mod fuzz;
pub mod gc;
pub mod import;
pub mod ingest;
pub mod kv;
pub mod limits;
pub mod meta;
pub mod metrics;
pub mod queue;
pub mod restore;
pub mod retain;
pub mod scrub;
pub mod shard;
pub mod stats;
pub mod store;
pub mod sys;
pub mod types;
pub mod vfs;
pub mod volume;
