//! `.snapshots`: hidden, there in every directory, read-only inside.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};

use super::helper::{Mounted, names_in, os_error, take};
use super::tree::{assert_same_facts, facts, make_troublesome_tree};
use crate::testkit::{MIB, random_bytes, run, run_in, try_run};

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const EXDEV: i32 = 18;
const EROFS: i32 = 30;
const ENAMETOOLONG: i32 = 36;

/// SEMANTICS §4.1, and how they go: SEMANTICS §4.2.
#[test]
fn mkdir_rmdir_and_mv_make_delete_and_rename() {
    let mut m = Mounted::new();
    fs::write(m.path("a"), b"one").unwrap();
    take(&m, "s1");
    fs::write(m.path("a"), b"two").unwrap();
    take(&m, "s2");
    assert_eq!(names_in(&m.path("")), ["a"], "hidden from listings");
    assert_eq!(names_in(&m.path(".snapshots")), ["s1", "s2"]);
    assert_eq!(fs::read(m.path(".snapshots/s1/a")).unwrap(), b"one");
    assert_eq!(fs::read(m.path(".snapshots/s2/a")).unwrap(), b"two");

    fs::rename(m.path(".snapshots/s1"), m.path(".snapshots/first")).unwrap();
    assert_eq!(fs::read(m.path(".snapshots/first/a")).unwrap(), b"one");
    assert_eq!(os_error(fs::metadata(m.path(".snapshots/s1"))), ENOENT);
    fs::remove_dir(m.path(".snapshots/s2")).unwrap();
    assert_eq!(os_error(fs::metadata(m.path(".snapshots/s2/a"))), ENOENT);
    m.remount();
    assert_eq!(names_in(&m.path(".snapshots")), ["first"]);
    m.assert_sound();
}

/// SEMANTICS §4.2.
#[test]
fn names_that_cannot_be_are_refused() {
    let m = Mounted::new();
    take(&m, "taken");
    let long = format!(".snapshots/{}", "x".repeat(256));
    assert_eq!(os_error(fs::create_dir(m.path(".snapshots/taken"))), EEXIST);
    assert_eq!(os_error(fs::create_dir(m.path(&long))), ENAMETOOLONG);
    assert_eq!(os_error(fs::remove_dir(m.path(".snapshots/none"))), ENOENT);
    assert_eq!(os_error(fs::create_dir(m.path(".snapshots"))), EEXIST);
    take(&m, "other");
    let over = fs::rename(m.path(".snapshots/other"), m.path(".snapshots/taken"));
    assert_eq!(os_error(over), EEXIST, "a snapshot never replaces another");
    fs::create_dir(m.path("plain")).unwrap();
    let moved = fs::rename(m.path("plain"), m.path(".snapshots/plain"));
    assert!([EXDEV, 1].contains(&os_error(moved)), "a directory became a snapshot");
    assert!(fs::write(m.path(".snapshots/file"), b"").is_err());
    assert!(symlink("x", m.path(".snapshots/link")).is_err());
    assert!(fs::remove_dir(m.path(".snapshots")).is_err());
    assert!(fs::rename(m.path(".snapshots"), m.path("moved")).is_err());
    assert_eq!(names_in(&m.path(".snapshots")), ["other", "taken"]);
    assert_eq!(names_in(&m.path("")), ["plain"]);
}

