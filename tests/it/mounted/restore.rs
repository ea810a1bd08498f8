//! `stratafs restore`, as people use it: mounted and not, with a kernel that remembers.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use super::helper::{Mounted, os_error};
use super::tree::{assert_same_facts, facts, make_troublesome_tree};
use crate::testkit::{MIB, random_bytes, run, run_in, stratafs, try_run};

const ENOENT: i32 = 2;

fn take(m: &Mounted, name: &str) {
    fs::create_dir(m.path(&format!(".snapshots/{name}"))).unwrap();
}

fn restore(m: &Mounted, words: &[&str]) -> serde_json::Value {
    m.ask_json(&["restore"], words)
}

/// The kernel keeps names for an hour, missing ones too, and listings, attributes and ACLs:
/// SEMANTICS §4.26.
#[test]
fn the_kernel_sees_at_once_what_was_restored() {
    let m = Mounted::new();
    fs::create_dir_all(m.path("d/gone")).unwrap();
    fs::write(m.path("d/a"), "one").unwrap();
    fs::write(m.path("d/mode"), "mode").unwrap();
    fs::write(m.path("d/gone/b"), "b").unwrap();
    take(&m, "s");
    fs::write(m.path("d/.tmp"), "two!").unwrap();
    fs::rename(m.path("d/.tmp"), m.path("d/a")).unwrap();
    fs::remove_dir_all(m.path("d/gone")).unwrap();
    run("chmod", &["600", &m.text("d/mode")]);
    run("setfacl", &["-m", "u:77:r", &m.text("d/mode")]);
    fs::create_dir(m.path("d/late")).unwrap();
    fs::write(m.path("d/late/x"), "x").unwrap();
    // All of it into the caches.
    let look = || {
        let listing = run("ls", &["-lR", &m.text("d")]);
        let acl = run("getfacl", &["-cp", &m.text("d/mode")]);
        let a = fs::read_to_string(m.path("d/a")).unwrap();
        let b = fs::read_to_string(m.path("d/gone/b")).map_err(|e| e.raw_os_error());
        (listing, acl, a, b)
    };
    let before = look();
    assert_eq!((&*before.2, &before.3), ("two!", &Err(Some(ENOENT))));
    assert_eq!(look(), before);

    let report = restore(&m, &["s:d", "--delete"]);
    assert_eq!((&report["created"], &report["deleted"]), (&2.into(), &1.into()), "{report:#}");
    let (listing, acl, a, b) = look();
    assert_eq!((&*a, b.as_deref()), ("one", Ok("b")));
    assert!(!listing.contains("late") && listing.contains("gone"), "{listing}");
    assert!(!acl.contains("77"), "{acl}");
    assert_eq!(fs::metadata(m.path("d/mode")).unwrap().mode() & 0o777, 0o644);
    assert_eq!(os_error(fs::metadata(m.path("d/late/x"))), ENOENT);
    m.assert_sound();
}

/// What rsync -aHAXS would have kept comes back, and none of it is stored again.
#[test]
fn a_tree_with_everything_in_it_comes_back() {
    let mut m = Mounted::new();
    let source = m.outside().join("source");
    make_troublesome_tree(&source);
    run("rsync", &["-aHAXS", source.to_str().unwrap(), &m.text("")]);
    let expected = facts(&m.path("source"));
    take(&m, "s");
    let chunks = m.chunks();

    fs::remove_dir_all(m.path("source")).unwrap();
    let report = restore(&m, &["s:source"]);
    assert_eq!(report["unchanged"], 0, "{report:#}");
    assert_same_facts(&facts(&m.path("source")), &expected, "restored where it was");
    restore(&m, &["s:source", &m.text("beside")]);
    assert_same_facts(&facts(&m.path("beside")), &expected, "restored beside");
    assert_eq!(m.chunks(), chunks, "nothing is stored again");

    run_in(
        &m.path("source"),
        "rm plain/hardlink; mv deep/a deep/z; echo more >> plain/text.c; chmod 700 plain/fifo; \
         rm -r empty; echo file > empty; ln plain/big.bin other; touch plain/text2.c; \
         setfattr -n user.more -v 1 plain/big.bin; setfacl -b deep/z/b; rm link; mkdir link",
    );
    let again = restore(&m, &["s:source", "--delete"]);
    assert_ne!(again["unchanged"], 0, "{again:#}");
    assert_same_facts(&facts(&m.path("source")), &expected, "repaired");
    let nothing = restore(&m, &["s:source", "--delete"]);
    assert_eq!(nothing["changes"], serde_json::json!([]), "{nothing:#}");
    m.remount();
    assert_same_facts(&facts(&m.path("source")), &expected, "after a remount");
    m.assert_sound();
}

#[test]
fn it_works_while_not_mounted_and_says_what_it_would_do() {
    let mut m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("d/a"), "one").unwrap();
    fs::write(m.path("d/b"), "same").unwrap();
    take(&m, "2026-11-20T10:15");
    fs::write(m.path("d/a"), "two").unwrap();
    fs::write(m.path("d/new"), "new").unwrap();
    let plan = "M a\n- new\n";
    for mounted in [true, false] {
        if !mounted {
            m.umount();
        }
        let ran = m.ask(&["restore"], &["2026-11-20T10:15:d", "-n", "--delete"]).ok();
        let mut lines: Vec<_> = ran.stdout.lines().collect();
        let summary = lines.pop().unwrap();
        lines.sort_unstable();
        assert_eq!(lines, ["- d/new", "M d/a"], "{plan}");
        assert!(summary.starts_with("Would restore 3 B in files: 0 created, 1 replaced"));
    }
    let ran = m.ask(&["restore"], &["2026-11-20T10:15:d", "--delete"]).ok();
    assert!(ran.stdout.starts_with("Restored 3 B in files"), "{ran:#?}");
    m.mount();
    assert_eq!(fs::read_to_string(m.path("d/a")).unwrap(), "one");
    assert!(!m.path("d/new").exists());
}

