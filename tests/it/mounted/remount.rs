//! `mount -o remount,…`, by mount(8) and by our own command; generic mount options.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use super::helper::{Mounted, os_error};
use super::namespace::Namespace;
use crate::testkit::{NO_BACKGROUND_COMMITS, run, run_in, stratafs};

fn remount(m: &Mounted, options: &str) -> crate::testkit::Ran {
    let options = format!("remount,{options}");
    stratafs(&["mount", m.volume().to_str().unwrap(), &m.text(""), "-o", &options])
}

/// Options of the mountpoint and of the filesystem, as the kernel has them.
fn shown(m: &Mounted) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(&m.text(""))).unwrap();
    let fields: Vec<&str> = line.split(' ').collect();
    format!("{},{}", fields[5], fields.last().unwrap())
}

/// SEMANTICS §3.5.
#[test]
fn read_only_and_back_as_mount_8_does_it() {
    let m = Mounted::with(&[], NO_BACKGROUND_COMMITS);
    let namespace = Namespace::new(&m.outside().join("ns"));
    fs::write(m.path("file"), "before").unwrap();
    let mnt = m.text("");

    namespace.run(&format!("mount -o remount,ro {mnt}"));

    assert_eq!(os_error(File::create(m.path("file"))), libc::EROFS);
    assert_eq!(os_error(fs::create_dir(m.path(".snapshots/s"))), libc::EROFS);
    assert_eq!(fs::read_to_string(m.path("file")).unwrap(), "before");
    let status = m.ask_json(&["status"], &[]);
    assert_eq!(status["read_only"], true, "{status:#}");
    assert_eq!(status["dirty_bytes"], 0, "everything is durable: {status:#}");
    m.ask(&["snapshot", "create"], &["s"]).refused(10, &["read-only", "remount,rw"]);
    m.ask(&["gc"], &[]).ok();

    namespace.run(&format!("mount -o remount,rw {mnt}"));

    fs::write(m.path("file"), "after").unwrap();
    fs::create_dir(m.path(".snapshots/s")).unwrap();
    m.ask(&["snapshot", "create"], &["t"]).ok();
    assert_eq!(m.ask_json(&["status"], &[])["read_only"], false);
}

/// What is not committed when the mount becomes read-only would be lost by a crash of a process
/// that nobody expects to write any more.
#[test]
fn what_became_read_only_survives_the_process() {
    let mut m = Mounted::with(&[], NO_BACKGROUND_COMMITS);
    fs::write(m.path("file"), "kept").unwrap();
    remount(&m, "ro").ok();
    m.end_by("KILL");
    m.mount();
    assert_eq!(fs::read_to_string(m.path("file")).unwrap(), "kept");
}

/// SEMANTICS §3.5.
#[test]
fn files_open_for_writing_are_in_the_way() {
    let m = Mounted::new();
    let mut open = File::create(m.path("file")).unwrap();
    remount(&m, "ro").refused(6, &["open for writing", &m.text("")]);
    open.write_all(b"it goes on").unwrap();
    m.ask(&["snapshot", "create"], &["s"]).ok();
    drop(open);

    let open = File::open(m.path("file")).unwrap();
    fs::remove_file(m.path("file")).unwrap();
    remount(&m, "ro").refused(6, &["deleted while open"]);
    drop(open);
    remount(&m, "ro").ok();
}

/// SEMANTICS §3.5.
#[test]
fn a_volume_opened_read_only_stays_so() {
    let mut m = Mounted::new();
    m.remount_with(&["-o", "ro"]);
    remount(&m, "rw").refused(10, &["opened for reading only", "unmount it"]);
    assert!(shown(&m).starts_with("ro,"));
    remount(&m, "ro,noexec").ok();
    assert!(shown(&m).contains("noexec"));
}

/// SEMANTICS §3.6.
#[test]
fn options_that_are_not_named_stay() {
    let mut m = Mounted::new();
    m.remount_with(&["-o", "nosuid,noatime,snapdir=visible"]);
    assert!(shown(&m).contains("nosuid") && shown(&m).contains("noatime"));
    remount(&m, "nodev").ok();
    remount(&m, "ro").ok();
    let now = shown(&m);
    assert!(["ro", "nosuid", "nodev", "noatime"].iter().all(|o| now.contains(o)), "{now}");
    remount(&m, "rw,suid").ok();
    let now = shown(&m);
    assert!(now.starts_with("rw,") && !now.contains("nosuid") && now.contains("nodev"), "{now}");
}

