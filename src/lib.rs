//! StrataFS: a writable FUSE filesystem that stores every distinct piece of data once.

pub mod classify;
pub mod config;
pub mod env;
pub mod error;
pub mod limits;
pub mod stats;
pub mod types;