/// SEMANTICS §4.7.
#[test]
fn everything_inside_is_read_only() {
    let m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("d/a"), b"x").unwrap();
    take(&m, "s");
    let inside = |path: &str| m.path(&format!(".snapshots/s/{path}"));
    let file = inside("d/a");
    let text = file.to_str().unwrap();
    assert_eq!(os_error(OpenOptions::new().write(true).open(&file)), EROFS);
    assert_eq!(os_error(OpenOptions::new().write(true).truncate(true).open(&file)), EROFS);
    assert_eq!(os_error(fs::write(inside("d/new"), b"")), EROFS);
    assert_eq!(os_error(fs::create_dir(inside("new"))), EROFS);
    assert_eq!(os_error(fs::remove_file(&file)), EROFS);
    assert_eq!(os_error(fs::remove_dir(inside("d"))), EROFS);
    assert_eq!(os_error(fs::rename(&file, inside("b"))), EROFS);
    assert_eq!(os_error(fs::hard_link(&file, inside("l"))), EROFS);
    assert_eq!(os_error(symlink("x", inside("l"))), EROFS);
    assert_eq!(
        os_error(fs::set_permissions(&file, fs::metadata(m.path("")).unwrap().permissions())),
        EROFS
    );
    for command in [
        &["setfattr", "-n", "user.x", "-v", "1", text][..],
        &["setfacl", "-m", "u:1:r", text],
        &["touch", "-d", "2001-01-01", text],
        &["chown", "1", text],
        &["truncate", "-s", "0", text],
        &["mkfifo", inside("fifo").to_str().unwrap()],
    ] {
        let ran = try_run(command[0], &command[1..]);
        assert!(ran.stderr.contains("Read-only file system"), "{command:?}: {ran:#?}");
    }
    assert!([EXDEV, EROFS].contains(&os_error(fs::rename(&file, m.path("out")))));
    assert!([EXDEV, EROFS].contains(&os_error(fs::hard_link(&file, m.path("out")))));
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

/// A tree with everything in it looks the same in a snapshot, whatever happens to it afterwards.
#[test]
fn a_snapshot_shows_exactly_what_was_there() {
    let mut m = Mounted::new();
    let source = m.outside().join("source");
    make_troublesome_tree(&source);
    run("rsync", &["-aHAXS@-1", source.to_str().unwrap(), &m.text("")]);
    let expected = facts(&m.path("source"));
    take(&m, "s");
    assert_same_facts(&expected, &facts(&m.path(".snapshots/s/source")), "at once");
    run_in(
        &m.path("source"),
        "find . -type f -exec sh -c 'echo more >> \"$1\"; chmod 777 \"$1\"' _ {} \\;
         setfattr -x user.comment plain/big.bin; rm -rf deep; mv plain moved; mkdir plain deep
         chown -R 7:7 .; touch -d 2020-01-01 empty",
    );
    assert_same_facts(&expected, &facts(&m.path(".snapshots/s/source")), "after changes");
    run("rm", &["-rf", &m.text("source")]);
    m.ask(&["gc"], &[]).ok();
    m.remount();
    assert_same_facts(&expected, &facts(&m.path(".snapshots/s/source")), "after all was removed");
    m.assert_sound();
}

/// SEMANTICS §4.4.
#[test]
fn every_directory_has_its_own_view() {
    let m = Mounted::new();
    take(&m, "empty");
    fs::create_dir_all(m.path("a/b")).unwrap();
    fs::write(m.path("a/b/file"), b"one").unwrap();
    take(&m, "s");
    fs::write(m.path("a/b/file"), b"two").unwrap();
    assert_eq!(fs::read(m.path("a/b/.snapshots/s/file")).unwrap(), b"one");
    assert_eq!(fs::read(m.path("a/.snapshots/s/b/file")).unwrap(), b"one");
    assert_eq!(names_in(&m.path("a/b/.snapshots")), ["s"], "it was not there in the first one");
    assert_eq!(names_in(&m.path("a/b")), ["file"]);
    fs::create_dir(m.path("a/b/.snapshots/from-below")).unwrap();
    assert_eq!(fs::read(m.path(".snapshots/from-below/a/b/file")).unwrap(), b"two");
    fs::rename(m.path("a"), m.path("moved")).unwrap();
    assert_eq!(fs::read(m.path("moved/b/.snapshots/s/file")).unwrap(), b"one");
    fs::remove_dir(m.path("moved/b/.snapshots/from-below")).unwrap();
    assert_eq!(names_in(&m.path(".snapshots")), ["empty", "s"]);
}

