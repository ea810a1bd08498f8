//! The built program, mounted: what people do with it.

mod apps;
mod away;
mod backup;
mod commands;
mod copying;
mod daily;
mod diff;
mod ends;
mod fstab;
mod gc;
mod git;
pub mod helper;
mod history;
mod kill;
mod load;
mod namespace;
mod poison;
mod remount;
mod retention;
mod rsync;
mod scrub;
mod semantics;
mod service;
mod snapdir;
mod sqlite;
mod sync;
mod tree;
