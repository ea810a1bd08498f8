//! Bad input: one sentence, the documented exit code, and everything left as it was.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use stratafs::checksum::crc32c;

use crate::testkit::{MIB, SmallDisk, TestVolume, random_bytes, run, run_in, stratafs};

/// A closed volume with a file, and a mountpoint beside it.
struct Stage {
    volume: TestVolume,
    mountpoint: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let mut volume = TestVolume::new();
        volume.write_file("/a.bin", &random_bytes(1, MIB));
        volume.snapshot_create(b"taken").unwrap();
        volume.close();
        let mountpoint = volume.volume_dir().with_file_name("mnt");
        std::fs::create_dir(&mountpoint).unwrap();
        Self { volume, mountpoint }
    }

    fn dir(&self) -> &Path {
        self.volume.volume_dir()
    }

    fn dir_text(&self) -> &str {
        self.dir().to_str().unwrap()
    }

    fn mountpoint_text(&self) -> &str {
        self.mountpoint.to_str().unwrap()
    }

    /// Every command that opens the volume fails in the same way and touches nothing.
    fn all_commands_refuse(&self, code: i32, words: &[&str]) {
        let (dir, mnt) = (self.dir_text(), self.mountpoint_text());
        let before = facts_below(self.dir());
        let commands: [&[&str]; 12] = [
            &["mount", dir, mnt],
            &["mount", "-f", dir, mnt],
            &["status", dir],
            &["stats", dir],
            &["check", dir],
            &["gc", dir],
            &["snapshot", "list", dir],
            &["snapshot", "create", dir, "new"],
            &["snapshot", "delete", dir, "taken"],
            &["class", "explain", dir, "a.bin"],
            &["shard", "list", dir],
            &["shard", "add", dir, "/tmp/no-such-shard", "--name", "x"],
        ];
        for command in commands {
            let ran = stratafs(command);
            assert_eq!(ran.code, Some(code), "{command:?}: {ran:#?}");
            ran.refused(code, words);
        }
        assert_eq!(facts_below(self.dir()), before, "a refused command changed something");
        assert!(!is_mounted(&self.mountpoint));
        assert!(!Path::new("/tmp/no-such-shard").exists());
    }

    /// With the cause taken away, the volume is what it was.
    fn is_as_it_was(&mut self) {
        let checked = stratafs(&["check", "--read-data", self.dir_text(), "--json"]).json();
        assert_eq!(checked["problems"], serde_json::json!([]));
        self.volume.open_closed();
        self.volume.assert_content("/a.bin", &random_bytes(1, MIB));
        assert_eq!(self.volume.snapshots().len(), 1);
        assert_eq!(self.volume.shard_list().unwrap().len(), 1);
    }
}

fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(1) == path.to_str())
}

