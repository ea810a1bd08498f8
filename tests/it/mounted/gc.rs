//! Space that comes back while a volume is mounted: by itself, and without being in the way.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::helper::Mounted;
use crate::testkit::{KIB, MIB, random_bytes, wait_until};

/// Live data is copied so slowly that a run with any does not come to its end.
const SLOW: &str = "[limits]\ncontainer_bytes = \"1MiB\"\n\
                    [gc]\nauto = false\nrepack_bytes_per_sec = 1\n";

fn gc_status(m: &Mounted) -> Value {
    m.ask_json(&["status"], &[])["gc"].clone()
}

/// Many files, of which one in five stays.
fn mostly_dead(m: &Mounted) {
    for n in 0..40 {
        fs::write(m.path(&format!("{n}.bin")), random_bytes(n, 200 * KIB)).unwrap();
    }
    fs::File::open(m.path("")).unwrap().sync_all().unwrap();
    (0..40).filter(|n| n % 5 != 0).for_each(|n| {
        fs::remove_file(m.path(&format!("{n}.bin"))).unwrap();
    });
}

fn assert_files(m: &Mounted) {
    for n in (0..40).step_by(5) {
        let found = fs::read(m.path(&format!("{n}.bin"))).unwrap();
        assert!(found == random_bytes(n, 200 * KIB), "{n}");
    }
}

/// Starts `gc` and waits until it copies.
fn slow_gc(m: &Mounted) -> Child {
    let child = Command::new(env!("CARGO_BIN_EXE_stratafs"))
        .args([&"gc".into(), &m.volume().into_os_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("gc copies", || gc_status(m)["running"]["phase"] == "repacking");
    child
}

/// Deleting files and a snapshot is enough: nobody calls gc.
/// SEMANTICS §4.9.
#[test]
fn space_comes_back_by_itself() {
    let config = "[limits]\ncommit_interval_secs = 1\ncontainer_bytes = \"1MiB\"\n\
                  [gc]\nauto_bytes = \"1MiB\"\ndelay_secs = 0\ninterval_mins = 0\n";
    let m = Mounted::with(&[], config);
    let stored = || m.ask_json(&["status"], &[])["stored_bytes"].as_u64().unwrap();
    fs::write(m.path("stays.bin"), random_bytes(1, MIB)).unwrap();
    fs::write(m.path("goes.bin"), random_bytes(2, 12 * MIB)).unwrap();
    fs::create_dir(m.path(".snapshots/s")).unwrap();
    let full = stored();
    assert!(full >= 13 * MIB as u64);
    fs::remove_file(m.path("goes.bin")).unwrap();
    fs::File::open(m.path("")).unwrap().sync_all().unwrap();
    assert_eq!(gc_status(&m)["last"]["freed_bytes"], 0, "the snapshot has it all");
    fs::remove_dir(m.path(".snapshots/s")).unwrap();
    wait_until("the space is back", || stored() <= 3 * MIB as u64);
    wait_until("the run is over", || gc_status(&m)["last"]["outcome"] == "done");
    let status = m.ask(&["status"], &[]).ok().stdout;
    assert!(status.contains("Reclaimable") && status.contains("Last gc"), "{status}");
    assert!(fs::read(m.path("stays.bin")).unwrap() == random_bytes(1, MIB));
    m.assert_sound();
}

#[test]
fn space_does_not_come_back_by_itself_where_it_should_not() {
    let config = "[gc]\nauto = false\nauto_bytes = \"1MiB\"\ndelay_secs = 0\n";
    let m = Mounted::with(&[], config);
    let threads = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", m.pid())).unwrap();
        let names = tasks.map(|t| fs::read_to_string(t.unwrap().path().join("comm")).unwrap());
        names.map(|name| name.trim().to_owned()).collect::<Vec<_>>()
    };
    assert!(threads().contains(&"reaper".to_owned()), "{:?}", threads());
    assert!(!threads().contains(&"gc".to_owned()), "{:?}", threads());
}

/// An unmount does not wait for gc, and the command says why it has ended.
#[test]
fn an_unmount_ends_gc() {
    let mut m = Mounted::with(&[], SLOW);
    mostly_dead(&m);
    let gc = slow_gc(&m);
    m.umount();
    let ended = gc.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(6), "{said}");
    assert!(said.contains("stopped before its end"), "{said}");
    m.mount();
    assert_eq!(gc_status(&m)["last"]["outcome"], "stopped");
    assert_files(&m);
    m.assert_sound();
}

/// Ctrl-C on the command ends the run in the mounted process, too.
#[test]
fn gc_ends_with_the_command_that_asked_for_it() {
    let m = Mounted::with(&[], SLOW);
    mostly_dead(&m);
    let mut gc = slow_gc(&m);
    gc.kill().unwrap();
    gc.wait().unwrap();
    wait_until("gc has ended", || gc_status(&m)["running"].is_null());
    assert_eq!(gc_status(&m)["last"]["outcome"], "stopped");
    assert_files(&m);
    m.assert_sound();
}

/// What it says it would do costs nothing and changes nothing, mounted or not.
#[test]
fn a_dry_run_is_one_command_away() {
    let mut m = Mounted::with(&[], "[limits]\ncontainer_bytes = \"1MiB\"\n[gc]\nauto = false\n");
    mostly_dead(&m);
    let mounted = m.ask_json(&["gc"], &["--dry-run", "-q"]);
    assert!(mounted["containers_freed"].as_u64().unwrap() > 4, "{mounted:#}");
    m.umount();
    let said = m.ask(&["gc"], &["--dry-run"]).ok().stdout;
    assert!(said.contains("Would free") && said.contains("nothing was changed"), "{said}");
    let not_mounted = m.ask_json(&["gc"], &["--dry-run"]);
    assert_eq!(not_mounted["freed_bytes"], mounted["freed_bytes"]);
    let did = m.ask_json(&["gc"], &[]);
    assert_eq!(did["freed_bytes"], mounted["freed_bytes"]);
    assert_eq!(did["repacked_bytes"], mounted["repacked_bytes"]);
    let status = m.ask_json(&["status"], &[])["gc"].clone();
    assert_eq!(status["last"]["freed_bytes"], did["freed_bytes"], "{status:#}");
    assert_eq!(m.ask(&["gc"], &["--min-dead", "0"]).code, Some(2));
    m.mount();
    assert_files(&m);
}
