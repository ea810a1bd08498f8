//! `stratafs import`, as people use it: mounted and not, beside rsync.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::helper::{Mounted, is_running, names_in, take};
use super::tree::{assert_same_facts, facts, make_source_tree, make_troublesome_tree};
use crate::testkit::{
    MIB, Ran, SmallDisk, random_bytes, run, run_in, stratafs, text_bytes, wait_until,
};

const RSYNC: &str = "-aHAXS";
/// Without it rsync leaves times of directories and links that differ by less than a second.
const EXACT: &str = "--modify-window=-1";

/// Sources that changed less than two seconds ago are not trusted to be recognized.
fn settle() {
    std::thread::sleep(Duration::from_millis(3100));
}

fn import(m: &Mounted, words: &[&str]) -> Ran {
    m.ask(&["import", "--volume"], words)
}

fn import_json(m: &Mounted, words: &[&str]) -> Value {
    import(m, &[words, &["--json"]].concat()).json()
}

fn count(report: &Value, what: &str) -> u64 {
    report[what].as_u64().unwrap_or_else(|| panic!("{what}: {report:#}"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A directory outside, with a file `a` in it.
fn source(m: &Mounted) -> PathBuf {
    let source = m.outside().join("source");
    fs::create_dir_all(source.join("d")).unwrap();
    fs::write(source.join("a"), "one").unwrap();
    fs::write(source.join("d/b"), "two").unwrap();
    source
}

/// SEMANTICS §4.34.
#[test]
fn a_tree_with_everything_in_it_is_as_rsync_copies_it() {
    let mut m = Mounted::new();
    let source = m.outside().join("source");
    make_troublesome_tree(&source);
    let beside = m.outside().join("rsynced");
    run("rsync", &[RSYNC, EXACT, &format!("{}/", text(&source)), text(&beside)]);
    let expected = facts(&beside);
    settle();

    let report = import_json(&m, &[text(&source), "/"]);
    assert_eq!(count(&report, "failed"), 0, "{report:#}");
    assert_same_facts(&expected, &facts(&m.path("source")), "imported while mounted");
    let sparse = fs::metadata(m.path("source/plain/sparse")).unwrap();
    assert!(sparse.blocks() * 512 < MIB as u64, "holes stay holes");

    m.umount();
    let chunks = || m.ask_json(&["stats"], &[])["chunks"].clone();
    let before = chunks();
    let report = import_json(&m, &[text(&source), "beside"]);
    assert_eq!(count(&report, "failed"), 0, "{report:#}");
    assert_eq!(chunks(), before, "nothing is stored twice");
    m.mount();
    assert_same_facts(&expected, &facts(&m.path("beside/source")), "imported while not");
    m.assert_sound();

    let again = import_json(&m, &[text(&source), "/"]);
    assert_eq!(count(&again, "read_bytes"), 0, "{again:#}");
    assert_eq!(again["changes"], serde_json::json!([]), "{again:#}");
    let from_there = m.outside().join("back");
    run("rsync", &[RSYNC, EXACT, &m.text("source/"), text(&from_there)]);
    assert_same_facts(&expected, &facts(&from_there), "and back");
}

/// The kernel keeps names, listings, pages and attributes: SEMANTICS §4.36.
#[test]
fn the_kernel_sees_at_once_what_was_imported() {
    let m = Mounted::new();
    let source = source(&m);
    import(&m, &[text(&source), "/"]).ok();
    let look = || {
        let a = fs::read_to_string(m.path("source/a")).unwrap();
        let late = fs::read_to_string(m.path("source/late")).ok();
        (a, late, run("ls", &["-lR", &m.text("source")]))
    };
    let (a, late, _) = look();
    assert_eq!((&*a, late), ("one", None));
    fs::write(source.join("a"), "three").unwrap();
    fs::write(source.join("late"), "late").unwrap();
    fs::remove_dir_all(source.join("d")).unwrap();
    import(&m, &[text(&source), "/", "--delete"]).ok();
    let (a, late, listing) = look();
    assert_eq!((&*a, late.as_deref()), ("three", Some("late")));
    assert!(!listing.contains("d:"), "{listing}");
    assert!(fs::metadata(m.path("source/d/b")).is_err());
    m.assert_sound();
}

/// SEMANTICS §4.35: size, mtime, ctime and inode number of the source, and ours.
#[test]
fn unchanged_means_unchanged() {
    let m = Mounted::new();
    let source = source(&m);
    let (a, here) = (source.join("a"), m.path("source/a"));
    settle();
    let again = |what: &str, read: u64| {
        let report = import_json(&m, &[text(&source), "/"]);
        assert_eq!(count(&report, "read_bytes"), read, "{what}: {report:#}");
        assert_eq!(fs::read(&here).unwrap(), fs::read(&a).unwrap(), "{what}");
    };
    again("new", 6);
    again("nothing happened", 0);

    // Same size and mtime, other bytes: only ctime tells.
    let mtime = fs::metadata(&a).unwrap().modified().unwrap();
    let forge = |bytes: &str| {
        fs::write(&a, bytes).unwrap();
        File::options().write(true).open(&a).unwrap().set_modified(mtime).unwrap();
    };
    forge("ONE");
    again("forged outside", 3);
    // It was changed just before it was read: it may have changed again since.
    again("not settled", 3);
    settle();
    again("settled", 3);
    again("settled and known", 0);

    // Another file of the same size and mtime in its place.
    fs::write(source.join(".new"), "TWO").unwrap();
    File::options().write(true).open(source.join(".new")).unwrap().set_modified(mtime).unwrap();
    settle();
    fs::rename(source.join(".new"), &a).unwrap();
    settle();
    again("renamed over", 3);
    again("and known", 0);

    // Changed here, with size and mtime forged.
    fs::write(&here, "xxx").unwrap();
    File::options().write(true).open(&here).unwrap().set_modified(mtime).unwrap();
    again("changed in the volume", 3);
    run("chmod", &["600", text(&here)]);
    again("mode changed in the volume", 3);
    assert_eq!(fs::metadata(&here).unwrap().mode(), fs::metadata(&a).unwrap().mode());
    fs::rename(&here, m.path("source/d/b")).unwrap();
    again("moved in the volume", 6);
    again("known", 0);

    // A mode that changes outside is taken over without storing anything.
    let chunks = m.chunks();
    take(&m, "s");
    let ino = fs::metadata(&here).unwrap().ino();
    run("chmod", &["640", text(&a)]);
    settle();
    again("mode changed outside", 3);
    let now = fs::metadata(&here).unwrap();
    assert_eq!((now.mode() & 0o777, now.ino()), (0o640, ino), "the same inode");
    assert_eq!(m.chunks(), chunks);
    m.assert_sound();
}

#[test]
fn what_rsync_brought_is_stored_once() {
    let m = Mounted::new();
    let source = m.outside().join("source");
    make_source_tree(&source, 300, 1);
    fs::write(source.join("big"), random_bytes(1, 9 * MIB)).unwrap();
    run("rsync", &["-a", EXACT, text(&source), &m.text("")]);
    let (chunks, new) = (m.chunks(), m.total("new_bytes"));
    settle();
    let report = import_json(&m, &[text(&source), "/"]);
    assert_eq!(count(&report, "attributes"), 301, "the same bytes keep their inodes: {report:#}");
    assert_eq!((m.chunks(), m.total("new_bytes")), (chunks, new));
    let report = import_json(&m, &[text(&source), "/"]);
    assert_eq!((count(&report, "unchanged"), count(&report, "read_bytes")), (301, 0));
    assert_same_facts(&facts(&source), &facts(&m.path("source")), "both");
}

#[test]
fn hard_links_hold_among_all_sources_and_come_apart() {
    let m = Mounted::new();
    let (one, two) = (m.outside().join("one"), m.outside().join("two"));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&two).unwrap();
    fs::write(one.join("a"), "linked").unwrap();
    fs::hard_link(one.join("a"), one.join("b")).unwrap();
    fs::hard_link(one.join("a"), two.join("c")).unwrap();
    settle();
    let ino = |name: &str| fs::metadata(m.path(name)).unwrap().ino();
    let words = [text(&one), text(&two), "/"];
    import(&m, &words).ok();
    assert_eq!((ino("one/a"), ino("one/a")), (ino("one/b"), ino("two/c")));
    assert_eq!(fs::metadata(m.path("one/a")).unwrap().nlink(), 3);
    let again = import_json(&m, &words);
    assert_eq!((count(&again, "unchanged"), count(&again, "read_bytes")), (3, 0), "{again:#}");

    fs::remove_file(one.join("b")).unwrap();
    fs::write(one.join("b"), "alone").unwrap();
    import(&m, &words).ok();
    assert_ne!(ino("one/a"), ino("one/b"));
    assert_eq!(fs::read_to_string(m.path("two/c")).unwrap(), "linked");
    assert_eq!(fs::metadata(m.path("one/a")).unwrap().nlink(), 2);
    m.assert_sound();
}

/// What rsync leaves out with the same words is left out.
#[test]
fn rules_leave_out_what_rsync_leaves_out() {
    let m = Mounted::new();
    let source = m.outside().join("source");
    fs::create_dir_all(&source).unwrap();
    run_in(
        &source,
        "mkdir -p build/x a/build a/b/c cache .git/objects; \
         touch a.o keep.o a/a.o a/b/c/deep.o a/build/f build/x/f a/b/c/f cache/f .git/objects/f x; \
         ln -s x link.o; mkdir dir.o; touch dir.o/in",
    );
    let table: [&[&str]; 8] = [
        &["--exclude", "*.o"],
        &["--include", "keep.o", "--exclude", "*.o"],
        &["--exclude", "/build"],
        &["--exclude", "build/"],
        &["--exclude", "a/**/f"],
        &["--exclude", "b/c"],
        &["--include", "a/***", "--exclude", "*"],
        &["--exclude", ".git", "--exclude", "/a/b/*", "--exclude", "?"],
    ];
    for (at, rules) in table.iter().enumerate() {
        let rsynced = m.outside().join(format!("rsynced{at}"));
        let from = format!("{}/", text(&source));
        run("rsync", &[&["-a"], *rules, &[&from, text(&rsynced)]].concat());
        let dest = format!("/t{at}");
        import(&m, &[*rules, &[&from, &dest]].concat()).ok();
        let list = |dir: &Path| run_in(dir, "find . | sort");
        assert_eq!(list(&m.path(&dest[1..])), list(&rsynced), "{rules:?}");
    }
    let from = format!("{}/", text(&source));
    fs::write(source.join("rules"), "# objects\n+ keep.o\n- *.o\n").unwrap();
    fs::write(source.join(".nobackup"), "").unwrap();
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n";
    fs::write(source.join("cache/CACHEDIR.TAG"), tag).unwrap();
    fs::rename(source.join(".nobackup"), source.join("build/.nobackup")).unwrap();
    let rules = format!("{}/rules", text(&source));
    let words = ["--exclude-file", &rules, "--exclude-caches", "--exclude-if-present", ".nobackup"];
    let report = import_json(&m, &[&words[..], &[&from, "/tags"]].concat());
    assert_eq!(names_in(&m.path("tags/cache")), ["CACHEDIR.TAG"]);
    assert_eq!(names_in(&m.path("tags/build")), [".nobackup"]);
    assert!(m.path("tags/keep.o").exists() && !m.path("tags/a.o").exists());
    assert_eq!(count(&report, "excluded"), 5, "{report:#}");
    // What rules leave out is not deleted either.
    fs::write(m.path("tags/mine.o"), "").unwrap();
    fs::write(m.path("tags/other"), "").unwrap();
    let report = import_json(&m, &[&words[..], &[&from, "/tags", "--delete"]].concat());
    assert_eq!(count(&report, "deleted"), 1, "{report:#}");
    assert!(m.path("tags/mine.o").exists() && !m.path("tags/other").exists());
    let said = import(&m, &["--exclude", "a[b", &from, "/tags"]);
    said.refused(1, &["Bad pattern \"a[b\""]);
}

#[test]
fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let mut m = Mounted::new();
    let source = source(&m);
    settle();
    import(&m, &[text(&source), "/"]).ok();
    fs::write(source.join("a"), "other").unwrap();
    fs::write(source.join("new"), "n").unwrap();
    fs::remove_file(source.join("d/b")).unwrap();
    run("chmod", &["700", text(&source.join("d"))]);
    let before = facts(&m.path(""));
    for mounted in [true, false] {
        if !mounted {
            m.umount();
        }
        let ran = import(&m, &[text(&source), "/", "-n", "--delete"]).ok();
        let mut lines: Vec<_> = ran.stdout.lines().collect();
        let sums = lines.pop().unwrap();
        lines.sort_unstable();
        let expected = ["+ source/new", "- source/d/b", "M source/a", "a source", "a source/d"];
        assert_eq!(lines, expected, "{ran:#?}");
        assert!(sums.starts_with("Would import: 1 created, 1 replaced, 2 with new"), "{sums}");
    }
    m.mount();
    assert_same_facts(&before, &facts(&m.path("")), "nothing changed");
}

#[test]
fn what_cannot_be_read_is_said_and_the_rest_imported() {
    let m = Mounted::new();
    let source = source(&m);
    // Root reads everything but this.
    fs::create_dir(source.join("d/.snapshots")).unwrap();
    fs::create_dir(m.path("d")).unwrap();
    fs::create_dir(m.path("d/b")).unwrap();
    fs::write(m.path("d/b/in-the-way"), "").unwrap();
    let words = [&format!("{}/", text(&source)), "/"];
    let ran = import(&m, &words);
    assert_eq!(ran.code, Some(11), "{ran:#?}");
    assert!(ran.stdout.contains("! d/b\n"), "{ran:#?}");
    assert!(ran.stdout.contains("d/.snapshots: A volume has its own"), "{ran:#?}");
    assert_eq!(fs::read_to_string(m.path("a")).unwrap(), "one");
    assert!(m.path("d/b/in-the-way").exists());
    import(&m, &[&["--exclude", ".snapshots"], &words[..], &["--delete"]].concat()).ok();
    assert_eq!(fs::read_to_string(m.path("d/b")).unwrap(), "two");
    m.assert_sound();
}

#[test]
fn refusals_name_what_is_wrong() {
    let mut m = Mounted::new();
    let source = source(&m);
    let s = text(&source).to_owned();
    let none = format!("{s}/none");
    fs::write(m.path("file"), "").unwrap();
    take(&m, "s");
    let (volume, outside) = (m.volume(), m.outside().to_owned());
    let slash = format!("{s}/");
    for mounted in [true, false] {
        if !mounted {
            m.umount();
        }
        import(&m, &[&none, "/"]).refused(1, &["source"]);
        import(&m, &[&s, "/file"]).refused(1, &["file is not a directory"]);
        import(&m, &[&s, "/no/such"]).refused(1, &["directory no in the volume"]);
        import(&m, &[&s, "/.snapshots/s"]).refused(10, &["snapshot"]);
        import(&m, &[&s, "/a/../b"]).refused(1, &["must not contain"]);
        import(&m, &[&format!("{s}/a/"), "/"]).refused(1, &["is not a directory"]);
        import(&m, &[text(&volume), "/"]).refused(1, &["which is of this volume"]);
        import(&m, &[text(&outside), "/"]).refused(1, &["--exclude /"]);
        import(&m, &[&slash, &slash, "/", "--delete"]).refused(1, &["only one source"]);
        import(&m, &[&s, &s, "/"]).refused(1, &["Two sources have the name"]);
    }
    m.mount();
    import(&m, &[&m.text("file"), "/"]).refused(1, &["which is of this volume"]);
    let around = m.outside().file_name().unwrap().to_str().unwrap();
    let rules = ["volume", "mnt"].map(|own| format!("--exclude=/{around}/{own}/"));
    import(&m, &[&rules[0], &rules[1], text(&outside), "/around"]).ok();
    assert_eq!(names_in(&m.path("around").join(around)), ["source"]);
    // Below the mountpoint the volume need not be named.
    let ran = stratafs(&["import", &s, &m.text("new")]).ok();
    assert!(ran.stdout.starts_with("Imported: "), "{ran:#?}");
    assert_eq!(fs::read_to_string(m.path("new/source/a")).unwrap(), "one");
    m.remount_with(&["-o", "ro"]);
    import(&m, &[&s, "/"]).refused(10, &["read-only"]);
}

/// However it ends, each file is whole or not there, and the next run goes on. SEMANTICS §4.34.
#[test]
fn an_import_that_was_cut_off_goes_on() {
    let mut m = Mounted::with(&[], "[limits]\ncommit_interval_secs = 1\n");
    let source = m.outside().join("source");
    make_source_tree(&source, 3000, 7);
    for at in 0..6 {
        fs::write(source.join(format!("big{at}")), random_bytes(at, 40 * MIB)).unwrap();
    }
    settle();
    let volume = m.volume();
    let begin = || {
        std::process::Command::new(env!("CARGO_BIN_EXE_stratafs"))
            .args(["import", "--volume", text(&volume), text(&source), "/"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let all_whole = |m: &Mounted| {
        let script = format!("cd {}; find . -type f -printf '%P\\0'", m.text("source"));
        for name in run_in(m.outside(), &script).split('\0').filter(|n| !n.is_empty()) {
            let (here, there) = (m.path("source").join(name), source.join(name));
            assert_eq!(fs::metadata(&here).unwrap().len(), fs::metadata(&there).unwrap().len());
            assert!(fs::read(here).unwrap() == fs::read(there).unwrap(), "{name} is whole");
        }
    };
    for (round, wait) in [120_u64, 350, 1400].into_iter().enumerate() {
        let mut client = begin();
        std::thread::sleep(Duration::from_millis(wait));
        if round == 1 {
            run("kill", &["-INT", &client.id().to_string()]);
            client.wait().unwrap();
            wait_until("the work has ended", || m.ask(&["status"], &[]).code == Some(0));
            assert!(is_running(m.pid()));
        } else {
            m.end_by("KILL");
            client.wait().unwrap();
            run("umount", &["-l", &m.text("")]);
            m.mount();
        }
        if m.path("source").exists() {
            all_whole(&m);
        }
        m.assert_sound();
    }
    let last = import_json(&m, &[text(&source), "/"]);
    assert_eq!(count(&last, "failed"), 0, "{last:#}");
    assert!(count(&last, "unchanged") > 0, "what was complete is not read again: {last:#}");
    assert_same_facts(&facts(&source), &facts(&m.path("source")), "at last");
    let again = import_json(&m, &[text(&source), "/"]);
    assert_eq!(count(&again, "read_bytes"), 0, "{again:#}");
    m.assert_sound();
}

/// Files that grow, shrink and go while they are read.
#[test]
fn what_changes_while_it_is_read_is_said_and_read_again() {
    let m = Mounted::new();
    let source = m.outside().join("source");
    fs::create_dir(&source).unwrap();
    let busy = source.join("busy");
    fs::write(&busy, random_bytes(1, 8 * MIB)).unwrap();
    settle();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let file = File::options().write(true).open(&busy).unwrap();
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) && round < 50_000_000 {
                file.write_all_at(&round.to_le_bytes(), round % 8 * MIB as u64).unwrap();
                round += 1;
            }
        });
        // On a busy machine nothing may be written just while it is read.
        let mut runs = (0..100).map(|_| import(&m, &[text(&source), "/", "--json"]));
        let ran = runs.find(|ran| ran.code == Some(11));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let ran = ran.expect("it is noticed");
        serde_json::from_str::<Value>(&ran.stdout).unwrap()
    });
    // A file that has fewer bytes than its size says.
    let short = import(&m, &["/sys/kernel/uevent_seqnum", "/"]);
    assert_eq!(short.code, Some(11), "{short:#?}");
    assert!(short.stdout.contains("uevent_seqnum: It changed while it was read"), "{short:#?}");
    let digits = fs::read_to_string(m.path("uevent_seqnum")).unwrap();
    assert!(digits.trim().parse::<u64>().is_ok(), "what was there is kept: {digits:?}");
    assert_eq!(report["problems"][0]["why"], "It changed while it was read", "{report:#}");
    assert_eq!(fs::metadata(m.path("source/busy")).unwrap().len(), 8 * MIB as u64);
    settle();
    let again = import_json(&m, &[text(&source), "/"]);
    assert_eq!(count(&again, "read_bytes"), 8 * MIB as u64);
    assert!(fs::read(m.path("source/busy")).unwrap() == fs::read(&busy).unwrap());
}