#[test]
fn the_place_is_said_in_every_usual_way() {
    let m = Mounted::new();
    fs::create_dir_all(m.path("home/ann")).unwrap();
    fs::write(m.path("home/ann/letter"), "one").unwrap();
    take(&m, "old");
    take(&m, "new");
    fs::remove_file(m.path("home/ann/letter")).unwrap();
    let read = |path: &str| fs::read_to_string(m.path(path)).unwrap();
    restore(&m, &["old:/home/ann/letter"]);
    assert_eq!(read("home/ann/letter"), "one");
    restore(&m, &[".latest:home/ann/letter", "/home/renamed"]);
    assert_eq!(read("home/renamed"), "one");
    restore(&m, &[&format!("old:{}", m.text("home/ann/letter")), &m.text("home/")]);
    // A shell's words end with a slash when it completes a directory.
    restore(&m, &["old:home/ann/letter", &format!("{}/", m.text("home"))]);
    assert_eq!(read("home/letter"), "one");
    restore(&m, &["old:", "whole"]);
    assert_eq!(read("whole/home/ann/letter"), "one");
    // In a directory of the mount, neither volume nor root need be said.
    let program = env!("CARGO_BIN_EXE_stratafs");
    run_in(&m.path("home/ann"), &format!("{program} restore old:home/ann/letter here"));
    assert_eq!(read("home/ann/here"), "one");
    run_in(&m.path("home/ann"), &format!("{program} restore old:home/ann/letter ../up"));
    assert_eq!(read("home/up"), "one");
}

/// Bad words, and SEMANTICS §4.25.
#[test]
fn what_cannot_be_restored_is_refused_in_one_sentence() {
    let mut m = Mounted::new();
    fs::create_dir_all(m.path("d/e")).unwrap();
    fs::write(m.path("d/a"), "one").unwrap();
    take(&m, "s");
    let refused = |words: &[&str], code: i32, text: &[&str]| {
        m.ask(&["restore"], words).refused(code, text);
    };
    refused(&["none:d"], 1, &["No such snapshot none"]);
    refused(&["s"], 1, &["names no snapshot", "SNAPSHOT:PATH"]);
    refused(&["s:missing"], 1, &["No such path missing in snapshot s"]);
    refused(&["s:d/a/b"], 1, &["No such path d/a/b in snapshot s"]);
    refused(&["s:d", ".snapshots/s/x"], 10, &["Read-only", "snapshot"]);
    refused(&["s:d", &m.text("d/.snapshots/x")], 10, &["Read-only", "snapshot"]);
    refused(&["s:d", "no/such/place"], 1, &["No such directory no/such in the volume"]);
    refused(&["s:d", "d/a/x"], 1, &["No such directory d/a in the volume"]);
    refused(&["s:d/a", "d/e"], 1, &["d/e/ is a directory", "end it with /"]);
    refused(&["s:d/a", "."], 1, &["is a directory"]);
    refused(&["s:d", "d/../x"], 1, &["\"..\""]);
    let nowhere = try_run("env", &["-C", "/", env!("CARGO_BIN_EXE_stratafs"), "restore", "s:d"]);
    nowhere.refused(1, &["No volume is mounted here", "VOLUME s:d"]);
    assert_eq!(stratafs(&["restore"]).code, Some(2));

    // A directory with entries is not thrown away for a file unless that is said.
    fs::remove_file(m.path("d/a")).unwrap();
    fs::create_dir_all(m.path("d/a/deep/deeper")).unwrap();
    fs::write(m.path("d/a/deep/kept"), "x").unwrap();
    let in_the_way = m.ask(&["restore"], &["s:d"]);
    assert_eq!(in_the_way.code, Some(1), "{in_the_way:#?}");
    assert!(in_the_way.stdout.contains("! d/a") && in_the_way.stdout.contains("--delete"));
    assert!(m.path("d/a/deep/kept").exists());
    m.ask(&["restore"], &["s:d", "--delete"]).ok();
    assert_eq!(fs::read_to_string(m.path("d/a")).unwrap(), "one");

    m.remount_with(&["-o", "ro"]);
    m.ask(&["restore"], &["s:d/a", "b"]).refused(10, &["ead-only"]);
    m.ask(&["restore"], &["s:d/a", "b", "-n"]).ok();
}

/// Readers beside a restore see whole files only: SEMANTICS §4.23.
#[test]
fn a_file_is_never_half_there() {
    let m = Mounted::new();
    let (one, two) = (random_bytes(1, 3 * MIB), random_bytes(2, 3 * MIB));
    fs::write(m.path("a"), &one).unwrap();
    take(&m, "one");
    fs::write(m.path(".b"), &two).unwrap();
    fs::rename(m.path(".b"), m.path("a")).unwrap();
    take(&m, "two");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) || reads == 0 {
                let found = fs::read(m.path("a")).unwrap();
                assert!(found == one || found == two, "neither one nor the other");
                reads += 1;
            }
        });
        for _ in 0..15 {
            restore(&m, &["one:a"]);
            restore(&m, &["two:a"]);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        reader.join().unwrap();
    });
    File::open(m.path("a")).unwrap().sync_all().unwrap();
    m.assert_sound();
}
