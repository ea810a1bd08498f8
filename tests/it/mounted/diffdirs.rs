//! `.snapshots/.diff/A..B`: differences as folders.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use super::helper::{Mounted, names_in, os_error, take};
use crate::testkit::{run, run_in, try_run, wait_until};

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const E2BIG: i32 = 7;
const EROFS: i32 = 30;
const ESTALE: i32 = 116;

/// Everything below a difference, by its path in it.
fn walk(m: &Mounted, pair: &str) -> Vec<String> {
    let dir = m.path(&format!(".snapshots/.diff/{pair}"));
    let found = run_in(&dir, "find . -mindepth 2 | LC_ALL=C sort");
    found.lines().map(|line| line.trim_start_matches("./").to_owned()).collect()
}

/// Memory of a holder, and its bound.
fn held(m: &Mounted, holder: &str) -> (u64, u64) {
    let stats = m.ask_json(&["stats"], &[]);
    let held = &stats["memory"][holder];
    (held["bytes"].as_u64().unwrap(), held["bound_bytes"].as_u64().unwrap())
}

/// Two snapshots, `a` and `b`, between which everything happens.
fn sample() -> Mounted {
    let m = Mounted::new();
    let script = "mkdir -p src/old docs keep/deep && echo one >src/main.c &&
        echo two >src/old/two.c && echo page >docs/page && ln -s page docs/link &&
        ln docs/page docs/zz-hard && echo same >keep/deep/same && echo kind >kind &&
        echo from >from && echo to >to && mkdir gone && echo x >gone/x";
    run_in(&m.path(""), script);
    take(&m, "a");
    let script = "echo more >>src/main.c && mv src/old src/new && rm docs/link &&
        chmod 600 docs/page && mkdir -p fresh/sub && echo a >fresh/sub/a && chmod 711 keep &&
        mkfifo keep/deep/pipe && rm kind && mkdir kind && mv from to && rm -r gone &&
        mv src/new/two.c fresh/two.c";
    run_in(&m.path(""), script);
    take(&m, "b");
    m
}

const ONLY_IN_A: [&str; 9] =
    ["docs", "docs/link", "from", "gone", "gone/x", "kind", "src", "src/old", "src/old/two.c"];
const ONLY_IN_B: [&str; 10] = [
    "fresh",
    "fresh/sub",
    "fresh/sub/a",
    "fresh/two.c",
    "keep",
    "keep/deep",
    "keep/deep/pipe",
    "kind",
    "src",
    "src/new",
];
const IN_BOTH: [&str; 6] = ["docs", "docs/zz-hard", "keep", "src", "src/main.c", "to"];

/// SEMANTICS §4.29: `.snapshots/.diff/A..B` in the root shows the difference between two snapshots.
/// SEMANTICS §4.30: A path is in `added` if only B has it.
#[test]
fn folders_show_what_was_added_removed_and_changed_in_either_direction() {
    let m = sample();
    for (pair, removed, added) in
        [("a..b", &ONLY_IN_A[..], &ONLY_IN_B[..]), ("b..a", &ONLY_IN_B[..], &ONLY_IN_A[..])]
    {
        let below = |folder: &str, paths: &[&str]| {
            paths.iter().map(|path| format!("{folder}/{path}")).collect::<Vec<_>>()
        };
        let expected =
            [below("added", added), below("changed", &IN_BOTH), below("removed", removed)].concat();
        assert_eq!(walk(&m, pair), expected, "{pair}");
    }
    let text =
        |path: &str| fs::read_to_string(m.path(&format!(".snapshots/.diff/{path}"))).unwrap();
    assert_eq!(text("a..b/changed/src/main.c"), "one\nmore\n");
    assert_eq!(text("b..a/changed/src/main.c"), "one\n");
    assert_eq!(text("a..b/changed/to"), "from\n", "replaced by a rename");
    assert_eq!(text("a..b/removed/kind"), "kind\n");
    assert_eq!(text("a..b/removed/src/old/two.c"), "two\n");
    // Each is the snapshot's own node.
    let ino = |path: &str| fs::metadata(m.path(&format!(".snapshots/{path}"))).unwrap().ino();
    assert_eq!(ino(".diff/a..b/added/fresh/sub/a"), ino("b/fresh/sub/a"));
    assert_eq!(ino(".diff/a..b/removed/from"), ino("a/from"));
    assert_eq!(names_in(&m.path(".snapshots")), ["a", "b"], "hidden from listings");
    assert!(names_in(&m.path(".snapshots/.diff")).is_empty(), "by name only");
    assert_eq!(names_in(&m.path(".snapshots/.diff/a..b")), ["added", "changed", "removed"]);
    assert_eq!(os_error(fs::metadata(m.path("src/.snapshots/.diff"))), ENOENT, "in the root only");
}