#[test]
fn nothing_is_remounted_where_nothing_is_mounted() {
    let m = Mounted::new();
    let (volume, mnt) = (m.volume(), m.text(""));
    let volume = volume.to_str().unwrap();
    let elsewhere = m.outside().to_str().unwrap();
    let ask = |volume: &str, dir: &str, options: &str| {
        stratafs(&["mount", volume, dir, "-o", &format!("remount,{options}")])
    };
    ask(volume, elsewhere, "ro").refused(7, &["Nothing to remount", elsewhere]);
    ask(elsewhere, &mnt, "ro").refused(7, &["is mounted, not", elsewhere]);
    ask(volume, &mnt, "frobnicate").refused(1, &["frobnicate"]);
    assert!(shown(&m).starts_with("rw,"));
}

#[test]
fn noexec_is_real() {
    let mut m = Mounted::new();
    fs::copy("/bin/true", m.path("true")).unwrap();
    run(&m.text("true"), &[""; 0]);
    m.remount_with(&["-o", "noexec"]);
    let ran = std::process::Command::new(m.path("true")).status();
    assert_eq!(os_error(ran), libc::EACCES);
}

/// On such a mount a crash loses nothing that returned: neither bytes, nor names.
/// SEMANTICS §3.4.
#[test]
fn a_sync_mount_loses_nothing_in_a_crash() {
    let mut m = Mounted::with(&[], NO_BACKGROUND_COMMITS);
    m.remount_with(&["-o", "sync"]);
    fs::write(m.path("file"), "bytes").unwrap();
    let both = File::options().read(true).write(true).create_new(true).open(m.path("both"));
    both.unwrap().write_all(b"through the cache").unwrap();
    run_in(
        &m.path(""),
        "mkdir dir; mkfifo dir/pipe; ln -s t dir/link; ln file dir/hard; \
                         mkdir gone; rmdir gone; touch old; mv old new",
    );
    m.end_by("KILL");
    m.next_options(&[]);
    m.mount();
    assert_eq!(fs::read_to_string(m.path("file")).unwrap(), "bytes");
    assert_eq!(fs::read_to_string(m.path("both")).unwrap(), "through the cache");
    let names = run_in(&m.path(""), "find . -mindepth 1 | sort | tr '\\n' ' '");
    assert_eq!(names, "./both ./dir ./dir/hard ./dir/link ./dir/pipe ./file ./new ");

    // The same, switched on while mounted, for the last one that is not synced by anything else.
    remount(&m, "sync").ok();
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600).open(m.path("empty")).unwrap();
    m.end_by("KILL");
    m.mount();
    assert!(m.path("empty").exists());
}

/// SEMANTICS §3.4.
#[test]
fn a_dirsync_mount_keeps_names() {
    let mut m = Mounted::with(&[], NO_BACKGROUND_COMMITS);
    m.remount_with(&["-o", "dirsync"]);
    fs::create_dir(m.path("dir")).unwrap();
    m.end_by("KILL");
    m.mount();
    assert!(m.path("dir").exists());
}

/// As mount(8) calls a helper, with words that are not ours.
#[test]
fn a_helper_understands_what_mount_8_says() {
    let m = Mounted::new();
    let namespace = Namespace::new(&m.outside().join("ns"));
    let (volume, second) = (m.outside().join("second"), m.outside().join("mnt2"));
    stratafs(&["init", volume.to_str().unwrap()]).ok();
    fs::create_dir(&second).unwrap();
    let (volume, second) = (volume.to_str().unwrap(), second.to_str().unwrap());
    let mount = format!("mount -t fuse.stratafs {volume} {second}");
    let end = format!("{} umount {volume}", env!("CARGO_BIN_EXE_stratafs"));
    namespace.run(&format!(
        "{mount} -f; ! grep -q ' {second} ' /proc/self/mounts\n\
         {mount} -v -o noexec,noatime,nofail,x-y.z,comment=me,fsname=pool 2>&1\n\
         grep '^pool {second} fuse.stratafs rw,noexec,noatime' /proc/self/mounts\n\
         mount -o remount,ro {second}; grep '^pool {second} fuse.stratafs ro' /proc/self/mounts\n\
         {end}"
    ));
    let ran = namespace.try_run(&format!("{mount} -o bogus"));
    assert_ne!(ran.code, Some(0));
    assert!(ran.stderr.contains("bogus"), "{ran:#?}");
}