#[test]
fn a_full_disk_ends_it_with_a_sentence_and_loses_nothing() {
    // The database takes up to 22 MiB ahead for its log, and may do so after all else was accepted:
    // the reserve, an eighth of the disk, has to be larger, or gc finds no room at all.
    let disk = SmallDisk::new(240);
    let volume = disk.join("volume");
    stratafs(&["init", text(&volume)]).ok();
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), text_bytes(1, MIB)).unwrap();
    let words = ["import", "--volume", text(&volume), text(&source), "/"];
    stratafs(&words).ok();
    for at in 0..45 {
        fs::write(source.join(format!("big{at}")), random_bytes(at, 6 * MIB)).unwrap();
    }
    stratafs(&words).refused(10, &["No space left", text(&volume)]);
    let check = stratafs(&["check", "--read-data", text(&volume), "--json"]).json();
    assert_eq!(check["problems"], serde_json::json!([]), "{check:#}");
    // What was stored before is whole, and with less to take it goes on.
    for at in 6..45 {
        fs::remove_file(source.join(format!("big{at}"))).unwrap();
    }
    stratafs(&[&words[..], &["--delete"]].concat());
    stratafs(&["gc", text(&volume)]).ok();
    stratafs(&[&words[..], &["--delete"]].concat()).ok();
    let check = stratafs(&["check", "--read-data", text(&volume), "--json"]).json();
    assert_eq!(check["problems"], serde_json::json!([]), "{check:#}");
}
