//! Going back through the mount: `.latest`, names of seconds, `.history`.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::helper::{Mounted, names_in, os_error, take};
use crate::testkit::{Ran, run, run_in, stratafs, try_run, wait_until};

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EINVAL: i32 = 22;

/// Runs a line in the mount's root, which only root may be able to walk to.
fn as_nobody(m: &Mounted, line: &str) -> Ran {
    let drop = "setpriv --reuid=65534 --regid=65534 --clear-groups sh -c";
    try_run("sh", &["-c", &format!("cd {} && {drop} '{line}'", m.text(""))])
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// SEMANTICS §4.15: `.snapshots/.latest` is a link to the newest snapshot in which the directory
/// existed.
#[test]
fn latest_leads_to_the_newest_snapshot_that_has_the_directory() {
    let m = Mounted::new();
    let latest = m.path(".snapshots/.latest");
    assert_eq!(os_error(fs::symlink_metadata(&latest)), ENOENT, "no snapshot yet");
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("d/a"), "one").unwrap();
    take(&m, "s1");
    fs::write(m.path("d/a"), "two").unwrap();
    assert_eq!(fs::read_link(&latest).unwrap().to_str(), Some("s1"));
    take(&m, "s2");
    assert_eq!(fs::read_link(&latest).unwrap().to_str(), Some("s2"));
    assert_eq!(text(&latest.join("d/a")), "two");
    fs::create_dir(m.path("late")).unwrap();
    assert_eq!(os_error(fs::symlink_metadata(m.path("late/.snapshots/.latest"))), ENOENT);
    // The kernel keeps targets of links: a renamed snapshot must not leave it a wrong one.
    fs::rename(m.path(".snapshots/s2"), m.path(".snapshots/renamed")).unwrap();
    assert_eq!(fs::read_link(&latest).unwrap().to_str(), Some("renamed"));
    fs::remove_dir(m.path(".snapshots/renamed")).unwrap();
    assert_eq!(text(&latest.join("d/a")), "one");
    assert_eq!(text(&m.path("d/.snapshots/.latest/a")), "one", "in every directory");
    assert_eq!(names_in(&m.path(".snapshots")), ["s1"], "hidden from listings");
    assert_eq!(os_error(fs::remove_dir(&latest)), 20, "a link is no directory");
    assert_eq!(os_error(fs::remove_file(&latest)), EPERM);
}

/// SEMANTICS §4.14: A snapshot cannot be named `.latest`, `.gmt`, `.diff`, `.history` or like
/// `@GMT-…` (`EINVAL`).
#[test]
fn names_with_a_meaning_cannot_name_a_snapshot() {
    let m = Mounted::new();
    take(&m, "s");
    for name in ["@GMT-", "@GMT-2001.01.01-00.00.00", "@GMT-x"] {
        let path = m.path(&format!(".snapshots/{name}"));
        assert_eq!(os_error(fs::create_dir(&path)), EINVAL, "{name}");
        assert_eq!(os_error(fs::rename(m.path(".snapshots/s"), &path)), EINVAL, "{name}");
    }
    for name in [".latest", ".gmt", ".history", ".diff", "@GMT-x"] {
        let refused = m.ask(&["snapshot", "create"], &[name]);
        assert_eq!(refused.code, Some(1), "{refused:#?}");
        assert!(refused.stderr.contains("has a meaning of its own"), "{refused:#?}");
    }
    assert_eq!(names_in(&m.path(".snapshots")), ["s"]);
}

/// The `@GMT-…` name of a snapshot, from what `snapshot list` says.
fn gmt_name(m: &Mounted, snapshot: &str) -> String {
    let list = m.ask_json(&["snapshot", "list"], &[]);
    let found =
        list["snapshots"].as_array().unwrap().iter().find(|s| s["name"] == snapshot).unwrap();
    let time = found["created"].as_str().unwrap();
    format!(
        "@GMT-{}.{}.{}-{}.{}.{}",
        &time[0..4],
        &time[5..7],
        &time[8..10],
        &time[11..13],
        &time[14..16],
        &time[17..19]
    )
}

