//! How a mount ends: unmounted, killed, busy; and what is there afterwards.

use std::fs::{self, File};
use std::io::Write;

use super::helper::{Mounted, is_running, os_error};
use crate::testkit::{MIB, random_bytes, run, stratafs, wait_until};

const EROFS: i32 = 30;
/// ENOTCONN, and ECONNABORTED while the kernel is still taking the connection down.
const GONE: [i32; 2] = [107, 103];

/// When `umount` returns, the process is done with the volume: a copy of the directory is whole.
/// SEMANTICS §1.6.
#[test]
fn umount_returns_when_everything_is_durable() {
    let mut m = Mounted::new();
    let data = random_bytes(1, 10 * MIB);
    fs::write(m.path("a.bin"), &data).unwrap();
    m.umount();
    assert!(!m.is_mounted());
    let copy = m.outside().join("copy");
    run("cp", &["-a", m.volume().to_str().unwrap(), copy.to_str().unwrap()]);
    let checked = stratafs(&["check", "--read-data", copy.to_str().unwrap(), "--json"]).json();
    assert_eq!(checked["problems"], serde_json::json!([]));
    assert_eq!(checked["inodes"], 2);
    m.mount();
    assert!(fs::read(m.path("a.bin")).unwrap() == data);
}

#[test]
fn a_signal_to_end_loses_nothing() {
    for signal in ["TERM", "INT"] {
        let mut m = Mounted::new();
        let data = random_bytes(1, 5 * MIB);
        fs::write(m.path("a.bin"), &data).unwrap();
        m.end_by(signal);
        assert!(!m.is_mounted(), "{signal}");
        m.mount();
        assert!(fs::read(m.path("a.bin")).unwrap() == data, "{signal}");
        m.assert_sound();
    }
}

#[test]
fn what_was_synced_survives_a_kill() {
    let mut m = Mounted::with(&[], "[limits]\ncommit_interval_secs = 3600\n");
    for round in 0..4u64 {
        let data = random_bytes(round, 3 * MIB);
        let path = m.path(&format!("{round}.bin"));
        let mut file = File::create(&path).unwrap();
        file.write_all(&data).unwrap();
        if round % 2 == 0 {
            file.sync_all().unwrap();
        } else {
            file.sync_data().unwrap();
        }
        fs::write(m.path("late"), random_bytes(round + 50, MIB)).unwrap();
        fs::rename(m.path("late"), m.path(&format!("late{round}"))).unwrap();
        drop(file);
        m.end_by("KILL");
        assert!(m.is_mounted(), "the dead mount is there; the next one takes its place");
        m.mount();

        assert!(fs::read(&path).unwrap() == data, "synced data is gone");
        for earlier in 0..=round {
            let size = fs::metadata(m.path(&format!("{earlier}.bin"))).unwrap().len();
            assert_eq!(size, 3 * MIB as u64);
        }
        m.assert_sound();
    }
}

/// What a killed process leaves is a mount that answers nothing. It is in the way of others only,
/// and either name takes it away.
#[test]
fn a_dead_mount_is_taken_away() {
    let mut m = Mounted::new();
    let other = m.outside().join("other");
    let other = other.to_str().unwrap();
    stratafs(&["init", other]).ok();
    for target in [m.text(""), m.volume().to_str().unwrap().to_owned()] {
        fs::write(m.path("a"), b"x").unwrap();
        m.end_by("KILL");
        assert!(GONE.contains(&os_error(fs::metadata(m.path("a")))));
        m.ask(&["stats"], &[]).ok();
        let refused = stratafs(&["mount", other, &m.text("")]);
        refused.refused(7, &[&m.text(""), "its process is gone", "stratafs umount"]);
        stratafs(&["stats", &m.text("")]).refused(7, &["its process is gone"]);

        stratafs(&["umount", &target]).ok();
        assert!(!m.is_mounted(), "umount {target}");
        assert_eq!(fs::read_dir(m.path("")).unwrap().count(), 0);
        m.mount();
    }
    // Somebody stands in it, and has a file open: they keep nothing but errors.
    let file = File::create(m.path("open")).unwrap();
    let stays = m.path("");
    let mut sleeper =
        std::process::Command::new("sleep").arg("60").current_dir(&stays).spawn().unwrap();
    m.end_by("KILL");
    m.mount();
    fs::write(m.path("b"), b"y").unwrap();
    assert!(GONE.contains(&os_error(file.sync_all())));
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    m.umount();
    assert!(!m.is_mounted(), "nothing is left below");
}

