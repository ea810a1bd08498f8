//! The real program on media that lose, tear and reorder writes, fail, or are full.

mod log;
mod shim;
mod states;
mod torn;
mod traced;
mod tree;