/// What lies below a directory, but for the database's own files, the lock and logs.
fn facts_below(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut facts = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if ["meta", "lock", "stratafs.log"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            facts.insert(path.clone(), Vec::new());
            facts.extend(facts_below(&path));
        } else {
            facts.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    facts
}

/// Changes bytes of the superblock; with `sealed` its checksum is made to fit.
fn spoil_superblock(dir: &Path, at: usize, sealed: bool) {
    let path = dir.join("superblock");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] ^= 0x42;
    if sealed {
        let body = bytes.len() - 4;
        let crc = crc32c(&bytes[..body]);
        bytes[body..].copy_from_slice(&crc.to_le_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn superblocks_that_say_no() {
    for (at, sealed, code, words) in [
        (8, true, 4, ["format version", "newer stratafs"]),
        (16, true, 4, ["feature flags 0x42", "newer stratafs"]),
        (30, false, 5, ["superblock", "checksum"]),
        (0, true, 5, ["superblock", "STRATAFS"]),
    ] {
        let mut stage = Stage::new();
        let good = std::fs::read(stage.dir().join("superblock")).unwrap();
        spoil_superblock(stage.dir(), at, sealed);
        stage.all_commands_refuse(code, &words);
        std::fs::write(stage.dir().join("superblock"), good).unwrap();
        stage.is_as_it_was();
    }
}

#[test]
fn a_cut_superblock_is_damage() {
    let mut stage = Stage::new();
    let path = stage.dir().join("superblock");
    let good = std::fs::read(&path).unwrap();
    for len in [0, 1, 60, good.len() - 1] {
        std::fs::write(&path, &good[..len]).unwrap();
        stage.all_commands_refuse(5, &["superblock", "bytes"]);
    }
    std::fs::write(&path, good).unwrap();
    stage.is_as_it_was();
}

#[test]
fn a_volume_directory_that_is_not_there() {
    let mut stage = Stage::new();
    let moved = stage.dir().with_file_name("moved");
    std::fs::rename(stage.dir(), &moved).unwrap();
    for command in [&["status"][..], &["gc"], &["snapshot", "list"]] {
        let ran = stratafs(&[command, &[stage.dir_text()]].concat());
        ran.refused(3, &[stage.dir_text(), "does not exist", "stratafs init"]);
    }
    let ran = stratafs(&["mount", stage.dir_text(), stage.mountpoint_text()]);
    ran.refused(3, &["does not exist"]);
    assert!(!stage.dir().exists(), "it was made by looking for it");
    std::fs::rename(moved, stage.dir()).unwrap();
    stage.is_as_it_was();
}

#[test]
fn a_directory_that_is_no_volume() {
    let mut stage = Stage::new();
    let hidden = stage.dir().with_file_name("hidden");
    std::fs::rename(stage.dir().join("superblock"), &hidden).unwrap();
    stage.all_commands_refuse(3, &["not a StrataFS volume", "stratafs init"]);
    std::fs::rename(hidden, stage.dir().join("superblock")).unwrap();
    stage.is_as_it_was();
    let file = stage.dir().join("superblock");
    stratafs(&["status", file.to_str().unwrap()]).refused(3, &["not a directory"]);
}

#[test]
fn configurations_that_do_not_load() {
    for (text, words) in [
        ("[limits]\ncache = 5\n", ["cache", "line 2"]),
        ("surprise = 1\n", ["surprise", "line 1"]),
        ("[classes.nonsense]\ncodec = \"zstd\"\n", ["nonsense", "id"]),
        ("[classes.media]\ncodec = \"lzma\"\n", ["lzma", "line 2"]),
        ("[classes.media]\nshards = [\"nowhere\"]\n", ["nowhere", "media"]),
        ("[[rule]]\nclass = \"unheard\"\nglob = \"*.x\"\n", ["unheard", "line 2"]),
        ("[[rule]]\nclass = \"media\"\nmood = \"good\"\n", ["mood", "line 3"]),
        ("[[rule]]\nclass = \"media\"\nglob = \"[\"\n", ["[", "config.toml"]),
        ("[limits\n", ["TOML", "line 1"]),
        ("[limits]\ncache_bytes = \"many\"\n", ["cache_bytes", "line 2"]),
    ] {
        let mut stage = Stage::new();
        let path = stage.dir().join("config.toml");
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, text).unwrap();
        stage.all_commands_refuse(8, &words);
        std::fs::write(&path, good).unwrap();
        stage.is_as_it_was();
    }
}

#[test]
fn shards_that_are_missing_or_foreign() {
    let mut stage = Stage::new();
    let shard = stage.dir().join("shards/0");
    let moved = stage.dir().with_file_name("moved");
    std::fs::rename(&shard, &moved).unwrap();
    stage.all_commands_refuse(9, &["shards/0"]);
    assert!(!shard.exists());

    let other = Stage::new();
    let theirs = other.dir().join("shards/0");
    run("cp", &["-a", theirs.to_str().unwrap(), shard.to_str().unwrap()]);
    stage.all_commands_refuse(9, &["shards/0"]);
    std::fs::remove_dir_all(&shard).unwrap();
    std::fs::rename(moved, &shard).unwrap();
    stage.is_as_it_was();
}

#[test]
fn shards_that_cannot_be_added() {
    let mut stage = Stage::new();
    let other = Stage::new();
    let theirs = other.dir().join("shards/0");
    let inside = stage.dir().join("here");
    let full = stage.dir().with_file_name("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("something"), b"of somebody").unwrap();
    let fine = stage.dir().with_file_name("fine");
    for (path, name, code, words) in [
        (&theirs, "x", 9, "shards/0"),
        (&inside, "x", 1, "inside the volume"),
        (&full, "x", 9, "full"),
        (&fine, "default", 1, "exists"),
        (&fine, "a/b", 1, "cannot name a shard"),
        (&fine, "", 1, "cannot name a shard"),
    ] {
        let path = path.to_str().unwrap();
        let ran = stratafs(&["shard", "add", stage.dir_text(), path, "--name", name]);
        ran.refused(code, &[words]);
    }
    assert_eq!(std::fs::read_dir(&full).unwrap().count(), 1);
    stage.is_as_it_was();
}

#[test]
fn mountpoints_that_do_not_do() {
    let mut stage = Stage::new();
    let beside = stage.dir().with_file_name("beside");
    std::fs::create_dir_all(beside.join("full")).unwrap();
    std::fs::write(beside.join("file"), b"").unwrap();
    std::fs::create_dir(stage.dir().join("inside")).unwrap();
    for (path, words) in [
        (beside.join("missing"), "does not exist"),
        (beside.clone(), "not empty"),
        (beside.join("file"), "not a directory"),
        (stage.dir().join("inside"), "volume directory"),
        (stage.dir().to_owned(), "volume directory"),
        (stage.dir().parent().unwrap().to_owned(), "volume directory"),
    ] {
        for extra in [None, Some("-f")] {
            let line = ["mount", stage.dir_text(), path.to_str().unwrap()];
            stratafs(&[&line[..], extra.as_slice()].concat()).refused(7, &["Mountpoint", words]);
        }
        assert!(!is_mounted(&path));
    }
    assert!(!beside.join("missing").exists());
    let unknown = ["mount", stage.dir_text(), stage.mountpoint_text(), "-o", "frobnicate"];
    stratafs(&unknown).refused(1, &["frobnicate"]);
    std::fs::remove_dir(stage.dir().join("inside")).unwrap();
    stage.is_as_it_was();
}

#[test]
fn a_machine_without_fuse() {
    let mut stage = Stage::new();
    // A /dev of its own, without fuse in it.
    let script = format!(
        "unshare -m bash -c 'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && \
         exec {} mount {} {}' 2>&1 && exit 1 || echo \"code $?\"",
        env!("CARGO_BIN_EXE_stratafs"),
        stage.dir_text(),
        stage.mountpoint_text()
    );
    let said = run_in(Path::new("/"), &script);
    assert!(said.contains("/dev/fuse is missing") && said.ends_with("code 7\n"), "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");
    stage.is_as_it_was();
}

#[test]
fn disks_that_are_read_only_or_full() {
    let disk = SmallDisk::new(48);
    let dir = disk.join("volume");
    let mnt = tempfile::tempdir().unwrap();
    let (dir_text, mnt) = (dir.to_str().unwrap(), mnt.path().to_str().unwrap());

    disk.set_read_only(true);
    stratafs(&["init", dir_text]).refused(10, &["volume", "Read-only"]);
    disk.set_read_only(false);
    let filler = disk.fill();
    stratafs(&["init", dir_text]).refused(10, &["No space"]);
    assert!(!dir.join("superblock").exists());
    std::fs::remove_file(&filler).unwrap();
    run("rm", &["-rf", dir_text]);

    stratafs(&["init", dir_text]).ok();
    stratafs(&["snapshot", "create", dir_text, "taken"]).ok();
    disk.set_read_only(true);
    for command in [&["mount", dir_text, mnt][..], &["snapshot", "create", dir_text, "x"]] {
        stratafs(command).refused(10, &["Read-only"]);
    }
    disk.set_read_only(false);
    let listed = stratafs(&["snapshot", "list", dir_text, "--json"]).json();
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 1);
}

#[test]
fn directories_that_cannot_become_a_volume() {
    let mut stage = Stage::new();
    let before = facts_below(stage.dir());
    stratafs(&["init", stage.dir_text()]).refused(1, &["exists already"]);
    let full = stage.dir().with_file_name("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("data"), b"of somebody").unwrap();
    stratafs(&["init", full.to_str().unwrap()]).refused(1, &["not empty", "data"]);
    assert_eq!(std::fs::read_dir(&full).unwrap().count(), 1);
    assert_eq!(facts_below(stage.dir()), before);
    stage.is_as_it_was();
}

#[test]
fn snapshot_names_that_cannot_be() {
    let mut stage = Stage::new();
    let dir = stage.dir_text().to_owned();
    let long = "x".repeat(256);
    for (name, words) in [
        ("a/b", "cannot name a snapshot"),
        (".", "cannot name a snapshot"),
        ("..", "cannot name a snapshot"),
        ("", "cannot name a snapshot"),
        (&long, "255 bytes"),
        ("taken", "exists already"),
    ] {
        stratafs(&["snapshot", "create", &dir, name]).refused(1, &[words]);
        if name != "taken" {
            stratafs(&["snapshot", "rename", &dir, "taken", name]).refused(1, &[words]);
        }
    }
    stratafs(&["snapshot", "delete", &dir, "missing"]).refused(1, &["missing"]);
    stratafs(&["snapshot", "delete", &dir, "taken", "missing"]).refused(1, &["missing"]);
    stage.is_as_it_was();
}

#[test]
fn names_that_are_not_utf8_work() {
    let stage = Stage::new();
    let dir = stage.dir_text();
    let name = OsString::from_vec(b"caf\xe9".to_vec());
    let create = ["snapshot".into(), "create".into(), dir.into(), name.clone()];
    stratafs::<OsString>(&create).ok();
    let listed = stratafs(&["snapshot", "list", dir]).ok();
    assert_eq!(listed.stdout.lines().count(), 3, "{listed:#?}");
    let rename = ["snapshot".into(), "rename".into(), dir.into(), name.clone(), "plain".into()];
    stratafs::<OsString>(&rename).ok();
    stratafs(&["snapshot", "delete", dir, "plain"]).ok();
}

#[test]
fn wrong_usage_says_how() {
    for line in [&["frobnicate"][..], &["mount"], &["snapshot", "create", "/v"], &[]] {
        let ran = stratafs(line);
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        assert!(ran.stderr.contains("Usage"), "{ran:#?}");
    }
    stratafs(&["version"]).ok();
    stratafs(&["--help"]).ok();
}

/// With --json an error is JSON, too, and stdout stays empty.
#[test]
fn errors_can_be_read_by_programs() {
    let ran = stratafs(&["status", "/no/such/volume", "--json"]);
    assert_eq!((ran.code, &ran.stdout[..]), (Some(3), ""));
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(error["exit_code"], 3);
    assert!(error["error"].as_str().unwrap().contains("/no/such/volume"), "{error}");
}
