//! The operating system below std: the only home of `unsafe`.
//!
//! Guarantees: every function here is safe to call. Does not: know volumes.

pub mod mount;
pub mod process;
