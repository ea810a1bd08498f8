//! The system: the only room with `unsafe` and raw system calls.
//!
//! Guarantees: everything it offers is safe to call and answers `io::Result`. Does not: decide.
#![allow(unsafe_code)]

pub mod disk;