/// SEMANTICS §4.31: A name is split where both sides are snapshots.
#[test]
fn names_lead_to_pairs_of_snapshots() {
    let m = Mounted::new();
    let diff = |name: &str| fs::metadata(m.path(&format!(".snapshots/.diff/{name}")));
    assert!(names_in(&m.path(".snapshots/.diff")).is_empty());
    fs::write(m.path("f"), "1").unwrap();
    for name in ["a", "b..c", "x.", "..y"] {
        take(&m, name);
        fs::write(m.path(&format!("after {name}")), "").unwrap();
    }
    for name in ["a..b..c", "b..c..a", "b..c..b..c", "x...a", "a....y", "..y..a"] {
        assert!(diff(name).unwrap().is_dir(), "{name}");
    }
    assert_eq!(walk(&m, "a..b..c"), ["added/after a"]);
    assert!(walk(&m, "a..a").is_empty(), "the same twice differs in nothing");
    assert_eq!(names_in(&m.path(".snapshots/.diff/a..a")).len(), 3);
    for name in ["a..b", "a", "a..", "..a", "a.b..c", "a..live", "live..a", "..."] {
        assert_eq!(os_error(diff(name)), ENOENT, "{name}");
    }
    assert_eq!(os_error(diff("a..x./other")), ENOENT);
    take(&m, "live");
    assert!(diff("a..live").unwrap().is_dir(), "a snapshot of that name");
}

