//! The real program on media that lose, tear and reorder writes, fail, or are full.

mod disks;
mod full;
mod inject;
mod log;
mod shim;
mod states;
mod torn;
mod traced;
mod tree;
