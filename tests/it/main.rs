//! All integration tests in one binary: each binary links RocksDB anew.
//!
//! Needs root, /dev/fuse and rsync, git, sqlite3, acl, attr, python3, groff: what is missing is a
//! failure.

mod bad_input;
mod big;
mod cli;
mod configuration;
mod crash;
mod damage;
mod fuzz;
mod install;
mod media;
mod model;
mod mounted;
mod profile;
mod protection;
mod races;
mod restore;
mod shell;
mod snapshots;
mod testkit;
mod volume;

/// A file that nobody declares as a module would be dead without anybody noticing.
#[test]
fn every_file_is_a_module() {
    fn check(dir: &std::path::Path, declared: &str) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let is_declared = declared.contains(&format!("mod {name};")) || name == "main";
            assert!(is_declared, "{} is declared nowhere", path.display());
            if path.is_dir() {
                let door = std::fs::read_to_string(path.with_extension("rs")).unwrap();
                check(&path, &door);
            }
        }
    }
    let dir = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it"));
    check(dir, &std::fs::read_to_string(dir.join("main.rs")).unwrap());
}
