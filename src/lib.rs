//! StrataFS: a writable FUSE filesystem that stores every distinct piece of data once.

pub mod checksum;
pub mod codec;
pub mod cursor;
pub mod env;
pub mod error;
pub mod kv;
pub mod limits;
pub mod shard;
pub mod stats;
pub mod store;
pub mod sys;
pub mod types;