/// SEMANTICS §4.16: `.snapshots/.gmt` lists the snapshots by the second they were taken in.
/// SEMANTICS §4.17: `@GMT-…` is looked up in `.snapshots` and in every directory of the live tree.
#[test]
fn snapshots_have_the_names_that_windows_asks_for() {
    let m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("d/a"), "one").unwrap();
    take(&m, "s1");
    let first = gmt_name(&m, "s1");
    // In one second the newest counts.
    wait_until("the next second", || {
        fs::write(m.path("d/a"), "two").unwrap();
        take(&m, "s2");
        let reached = gmt_name(&m, "s2") != first;
        if !reached {
            fs::remove_dir(m.path(".snapshots/s2")).unwrap();
        }
        reached
    });
    let second = gmt_name(&m, "s2");
    assert_eq!(names_in(&m.path(".snapshots/.gmt")), [first.clone(), second.clone()]);
    for (name, content) in [(&first, "one"), (&second, "two")] {
        for path in [
            format!(".snapshots/.gmt/{name}/d/a"),
            format!(".snapshots/{name}/d/a"),
            format!("d/.snapshots/.gmt/{name}/a"),
            format!("{name}/d/a"),
            format!("d/{name}/a"),
        ] {
            assert_eq!(text(&m.path(&path)), content, "{path}");
        }
    }
    assert_eq!(names_in(&m.path("")), ["d"], "hidden from listings");
    assert_eq!(os_error(fs::metadata(m.path("@GMT-2001.01.01-00.00.00"))), ENOENT);
    assert_eq!(os_error(fs::create_dir(m.path(".snapshots/.gmt/x"))), EPERM);
    assert_eq!(os_error(fs::remove_dir(m.path(&format!(".snapshots/.gmt/{first}")))), EPERM);
    // A real entry of such a name comes first.
    fs::create_dir(m.path("d/@GMT-2001.01.01-00.00.00")).unwrap();
    assert_eq!(names_in(&m.path("d")), ["@GMT-2001.01.01-00.00.00", "a"]);
}

/// SEMANTICS §4.18: `DIR/.history/NAME/` lists the contents that NAME had in snapshots, each
/// different from the one before.
#[test]
fn history_lists_each_content_once() {
    let m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    let file = m.path("d/letter.odt");
    let replace = |content: &str| {
        // As rsync does: another inode each time.
        fs::write(m.path("d/.tmp"), content).unwrap();
        fs::rename(m.path("d/.tmp"), &file).unwrap();
    };
    replace("one");
    take(&m, "s1");
    take(&m, "s2");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    take(&m, "s3");
    replace("one");
    take(&m, "s4");
    fs::write(&file, "two in place").unwrap();
    take(&m, "s5");
    run("touch", &["-d", "2001-01-01", file.to_str().unwrap()]);
    take(&m, "s6");
    replace("three");
    take(&m, "s7");
    fs::remove_file(&file).unwrap();
    take(&m, "s8");

    let past = m.path("d/.history/letter.odt");
    let versions = names_in(&past);
    assert_eq!(versions.len(), 3, "{versions:?}");
    let contents: Vec<_> = versions.iter().map(|name| text(&past.join(name))).collect();
    assert_eq!(contents, ["one", "two in place", "three"], "sorted by time");
    assert!(versions.iter().all(|name| name.contains(".odt") && name.starts_with("20")));
    assert_eq!(names_in(&m.path("d/.snapshots/.history/letter.odt")), versions);
    assert_eq!(names_in(&m.path(".snapshots/s1/d/.history/letter.odt")), versions);
    // Each is the snapshot's own node, so nothing is stored or read twice.
    let newest = fs::metadata(past.join(&versions[2])).unwrap();
    assert_eq!(newest.ino(), fs::metadata(m.path(".snapshots/s7/d/letter.odt")).unwrap().ino());
    assert_eq!(os_error(File::options().write(true).open(past.join(&versions[0]))), 30);
    assert_eq!(os_error(fs::remove_file(past.join(&versions[0]))), EPERM);

    assert_eq!(names_in(&m.path("d/.history")), ["letter.odt"], "gone, and listed");
    assert!(names_in(&m.path("d")).is_empty(), "hidden from listings");
    assert_eq!(os_error(fs::metadata(m.path("d/.history/never"))), ENOENT);
    assert_eq!(os_error(fs::create_dir(m.path("d/.snapshots/.history/x"))), EPERM);
    fs::remove_dir(m.path(".snapshots/s7")).unwrap();
    assert_eq!(names_in(&past).len(), 2, "what no snapshot has is gone");
}