#[test]
fn programs_walk_and_copy_and_cannot_write() {
    let m = sample();
    let out = m.outside().join("out");
    fs::create_dir(&out).unwrap();
    let dir = m.path(".snapshots/.diff/a..b");
    run("cp", &["-a", dir.to_str().unwrap(), out.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(out.join("a..b/added/fresh/sub/a")).unwrap(), "a\n");
    let count = |command: &str| run_in(&dir, command).lines().count();
    let all = ONLY_IN_A.len() + ONLY_IN_B.len() + IN_BOTH.len();
    assert_eq!(count("find . -mindepth 2"), all);
    assert_eq!(count("tar cf - . | tar tf -"), all + 4);
    assert!(run_in(&dir, "ls -lRa").contains("two.c"));
    let copied = run_in(&out.join("a..b"), "find . -mindepth 2");
    assert_eq!(copied.lines().count(), all);

    for below in ["", "added", "added/keep", "changed/docs"] {
        let new = dir.join(below).join("new");
        assert_eq!(os_error(fs::create_dir(&new)), EPERM, "{below}");
        assert_eq!(os_error(File::create(&new)), EPERM, "{below}");
        assert_eq!(os_error(fs::rename(m.path("to"), &new)), EPERM, "{below}");
        let perm = fs::Permissions::from_mode(0o777);
        assert_eq!(os_error(fs::set_permissions(dir.join(below), perm)), EPERM, "{below}");
    }
    let leaf = dir.join("changed/src/main.c");
    assert_eq!(os_error(File::options().write(true).open(&leaf)), EROFS);
    assert_eq!(os_error(fs::remove_file(&leaf)), EPERM);
    assert_eq!(os_error(File::create(dir.join("added/fresh/new"))), EROFS);
    assert_eq!(os_error(fs::remove_dir(dir.join("changed/docs"))), EPERM);
    assert_eq!(os_error(fs::remove_dir(&dir)), EPERM);
    assert_eq!(os_error(fs::remove_dir(m.path(".snapshots/.diff"))), EPERM);
    assert_eq!(os_error(fs::create_dir(m.path(".snapshots/.diff/a..c"))), EPERM);
    m.assert_sound();
}

/// More names than one request lists, as virtual directories and as files; and what is forgotten
/// takes no memory.
#[test]
fn large_differences_are_listed_whole_and_forgotten() {
    let m = Mounted::new();
    run_in(&m.path(""), "mkdir d && for n in $(seq -w 1 1500); do mkdir d/$n; done");
    take(&m, "a");
    run_in(&m.path("d"), "for n in $(seq -w 1 1500); do : >$n/f; : >f$n; done");
    take(&m, "b");
    let (empty, _) = held(&m, "virtual_nodes");
    let dir = m.path(".snapshots/.diff/a..b/added/d");
    let expected: Vec<_> = (1..=1500)
        .map(|n| format!("{n:04}"))
        .chain((1..=1500).map(|n| format!("f{n:04}")))
        .collect();
    assert_eq!(names_in(&dir), expected);
    let listed = run("ls", &["-l", dir.to_str().unwrap()]);
    assert_eq!(listed.lines().count(), 3001);
    assert_eq!(walk(&m, "a..b").len(), 1 + 1500 * 3);
    assert!(held(&m, "virtual_nodes").0 > empty + 1500 * 256);
    let (one, bound) = held(&m, "differences");
    assert!(one > 3000 * 5 && one <= bound);
    assert_eq!(names_in(&m.path(".snapshots/.diff/b..a/removed/d")).len(), 3000);
    assert_eq!(held(&m, "differences").0, 2 * one, "each is kept once");
    assert_eq!(names_in(&dir).len(), 3000);
    assert_eq!(held(&m, "differences").0, 2 * one);
    // A kernel drops everything below a name that leads nowhere any more.
    fs::rename(m.path(".snapshots/b"), m.path(".snapshots/c")).unwrap();
    for pair in ["a..b", "b..a"] {
        assert_eq!(os_error(fs::metadata(m.path(&format!(".snapshots/.diff/{pair}")))), ENOENT);
    }
    wait_until("the kernel let go", || held(&m, "virtual_nodes").0 < empty + 8 * 512);
    assert_eq!(names_in(&m.path(".snapshots/.diff/a..c/added/d")).len(), 3000);
}

/// SEMANTICS §4.32: A difference of more than 16 MiB of paths is `E2BIG`.
#[test]
fn differences_beyond_the_bound_are_refused() {
    let m = Mounted::new();
    let deep = format!("{0}/{0}/{0}/{0}/{0}", "d".repeat(250));
    fs::create_dir_all(m.path(&deep)).unwrap();
    take(&m, "a");
    let fill = |numbers: std::ops::Range<u32>| {
        for n in numbers {
            File::create(m.path(&format!("{deep}/{n:0>250}"))).unwrap();
        }
    };
    fill(0..7_000);
    take(&m, "half");
    fill(7_000..11_500);
    take(&m, "b");
    fs::write(m.path("small"), "").unwrap();
    take(&m, "c");
    let diff = |name: &str| fs::metadata(m.path(&format!(".snapshots/.diff/{name}")));
    for pair in ["a..b", "b..a", "a..c"] {
        assert_eq!(os_error(diff(pair)), E2BIG, "{pair}");
    }
    assert_eq!(walk(&m, "b..c"), ["added/small"], "others work");
    // There is no room for all of these, and none fails for it.
    let inside = File::open(m.path(&format!(".snapshots/.diff/a..half/added/{deep}"))).unwrap();
    for pair in ["half..a", "half..b", "b..half", "half..a"] {
        assert!(diff(pair).unwrap().is_dir(), "{pair}");
        let (bytes, bound) = held(&m, "differences");
        assert!(bytes > 5 << 20 && bytes <= bound, "{pair}: {bytes}");
    }
    let by_handle = Path::new("/proc/self/fd").join(inside.as_raw_fd().to_string());
    assert_eq!(names_in(&by_handle).len(), 7_000, "made again");
    assert_eq!(m.ask_json(&["snapshot", "diff"], &["a", "b", "--stat"])["added"]["files"], 11_500);
}

#[test]
fn a_snapshot_that_is_deleted_takes_its_differences_along() {
    let m = sample();
    take(&m, "c");
    let dir = m.path(".snapshots/.diff/a..b");
    let inside = File::open(dir.join("added/keep")).unwrap();
    let file = File::open(dir.join("changed/src/main.c")).unwrap();
    let by_handle = Path::new("/proc/self/fd").join(inside.as_raw_fd().to_string());
    assert_eq!(names_in(&by_handle), ["deep"]);
    fs::remove_dir(m.path(".snapshots/b")).unwrap();
    assert_eq!(os_error(fs::metadata(&dir)), ENOENT);
    let gone = [ENOENT, ESTALE];
    assert!(gone.contains(&os_error(fs::read_dir(&by_handle).and_then(|mut all| {
        all.next().transpose().map(|first| assert!(first.is_none(), "nothing is left"))?;
        Err::<(), _>(std::io::Error::from_raw_os_error(ENOENT))
    }))));
    assert!(gone.contains(&os_error(fs::metadata(by_handle.join("deep")))));
    assert_eq!(std::io::read_to_string(file).unwrap(), "one\nmore\n", "as any file of a snapshot");
    assert_eq!(walk(&m, "a..c").len(), ONLY_IN_A.len() + ONLY_IN_B.len() + IN_BOTH.len());
}

/// SEMANTICS §4.33: Only the owner of the volume's root comes in.
#[test]
fn nobody_sees_more_than_the_snapshots_let_them() {
    const USER: u32 = 65_534;
    let m = Mounted::new();
    run_in(&m.path(""), "chmod 755 . && mkdir open closed opened && touch opened/x closed/x");
    for dir in ["closed", "opened"] {
        fs::set_permissions(m.path(dir), fs::Permissions::from_mode(0o700)).unwrap();
    }
    take(&m, "a");
    fs::set_permissions(m.path("opened"), fs::Permissions::from_mode(0o755)).unwrap();
    for dir in ["open", "closed", "opened"] {
        fs::write(m.path(&format!("{dir}/secret")), "x").unwrap();
    }
    take(&m, "b");
    let look = |below: &str| {
        // From the mount's root, which only root may be able to walk to.
        let drop = "setpriv --reuid=65534 --regid=65534 --clear-groups";
        let line = format!("cd {} && {drop} ls .snapshots/.diff/{below}", m.text(""));
        try_run("sh", &["-c", &line]).code == Some(0)
    };
    for below in ["", "a..b", "a..b/added", "a..b/added/open/secret"] {
        assert!(!look(below), "{below}");
    }
    chown(m.path(""), Some(USER), None).unwrap();
    for below in ["", "a..b", "a..b/added", "a..b/added/open", "a..b/added/open/secret"] {
        assert!(look(below), "{below}");
    }
    for below in ["closed", "closed/secret", "opened", "opened/secret"] {
        assert!(!look(&format!("a..b/added/{below}")), "{below}");
    }
    assert_eq!(names_in(&m.path(".snapshots/.diff/a..b/added/closed")), ["secret"], "root looks");
}
