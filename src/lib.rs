//! StrataFS.
pub mod classify;
pub mod env;
pub mod error;
pub mod fuse;
pub mod limits;
pub mod stats;
pub mod sys;
pub mod types;
pub mod vfs;
pub mod volume;
