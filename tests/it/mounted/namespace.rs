//! A mount namespace of its own, where things of the system may be other things.

use std::path::{Path, PathBuf};

use crate::testkit::{Ran, run, try_run};

/// Users that exist there and nowhere else, each with a group of its name.
pub const USERS: [&str; 3] = ["strata1", "strata2", "strata3"];
/// Numbers of users and groups that nobody else has.
const FIRST_ID: u32 = 61_841;

/// A namespace in which mount(8) finds our program as its helper, and [`USERS`] exist.
pub struct Namespace {
    dir: PathBuf,
}

impl Namespace {
    /// Keeps what it needs in `dir`, which is made.
    pub fn new(dir: &Path) -> Self {
        let this = Self { dir: dir.to_owned() };
        std::fs::create_dir_all(dir.join("sbin")).unwrap();
        let helper = dir.join("sbin/mount.fuse.stratafs");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stratafs"), helper).unwrap();
        for (file, line) in [
            ("passwd", "NAME:x:ID:ID::/nonexistent:/usr/sbin/nologin\n"),
            ("group", "NAME:x:ID:\n"),
        ] {
            let mut text = std::fs::read_to_string(Path::new("/etc").join(file)).unwrap();
            for (id, name) in (FIRST_ID..).zip(USERS) {
                text.push_str(&line.replace("NAME", name).replace("ID", &id.to_string()));
            }
            std::fs::write(dir.join(file), text).unwrap();
        }
        this
    }

    /// Runs a shell script there, in `dir`.
    pub fn try_run(&self, script: &str) -> Ran {
        let dir = self.dir.to_str().unwrap();
        let sbin = run("readlink", &["-f", "/sbin"]);
        let sbin = sbin.trim_end();
        let script = format!(
            "mount -t overlay overlay -o lowerdir={dir}/sbin:{sbin} {sbin}\n\
             for file in passwd group; do mount --bind {dir}/$file /etc/$file; done\n\
             cd {dir}\n{script}"
        );
        try_run("unshare", &["-m", "bash", "-euo", "pipefail", "-c", &script])
    }

    /// As [`Namespace::try_run`]; it has to succeed. Returns its stdout.
    #[track_caller]
    pub fn run(&self, script: &str) -> String {
        self.try_run(script).ok().stdout
    }
}
