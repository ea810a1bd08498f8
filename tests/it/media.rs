//! The real program on media that lose, tear and reorder writes, fail, or are full.

pub mod disks;
mod full;
mod inject;
mod log;
mod shim;
mod states;
mod torn;
mod traced;
mod tree;
