//! The library between the program and the disk (tests/media/shim.c), built when first needed.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::testkit::run;

/// The built library. gcc is on every machine that could compile RocksDB.
pub fn library() -> &'static Path {
    static BUILT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("shim.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/media/shim.c");
        let out = path.to_str().unwrap();
        run("cc", &["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", out, source]);
        (temp, path)
    });
    path
}

/// Environment of a process whose changes below a directory are seen.
#[derive(Clone, Debug)]
pub struct Shim {
    dir: PathBuf,
    more: Vec<(&'static str, String)>,
}

/// One kind of calls that can be made to fail.
pub const CLASSES: [&str; 8] =
    ["write", "fsync", "rename", "mkdir", "create", "fallocate", "unlink", "truncate"];

/// Which call fails how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub class: &'static str,
    /// Counted from 1.
    pub number: usize,
    pub errno: i32,
    /// All calls of the class fail from then on, not only this one.
    pub on: bool,
}

impl Shim {
    /// Writes down every change below `dir`, an absolute path without links.
    pub fn recording(dir: &Path, log: &Path) -> Self {
        Self { dir: dir.to_owned(), more: vec![("SHIM_LOG", text(log))] }
    }

    /// Lets one call fail; `hit` gets a line for each that did.
    pub fn failing(dir: &Path, fault: &Fault, hit: &Path) -> Self {
        let Fault { class, number, errno, on } = fault;
        let how = if *on { "on" } else { "once" };
        let fail = format!("{class}:{number}:{errno}:{how}");
        Self { dir: dir.to_owned(), more: vec![("SHIM_FAIL", fail), ("SHIM_HIT", text(hit))] }
    }

    /// The variables to set.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let own = [("LD_PRELOAD", text(library())), ("SHIM_DIR", text(&self.dir))];
        own.into_iter().chain(self.more.iter().cloned()).collect()
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("test paths are ASCII").to_owned()
}
