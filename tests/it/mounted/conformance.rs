//! Foreign test suites on a mount: pjdfstest (what calls answer) and fsx (what bytes come back).
//!
//! `mount-scripts/test.sh` installs both beside the target directory. What they need of a machine
//! (users, a helper of mount(8)) they find in a mount namespace of their own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use super::helper::Mounted;
use super::namespace::{Namespace, USERS};
use crate::testkit::{run, try_run};

const PJDFSTEST: (&str, &str) = ("pjdfstest", "0.2.2");
const FSX: (&str, &str) = ("fsx", "0.3.2");

/// A test program, where test.sh puts it: `TARGET-tools/NAME-VERSION/bin/NAME`.
fn tool((name, version): (&str, &str)) -> String {
    let target = Path::new(env!("CARGO_BIN_EXE_stratafs")).ancestors().nth(2).unwrap();
    let tools = format!("{}-tools", target.display());
    let tools = std::env::var("STRATAFS_TOOLS").unwrap_or(tools);
    let path = format!("{tools}/{name}-{version}/bin/{name}");
    assert!(Path::new(&path).exists(), "{path} is missing; mount-scripts/test.sh installs it");
    path
}

// ---- pjdfstest

/// Tests that cannot run: what they are, and why.
const SKIPPED: [(&str, &str); 2] = [
    ("erofs", "remounts everything read-only; runs by itself below"),
    (
        "link::link_count_max",
        "glibc says that a link count is at most 127 where it does not know the filesystem; that \
         it is 65,000 is tested in `it/mounted/calls.rs`",
    ),
];
/// Tests of the suite on ext4, where 13 are skipped as here and everything else passes.
const PASSED_ON_EXT4: usize = 385;
const EROFS: usize = 13;

/// How the tests that match `pattern` ended: passed, skipped, failed.
fn pjdfstest(pattern: &str, remount: bool) -> [BTreeSet<String>; 3] {
    let m = Mounted::new();
    let ns = m.outside().join("ns");
    let namespace = Namespace::new(&ns);
    let [one, two, _] = USERS;
    let config = format!(
        "[features]\nposix_fallocate = {{}}\nrename_ctime = {{}}\nutime_now = {{}}\n\
         utimensat = {{}}\n[settings]\nnaptime = 0.02\nallow_remount = {remount}\n\
         [dummy_auth]\nentries = [[\"{one}\", \"{one}\"], [\"{two}\", \"{two}\"]]\n"
    );
    std::fs::write(ns.join("pjdfstest.toml"), config).unwrap();
    // Others than root come there, too.
    run("chmod", &["755", m.outside().to_str().unwrap()]);
    let (tool, mnt) = (tool(PJDFSTEST), m.text(""));
    let ran = namespace.try_run(&format!(
        "mkdir second; mount -t tmpfs tmpfs second\n\
         {tool} -c pjdfstest.toml -p {mnt} -s $PWD/second {pattern}"
    ));
    let ended = |how: &str| {
        let lines = ran.stdout.lines().filter_map(|line| line.strip_suffix(how));
        lines.map(|name| name.trim_end().to_owned()).collect::<BTreeSet<_>>()
    };
    let all = [ended(" ok"), ended(" skipped"), ended(" FAILED")];
    let clean = all[2].is_empty() && ran.code == Some(0);
    assert!(clean, "{:#?}\n{}\n{}", all[2], ran.stdout, ran.stderr);
    m.assert_sound();
    all
}

#[test]
fn pjdfstest_passes_what_ext4_passes() {
    let [passed, skipped, _] = pjdfstest("", false);
    let known = |name: &&String| SKIPPED.iter().any(|(skip, _)| name.contains(skip));
    let unknown: Vec<_> = skipped.iter().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "skipped without a reason: {unknown:#?}");
    assert_eq!(skipped.len(), EROFS + 1, "{skipped:#?}");
    assert_eq!(passed.len(), PASSED_ON_EXT4 - 1, "as many as on ext4 but link_count_max");
}

#[test]
fn pjdfstest_finds_a_mount_read_only_when_it_is() {
    let [passed, skipped, _] = pjdfstest("erofs", true);
    assert_eq!((passed.len(), skipped.len()), (EROFS, 0), "{passed:#?} {skipped:#?}");
}

// ---- fsx

/// Operations in one go of fsx, which ends well before a test is said to hang.
const OPS_AT_ONCE: u64 = 10_000;

/// The library that opens with O_DIRECT and remounts in between.
fn shim() -> &'static str {
    static BUILT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("shim.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/shim.c");
        let out = path.to_str().unwrap();
        run("cc", &["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", out, source]);
        (temp, path)
    });
    path.to_str().unwrap()
}

