//! System calls: the only room with `unsafe` and, besides the errno table, with `libc`.
//!
//! Every call is wrapped in a safe function that returns `io::Result`. Does not: decide anything.
#![allow(unsafe_code)]

pub mod abi;
pub mod alloc;
pub mod disk;
pub mod mount;
pub mod mount_flags;
pub mod process;
pub mod tree;