/// Memory of virtual nodes, and its bound.
fn virtual_bytes(m: &Mounted) -> (u64, u64) {
    let stats = m.ask_json(&["stats"], &[]);
    let held = &stats["memory"]["virtual_nodes"];
    (held["bytes"].as_u64().unwrap(), held["bound_bytes"].as_u64().unwrap())
}

#[test]
fn history_of_a_large_directory_is_complete() {
    let m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    for n in 0..3000 {
        fs::write(m.path(&format!("d/{n:04}")), b"x").unwrap();
    }
    take(&m, "s1");
    for n in 0..1500 {
        fs::remove_file(m.path(&format!("d/{n:04}"))).unwrap();
    }
    take(&m, "s2");
    fs::write(m.path("d/new"), b"in no snapshot").unwrap();
    let expected: Vec<_> = (0..3000).map(|n| format!("{n:04}")).collect();
    assert_eq!(names_in(&m.path("d/.history")), expected);
    // With attributes, which the kernel counts as lookups.
    let listed = run("ls", &["-l", &m.text("d/.history")]);
    assert_eq!(listed.lines().count(), 3001);
    assert_eq!(names_in(&m.path("d/.history/0007")).len(), 1);
}

/// More names than there is memory for: the kernel is asked to let go, and nobody meets the bound.
#[test]
fn virtual_nodes_are_bounded_and_let_go() {
    let m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    let count: u64 = 9_000;
    for n in 0..count {
        File::create(m.path(&format!("d/{n:0>240}"))).unwrap();
    }
    take(&m, "s1");
    let (_, bound) = virtual_bytes(&m);
    assert!(bound < count * 490, "the test is too small");
    let listed = run("ls", &["-l", &m.text("d/.history")]);
    assert_eq!(listed.lines().count() as u64, count + 1);
    wait_until("the kernel let go", || virtual_bytes(&m).0 <= bound * 6 / 10);
    // A process that stands in one keeps it.
    let inside = m.path(&format!("d/.history/{:0>240}", 7));
    let listed = run_in(&inside, "ls -l .. >/dev/null; ls");
    assert_eq!(listed.lines().count(), 1);
}

/// SEMANTICS §4.19: A real entry named `.history` comes first.
#[test]
fn real_entries_named_history_come_first() {
    let mut m = Mounted::new();
    fs::create_dir(m.path("home")).unwrap();
    assert_eq!(os_error(fs::metadata(m.path("home/.history"))), ENOENT, "no snapshot has it");
    fs::write(m.path("home/.history"), "ls\ncd\n").unwrap();
    take(&m, "s1");
    assert_eq!(text(&m.path("home/.history")), "ls\ncd\n");
    assert_eq!(names_in(&m.path("home/.snapshots/.history")), [".history"]);

    fs::create_dir(m.path("other")).unwrap();
    take(&m, "s2");
    assert!(fs::metadata(m.path("other/.history")).unwrap().is_dir(), "shown by lookup");
    m.remount_with(&["-o", "history=off"]);
    fs::write(m.path("other/.history"), "kept").unwrap();
    assert_eq!(text(&m.path("other/.history")), "kept");
    assert_eq!(names_in(&m.path("home/.snapshots/.history")), [".history"]);
    let refused = stratafs(&["mount", "x", "y", "-o", "history=maybe"]);
    assert!(refused.stderr.contains("must be on or off"), "{refused:#?}");
}