/// What fsx does.
#[derive(Clone, Copy)]
struct Exercise {
    name: &'static str,
    /// Operations, unless `STRATAFS_FSX_OPS` says how many.
    ops: u64,
    /// Shared mappings, too.
    maps: bool,
    direct: bool,
    /// The volume is mounted anew each time the file was closed so often.
    remount_every: u32,
    /// A file of many chunks in large pieces; else 256 KiB in pieces of up to 64 KiB.
    large: bool,
}

const PLAIN: Exercise = Exercise {
    name: "plain",
    ops: 8_000,
    maps: false,
    direct: false,
    remount_every: 0,
    large: false,
};

impl Exercise {
    fn config(&self) -> String {
        let (length, piece) = if self.large { (16 << 20, 1 << 20) } else { (256 << 10, 64 << 10) };
        let maps = if self.maps { 10 } else { 0 };
        // fsx forgets to unmap what it read, and that would keep the mountpoint busy.
        let (mapped_reads, closes) = if self.remount_every > 0 { (0, 4) } else { (maps, 1) };
        format!(
            "flen = {length}\n[opsize]\nmin = 1\nmax = {piece}\n[weights]\nclose_open = {closes}\n\
             mapread = {mapped_reads}\nmapwrite = {maps}\ninvalidate = {}\nread = 10\nwrite = 10\n\
             truncate = 5\nfsync = 0.3\nfdatasync = 0.3\nposix_fallocate = 3\npunch_hole = 5\n\
             sendfile = 5\nposix_fadvise = 3\ncopy_file_range = 5\n",
            maps / 10
        )
    }

    /// Does it all, with one seed after the other.
    fn run(&self) {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
        let first = number("STRATAFS_FSX_SEED").unwrap_or(1);
        let mut left: u64 = number("STRATAFS_FSX_OPS").unwrap_or(self.ops);
        for seed in first.. {
            let ops = left.min(if self.large { OPS_AT_ONCE / 5 } else { OPS_AT_ONCE });
            self.run_seed(seed, ops);
            left -= ops;
            if left == 0 {
                return;
            }
        }
    }

    fn run_seed(&self, seed: u64, ops: u64) {
        // Commits come in between by themselves.
        let m = Mounted::with(&[], "[limits]\ncommit_interval_secs = 1\n");
        let config = m.outside().join("fsx.toml");
        std::fs::write(&config, self.config()).unwrap();
        let (file, volume, mnt) = (m.text("file"), m.volume(), m.text(""));
        let stratafs = env!("CARGO_BIN_EXE_stratafs");
        let again = format!(
            "unset LD_PRELOAD; {stratafs} umount -q {mnt} && {stratafs} mount -q {} {mnt}",
            volume.display()
        );
        let mut line = vec![
            format!("LD_PRELOAD={}", shim()),
            format!("FSX_FILE={file}"),
            format!("FSX_BETWEEN={again}"),
        ];
        line.extend(self.direct.then(|| "FSX_DIRECT=1".to_owned()));
        line.extend((self.remount_every > 0).then(|| format!("FSX_EVERY={}", self.remount_every)));
        line.extend([tool(FSX), "-q".to_owned(), "-f".to_owned()]);
        line.push(config.to_str().unwrap().to_owned());
        let artifacts = m.outside().to_str().unwrap().to_owned();
        line.extend(["-S".to_owned(), seed.to_string(), "-N".to_owned(), ops.to_string()]);
        line.extend(["-P".to_owned(), artifacts, file]);
        let ran = try_run("env", &line);
        m.follow();
        assert_eq!(ran.code, Some(0), "fsx {} seed={seed} ops={ops}: {ran:#?}", self.name);
        m.assert_sound();
    }
}

#[test]
fn fsx_plain() {
    PLAIN.run();
}

#[test]
fn fsx_with_mappings() {
    Exercise { name: "mappings", ops: 4_000, maps: true, ..PLAIN }.run();
}

#[test]
fn fsx_past_the_page_cache() {
    Exercise { name: "direct", ops: 4_000, direct: true, ..PLAIN }.run();
    Exercise { name: "direct and mappings", ops: 2_000, direct: true, maps: true, ..PLAIN }.run();
}

#[test]
fn fsx_over_remounts() {
    Exercise { name: "remounts", ops: 2_000, maps: true, remount_every: 8, ..PLAIN }.run();
}

#[test]
fn fsx_on_many_chunks() {
    Exercise { name: "large", ops: 1_500, large: true, maps: true, ..PLAIN }.run();
}