/// Without any sync, a kill loses at most what came since the last commit, never parts of a file.
#[test]
fn a_kill_in_the_middle_leaves_whole_commits() {
    let mut m = Mounted::with(&[], "[limits]\ncommit_interval_secs = 1\n");
    let contents: Vec<_> = (0..4).map(|seed| random_bytes(seed, 200_000)).collect();
    for number in 0..400 {
        let temp = m.path(&format!(".{number}.tmp"));
        fs::write(&temp, &contents[number % 4]).unwrap();
        fs::rename(&temp, m.path(&format!("{number}"))).unwrap();
        if number == 200 {
            File::open(m.path("0")).unwrap().sync_all().unwrap();
        }
    }
    m.end_by("KILL");
    m.mount();
    let mut there = 0;
    for number in 0..400 {
        if let Ok(found) = fs::read(m.path(&format!("{number}"))) {
            assert!(found == contents[number % 4], "{number} is damaged");
            assert_eq!(there, number, "a later file is there, an earlier one is not");
            there += 1;
        }
    }
    assert!(there > 200, "what was synced is not there: only {there} files");
    m.assert_sound();
}

#[test]
fn a_volume_is_mounted_once() {
    let m = Mounted::new();
    let other = m.outside().join("other");
    fs::create_dir(&other).unwrap();
    let volume = m.volume();
    let line = ["mount", volume.to_str().unwrap(), other.to_str().unwrap()];
    let pid = m.pid().to_string();
    stratafs(&line).refused(6, &["in use by process", &pid, "mounted on", &m.text("")]);
    stratafs(&["mount", volume.to_str().unwrap(), &m.text("")]).refused(6, &["mounted on"]);
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
    fs::write(m.path("a"), b"still fine").unwrap();
}

#[test]
fn a_busy_mount_says_who_uses_it() {
    let mut m = Mounted::new();
    let file = File::create(m.path("a")).unwrap();
    let refused = stratafs(&["umount", &m.text("")]);
    let pid = std::process::id().to_string();
    refused.refused(6, &["in use", &pid, "--lazy"]);
    assert!(m.is_mounted());
    fs::write(m.path("b"), b"still usable").unwrap();
    drop(file);
    m.umount();
    m.mount();
    assert_eq!(fs::read(m.path("b")).unwrap(), b"still usable");
}

#[test]
fn a_lazy_umount_ends_with_the_last_open_file() {
    let mut m = Mounted::new();
    let mut file = File::create(m.path("a")).unwrap();
    let pid = m.pid();
    stratafs(&["umount", "--lazy", &m.text("")]).ok();
    assert!(!m.is_mounted());
    file.write_all(b"written after the umount").unwrap();
    drop(file);
    wait_until("the process is gone", || !is_running(pid));
    m.mount();
    assert_eq!(fs::read(m.path("a")).unwrap(), b"written after the umount");
}

/// Plain umount(8) works, too; it only does not wait.
#[test]
fn umount_of_the_system_ends_the_process_cleanly() {
    let mut m = Mounted::new();
    fs::write(m.path("a"), b"x").unwrap();
    let pid = m.pid();
    wait_until("it is not busy", || {
        crate::testkit::try_run("umount", &[m.text("")]).code == Some(0)
    });
    wait_until("the process is gone", || !is_running(pid));
    m.mount();
    assert_eq!(fs::read(m.path("a")).unwrap(), b"x");
}

#[test]
fn a_read_only_mount_changes_nothing() {
    let mut m = Mounted::new();
    fs::write(m.path("a"), b"x").unwrap();
    fs::create_dir(m.path(".snapshots/s")).unwrap();
    for options in [&["-o", "ro"][..], &["--read-only"]] {
        m.remount_with(options);
        assert_eq!(fs::read(m.path("a")).unwrap(), b"x");
        assert_eq!(fs::read(m.path(".snapshots/s/a")).unwrap(), b"x");
        assert_eq!(os_error(fs::write(m.path("a"), b"y")), EROFS);
        assert_eq!(os_error(fs::create_dir(m.path("d"))), EROFS);
        assert_eq!(os_error(fs::create_dir(m.path(".snapshots/t"))), EROFS);
        m.ask(&["snapshot", "create"], &["t"]).refused(10, &["Read-only"]);
    }
    m.remount_with(&[]);
    assert_eq!(fs::read(m.path("a")).unwrap(), b"x");
    assert_eq!(fs::read_dir(m.path(".snapshots")).unwrap().count(), 1);
}