/// SEMANTICS §4.19: The shown one gives way to whoever writes into it. A copied tree may have
/// directories of that name.
#[test]
fn history_gives_way_to_a_real_directory() {
    let m = Mounted::new();
    run("chmod", &["777", &m.text("")]);
    fs::create_dir(m.path("home")).unwrap();
    fs::write(m.path("home/a"), "one").unwrap();
    fs::create_dir(m.path("mine")).unwrap();
    run("chown", &["65534:65534", &m.text("mine")]);
    take(&m, "s1");
    let source = tempfile::tempdir().unwrap();
    let from = source.path().to_str().unwrap();
    run_in(source.path(), "mkdir -p .history/deep; echo x >.history/deep/f; echo one >a");
    run_in(source.path(), "chmod 750 .history; touch -d 2020-02-02 .history/deep .history");
    run("rsync", &["-aHAX", &format!("{from}/"), &m.text("home/")]);
    let differing = run("rsync", &["-aHAXin", &format!("{from}/"), &m.text("home/")]);
    assert_eq!(differing, "", "rsync has nothing left to do");
    assert_eq!(names_in(&m.path("home")), [".history", "a"], "it is a real one now");
    assert_eq!(names_in(&m.path("home/.snapshots/.history/a")).len(), 1, "what was stays shown");

    for (making, path) in [
        ("mkdir -p .history/b", "c1/.history/b"),
        (">.history/b", "c2/.history/b"),
        ("ln -s x .history/b", "c3/.history/b"),
        (">b; mv b .history/b", "c4/.history/b"),
        (">b; ln b .history/b", "c5/.history/b"),
        ("mkfifo .history/b", "c6/.history/b"),
        ("chmod 700 .history; >.history/b", "c7/.history/b"),
        ("setfattr -n user.x -v y .history; >.history/b", "c8/.history/b"),
    ] {
        let dir = m.path(&path[..2]);
        fs::create_dir(&dir).unwrap();
        take(&m, &path[..2]);
        run_in(&dir, making);
        assert!(fs::symlink_metadata(m.path(path)).is_ok(), "{making}");
        assert!(names_in(&dir).contains(&".history".to_owned()), "{making}");
    }
    assert_ne!(as_nobody(&m, ">home/.history/b").code, Some(0));
    assert_eq!(as_nobody(&m, ">mine/.history/b").code, Some(0));
    assert_eq!(fs::metadata(m.path("mine/.history")).unwrap().uid(), 65534);
}

/// SEMANTICS §4.19: Removing something in it, and writing where it is shown elsewhere, makes none.
#[test]
fn history_gives_way_to_nothing_else() {
    let mut m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("d/a"), "one").unwrap();
    take(&m, "s1");
    for line in [
        "rmdir .history",
        "rmdir .history/a",
        "rm -rf .history",
        "mv .history other",
        ">.history/a/b",
        ">.snapshots/.history/b",
        ">.snapshots/s1/.history/b",
        "mkdir .snapshots/s1/.history/b",
    ] {
        let tried = try_run("sh", &["-c", &format!("cd {} && {line}", m.text("d"))]);
        assert_ne!(tried.code, Some(0), "{line}");
        assert_eq!(names_in(&m.path("d")), ["a"], "{line}");
    }
    m.remount_with(&["-o", "ro"]);
    let tried = try_run("sh", &["-c", &format!(">{}", m.text("d/.history/b"))]);
    assert_ne!(tried.code, Some(0));
}

/// What a directory did not let somebody see when the snapshot was taken stays unseen.
#[test]
fn history_shows_nobody_more_than_the_directory_did() {
    let m = Mounted::new();
    run("chmod", &["755", &m.text("")]);
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("d/secret"), "x").unwrap();
    fs::set_permissions(m.path("d"), fs::Permissions::from_mode(0o700)).unwrap();
    take(&m, "s1");
    fs::set_permissions(m.path("d"), fs::Permissions::from_mode(0o755)).unwrap();
    let look = |what: &str| as_nobody(&m, &format!("ls {what}"));
    assert_eq!(look("d").code, Some(0), "open now");
    assert_ne!(look("d/.history").code, Some(0), "closed then");
    assert_ne!(look("d/.history/secret").code, Some(0));
    assert_eq!(names_in(&m.path("d/.history/secret")).len(), 1, "root looks");
}