#[test]
fn inode_numbers_are_distinct_and_stable() {
    let mut m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("d/a"), b"x").unwrap();
    fs::hard_link(m.path("d/a"), m.path("b")).unwrap();
    take(&m, "s");
    take(&m, "t");
    let paths = [
        "d/a",
        ".snapshots/s/d/a",
        ".snapshots/t/d/a",
        "d",
        ".snapshots/s/d",
        "",
        ".snapshots/s",
        ".snapshots/t",
        ".snapshots",
        "d/.snapshots",
    ];
    let numbers = |m: &Mounted| -> Vec<u64> {
        paths.iter().map(|path| fs::symlink_metadata(m.path(path)).unwrap().ino()).collect()
    };
    let before = numbers(&m);
    let mut distinct = before.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), paths.len(), "{before:?}");
    let link = |path: &str| {
        let found = fs::metadata(m.path(path)).unwrap();
        (found.ino(), found.nlink())
    };
    assert_eq!(link(".snapshots/s/b"), link(".snapshots/s/d/a"), "hard links agree");
    assert_eq!(link(".snapshots/s/b").1, 2);
    m.remount();
    assert_eq!(numbers(&m), before, "after a remount");
    for entry in fs::read_dir(m.path(".snapshots/s/d")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(std::os::unix::fs::DirEntryExt::ino(&entry), before[1], "readdir agrees");
    }
}

/// SEMANTICS §4.4.
#[test]
fn dot_dot_leads_up() {
    let m = Mounted::new();
    fs::create_dir_all(m.path("d/e")).unwrap();
    take(&m, "s");
    let said = run_in(
        &m.path(""),
        "cd .snapshots/s/d/e && ls -a .. && cd .. && pwd -P && cd ../.. && pwd -P && cd .. && pwd -P
         cd d/.snapshots/s && cd .. && pwd -P",
    );
    let mnt = fs::canonicalize(m.path("")).unwrap().display().to_string();
    let expected = [".", "..", "e", "/.snapshots/s/d", "/.snapshots", "", "/d/.snapshots"];
    for (line, expected) in said.lines().zip(expected) {
        assert_eq!(line.strip_prefix(&mnt).unwrap_or(line), expected, "{said}");
    }
    let number = |path: &str| fs::metadata(m.path(path)).unwrap().ino();
    assert_eq!(number(".snapshots/s/d/.."), number(".snapshots/s"));
}

/// SEMANTICS §4.8.
#[test]
fn an_open_file_outlives_its_snapshot() {
    let m = Mounted::new();
    let data = random_bytes(1, 40 * MIB);
    fs::write(m.path("a.bin"), &data).unwrap();
    take(&m, "s");
    fs::remove_file(m.path("a.bin")).unwrap();
    let file = File::open(m.path(".snapshots/s/a.bin")).unwrap();
    let mut start = vec![0; 1000];
    file.read_exact_at(&mut start, 0).unwrap();
    fs::remove_dir(m.path(".snapshots/s")).unwrap();
    m.ask(&["gc"], &[]).ok();
    let mut found = Vec::new();
    (&file).read_to_end(&mut found).unwrap();
    assert!(found == data, "it changed while it was open");
    drop(file);
    m.assert_sound();
}

/// The command line and the tree are two doors of one room: what one does the other shows at once.
/// SEMANTICS §3.2: names in `.snapshots` are asked for each time.
#[test]
fn snapshots_of_the_command_line_are_visible_at_once() {
    let m = Mounted::new();
    fs::write(m.path("a"), b"x").unwrap();
    for round in 0..5 {
        let name = format!("cli{round}");
        let path = m.path(&format!(".snapshots/{name}"));
        assert_eq!(os_error(fs::metadata(&path)), ENOENT);
        m.ask(&["snapshot", "create"], &[&name]).ok();
        assert_eq!(fs::read(path.join("a")).unwrap(), b"x");
        assert!(names_in(&m.path(".snapshots")).contains(&name));
        m.ask(&["snapshot", "rename"], &[&name, "renamed"]).ok();
        assert_eq!(os_error(fs::metadata(&path)), ENOENT);
        m.ask(&["snapshot", "delete"], &["renamed"]).ok();
        assert_eq!(names_in(&m.path(".snapshots")), [""; 0]);
    }
    take(&m, "tree");
    let listed = m.ask_json(&["snapshot", "list"], &[]);
    assert_eq!(listed["snapshots"][0]["name"], "tree", "{listed:#}");
}

/// SEMANTICS §4.5.
#[test]
fn snapdir_can_be_visible() {
    let mut m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    take(&m, "s");
    m.remount_with(&["-o", "snapdir=visible"]);
    assert_eq!(names_in(&m.path("")), [".snapshots", "d"]);
    assert_eq!(names_in(&m.path(".snapshots")), ["s"]);
    m.remount_with(&[]);
    assert_eq!(names_in(&m.path("")), ["d"]);
}
