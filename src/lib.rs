//! StrataFS: a writable FUSE filesystem that stores every distinct piece of data once.

pub mod cli;
pub mod control;
pub mod env;
pub mod error;
pub mod fuse;
pub mod kv;
pub mod limits;
pub mod shard;
pub mod stats;
pub mod sys;
pub mod types;
pub mod vfs;
