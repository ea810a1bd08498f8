//! StrataFS: a writable FUSE filesystem that stores every distinct piece of data once.

pub mod env;
pub mod error;
pub mod kv;
pub mod limits;
pub mod meta;
pub mod stats;
pub mod types;
