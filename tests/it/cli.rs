//! The program itself: bad input gets one clear sentence, its exit code, and changes nothing; the
//! life of a mount from `init` to `umount`. Mounts need root or fusermount3, and /dev/fuse.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use stratafs::volume::FORMAT_VERSION;
use tempfile::TempDir;

/// A directory with a volume `v` and an empty directory `m`; unmounts when dropped.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("m")).unwrap();
        place.ok(["init", "v"]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stratafs"));
        command.current_dir(self.dir.path()).args(args).output().unwrap()
    }

    /// Runs what must succeed and returns its stdout.
    fn ok<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs what must fail with `code`: one line on stderr that contains `words`, no stdout.
    fn fails<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>, code: i32, words: &str) {
        let output = self.run(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(words), "{stderr:?} lacks {words:?}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(output.stdout.is_empty());
    }

    fn names_in_volume(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("v")).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.run(["umount", "m", "--lazy"]);
    }
}

/// Changes the superblock: `change` gets all bytes; the checksum in the last four is renewed.
fn edit_superblock(volume: &Path, change: impl FnOnce(&mut [u8])) {
    let path = volume.join("superblock");
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    let end = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_volume_that_cannot_be_opened_is_refused_with_the_reason() {
    let t = Place::new();
    fs::create_dir(t.path("empty")).unwrap();
    fs::write(t.path("file"), b"x").unwrap();
    for command in ["status", "gc", "check"] {
        t.fails([command, "missing"], 3, "does not exist");
        t.fails([command, "empty"], 3, "not a StrataFS volume");
        t.fails([command, "file"], 3, "not a directory");
    }
    t.fails(["mount", "missing", "m"], 3, "does not exist");
    assert!(!t.path("missing").exists() && fs::read_dir(t.path("empty")).unwrap().count() == 0);
    edit_superblock(&t.path("v"), |bytes| bytes[8] = 99);
    t.fails(["status", "v"], 4, "format version 99");
    edit_superblock(&t.path("v"), |bytes| {
        bytes[8] = FORMAT_VERSION as u8;
        bytes[16] = 4;
    });
    t.fails(["mount", "v", "m"], 4, "feature flags 0x4");
    fs::write(t.path("v/superblock"), b"STRATAFS but short").unwrap();
    t.fails(["status", "v"], 5, "superblock");
}

#[test]
fn a_mountpoint_that_cannot_be_used_leaves_the_volume_alone() {
    let t = Place::new();
    let before = t.names_in_volume();
    fs::create_dir(t.path("v/inside")).unwrap();
    fs::create_dir_all(t.path("full/deeper")).unwrap();
    fs::write(t.path("file"), b"x").unwrap();
    t.fails(["mount", "v", "missing"], 7, "does not exist");
    t.fails(["mount", "v", "file"], 7, "not a directory");
    t.fails(["mount", "v", "full"], 7, "not empty");
    t.fails(["mount", "v", "v/inside"], 7, "inside");
    t.fails(["mount", "v", ".", "-o", "nonempty"], 7, "inside");
    t.fails(["mount", "v", "m", "-o", "ro,frobnicate"], 1, "frobnicate");
    t.fails(["umount", "m"], 1, "Nothing to unmount");
    t.fails(["umount", "v"], 1, "Nothing to unmount");
    fs::remove_dir(t.path("v/inside")).unwrap();
    assert_eq!(t.names_in_volume(), before);
}

#[test]
fn init_never_touches_what_is_there() {
    let t = Place::new();
    fs::create_dir(t.path("full")).unwrap();
    fs::write(t.path("full/data"), b"x").unwrap();
    t.fails(["init", "v"], 1, "exists already");
    t.fails(["init", "full"], 1, "not empty");
    assert_eq!(fs::read_dir(t.path("full")).unwrap().count(), 1);
}

#[test]
fn snapshot_names_are_checked_and_need_not_be_utf8() {
    let t = Place::new();
    let long = "n".repeat(256);
    for bad in ["a/b", ".", "..", "", &long] {
        let output = t.run(["snapshot", "create", "v", bad]);
        assert_eq!(output.status.code(), Some(1), "{bad:?}");
    }
    let odd = OsStr::from_bytes(b"mon\xffday");
    t.ok([OsStr::new("snapshot"), OsStr::new("create"), OsStr::new("v"), odd]);
    t.fails([OsStr::new("snapshot"), OsStr::new("create"), OsStr::new("v"), odd], 1, "exists");
    assert!(t.ok(["snapshot", "list", "v"]).contains("mon\\xffday"));
    t.fails(["snapshot", "delete", "v", "nope"], 1, "nope");
    t.ok([OsStr::new("snapshot"), OsStr::new("delete"), OsStr::new("v"), odd]);
    let list: Value = serde_json::from_str(&t.ok(["snapshot", "list", "v", "--json"])).unwrap();
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 0);
}

#[test]
fn errors_are_json_when_asked_for() {
    let t = Place::new();
    for (args, code) in [(["--json", "status", "missing"], 3), (["--json", "frob", "v"], 2)] {
        let output = t.run(args);
        assert_eq!(output.status.code(), Some(code));
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(error["exit_code"], code);
        assert!(error["error"].as_str().is_some_and(|text| !text.is_empty()));
    }
}

#[test]
fn a_closed_stdout_is_no_failure() {
    let t = Place::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_stratafs"));
    let output = command.args(["stats"]).arg(t.path("v")).stdout(writer).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_mount_lives_until_umount_and_commands_reach_it() {
    let t = Place::new();
    fs::create_dir(t.path("m2")).unwrap();
    assert_eq!(t.ok(["mount", "v", "m"]), "");
    fs::write(t.path("m/file"), b"content").unwrap();
    let pid = {
        let status: Value = serde_json::from_str(&t.ok(["status", "m", "--json"])).unwrap();
        assert!(status["mounted_on"].as_str().unwrap().ends_with("/m"));
        status["pid"].as_u64().unwrap()
    };
    t.fails(["mount", "v", "m"], 6, &format!("process {pid}"));
    t.fails(["mount", "v", "m2"], 6, &format!("process {pid}"));
    t.ok(["snapshot", "create", "m", "one"]);
    t.ok(["snapshot", "rename", "v", "one", "two"]);
    assert!(t.path("m/.snapshots/two/file").exists());

    let open = fs::File::open(t.path("m/file")).unwrap();
    t.fails(["umount", "m"], 6, &format!("process {}", std::process::id()));
    drop(open);
    t.ok(["umount", "m"]);
    assert_eq!(fs::read_dir(t.path("m")).unwrap().count(), 0);
    assert!(!t.path("v/control.sock").exists());
    assert!(t.ok(["snapshot", "list", "v"]).contains("two"));
    assert!(t.ok(["check", "v", "--read-data"]).starts_with("No problems"));

    t.ok(["mount", "v", "m", "-o", "ro"]);
    assert_eq!(fs::read(t.path("m/file")).unwrap(), b"content");
    assert!(fs::write(t.path("m/other"), b"x").is_err());
    t.ok(["umount", "v"]);
}

#[test]
fn a_mount_whose_process_died_is_named_and_can_be_taken_away() {
    let t = Place::new();
    let kill = || {
        let status: Value = serde_json::from_str(&t.ok(["status", "v", "--json"])).unwrap();
        let pid = status["pid"].to_string();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        while Path::new("/proc").join(&pid).join("fd/0").exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    t.ok(["init", "other"]);
    t.ok(["mount", "v", "m"]);
    kill();
    t.fails(["mount", "other", "m"], 7, "its process is gone");
    t.ok(["umount", "m"]);
    t.ok(["mount", "v", "m"]);
    kill();
    t.ok(["mount", "v", "m"]);
    t.ok(["umount", "m"]);
}
