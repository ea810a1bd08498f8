//! Full disks, real ones: what was accepted is kept, and there is a way out.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::disks::{LoopDisk, move_shard};
use super::traced::Traced;
use crate::testkit::{MIB, Ran, random_bytes, stratafs, try_run, wait_until};

const ENOSPC: i32 = 28;
/// Nothing is committed unless somebody asks.
const CONFIG: &str = "[limits]\ncommit_interval_secs = 3600\n";

/// A mounted volume whose metadata and data lie where the test wants them.
struct Place {
    temp: TempDir,
    volume: PathBuf,
    m: Traced,
    /// What was accepted and synced.
    kept: BTreeMap<String, u64>,
}

impl Place {
    fn new(meta: Option<&LoopDisk>, data: Option<&LoopDisk>, config: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let volume = meta.map_or_else(|| temp.path().join("volume"), |disk| disk.join("volume"));
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("config.toml"), config).unwrap();
        stratafs(&[Path::new("init"), &volume]).ok();
        match data {
            Some(disk) => move_shard(&volume, &disk.join("shard")),
            None if meta.is_some() => move_shard(&volume, &temp.path().join("shard")),
            None => {}
        }
        let m = Traced::mount(&volume, &temp.path().join("mnt"), None);
        assert!(m.is_mounted(), "{}", m.said());
        Self { temp, volume, m, kept: BTreeMap::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.m.path(name)
    }

    fn sync(&self) -> std::io::Result<()> {
        File::open(self.path(""))?.sync_all()
    }

    /// A file of 1 MiB that is not synced.
    fn write(&self, name: &str, seed: u64) -> std::io::Result<()> {
        fs::write(self.path(name), random_bytes(seed, MIB))
    }

    /// One that is, and so must never be lost.
    fn keep(&mut self, name: &str, seed: u64) {
        self.write(name, seed).unwrap();
        self.sync().unwrap();
        self.kept.insert(name.to_owned(), seed);
    }

    fn assert_kept(&self) {
        for (name, seed) in &self.kept {
            let found = fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(found == random_bytes(*seed, MIB), "{name} is not what was synced");
        }
    }

    fn assert_sound(&self) {
        let ran = stratafs(&[Path::new("check"), Path::new("--read-data"), &self.volume]);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
    }

    fn ask(&self, words: &[&str]) -> Ran {
        let (command, rest) = words.split_at(1);
        let volume = self.volume.to_str().unwrap();
        stratafs(&[command, &[volume], rest].concat())
    }

    fn mnt(&self) -> PathBuf {
        self.temp.path().join("mnt")
    }

    fn umount(&mut self) {
        let (ran, code) = self.m.umount();
        assert_eq!((ran.code, code), (Some(0), 0), "{ran:#?}\n{}", self.m.said());
    }

    fn mount(&mut self) {
        self.m = Traced::mount(&self.volume, &self.mnt(), None);
        assert!(self.m.is_mounted(), "{}", self.m.said());
    }

    fn remount(&mut self) {
        self.umount();
        self.mount();
    }

    /// `kill -9`, and the dead mount taken away.
    fn kill(&mut self) {
        self.m.kill();
    }

    /// Everything works: also what needs room.
    fn assert_alive(&mut self) {
        for number in 0..4 {
            self.keep(&format!("alive{number}.bin"), 7000 + number);
        }
        fs::create_dir(self.path(".snapshots/alive")).unwrap();
        self.remount();
        self.assert_kept();
        self.assert_sound();
    }
}

#[track_caller]
fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<i32> {
    result.expect_err("it should be refused").raw_os_error()
}

/// The volume, data and metadata, fills its disk; and so does the data alone. Every way of writing
/// is refused cleanly, what was accepted stays, and removing gives the room back.
#[test]
fn writers_are_refused_cleanly_and_removing_helps() {
    for alone in [false, true] {
        let disk = LoopDisk::new(192);
        let (meta, data) = if alone { (None, Some(&disk)) } else { (Some(&disk), Some(&disk)) };
        let mut p = Place::new(meta, data, CONFIG);
        let source = p.temp.path().join("source");
        fs::create_dir(&source).unwrap();
        let (from, to) = (source.to_str().unwrap().to_owned(), p.mnt());
        let to = to.to_str().unwrap().to_owned();
        p.keep("first.bin", 1);
        fs::create_dir(p.path(".snapshots/s")).unwrap();
        let mut refused = Vec::new();
        for number in 10..400u64 {
            if refused.len() == 3 {
                break;
            }
            let name = format!("{number}.bin");
            let file = format!("{from}/{name}");
            fs::write(&file, random_bytes(number, MIB)).unwrap();
            let (program, ran) = match number % 3 {
                0 => ("rsync", try_run("rsync", &["-a", &file, &to])),
                1 => ("cp", try_run("cp", &[&file, &to])),
                _ => {
                    let (file, to) = (format!("if={file}"), format!("of={to}/{name}"));
                    ("dd", try_run("dd", &[&file, &to, &"bs=64K".into(), &"conv=fsync".into()]))
                }
            };
            if ran.code == Some(0) {
                p.sync().unwrap();
                p.kept.insert(name, number);
            } else {
                assert!(ran.stderr.contains("No space left on device"), "{program}: {ran:#?}");
                let _ = fs::remove_file(p.path(&name));
                refused.push(program);
            }
        }
        refused.sort_unstable();
        assert_eq!(refused, ["cp", "dd", "rsync"]);
        assert!(p.kept.len() > 80, "only {} MiB fit", p.kept.len());
        // Of a file that was refused only a part is there, and the next commit works all the same.
        assert_eq!(errno(p.write("more.bin", 5000)), Some(ENOSPC));
        p.sync().unwrap();
        p.assert_kept();
        p.remount();
        p.assert_kept();
        p.assert_sound();
        fs::remove_dir(p.path(".snapshots/s")).unwrap();
        let _ = fs::remove_file(p.path("more.bin"));
        for name in p.kept.keys().filter(|name| name.as_str() != "first.bin") {
            fs::remove_file(p.path(name)).unwrap();
        }
        p.kept.retain(|name, _| name == "first.bin");
        p.ask(&["gc"]).ok();
        p.umount();
        p.mount();
        p.assert_alive();
    }
}

/// Somebody else takes the last block of the disk with the data, reserve and all.
#[test]
fn a_data_disk_filled_by_another_process() {
    for kill in [false, true] {
        let disk = LoopDisk::new(128);
        let mut p = Place::new(None, Some(&disk), CONFIG);
        p.keep("safe.bin", 1);
        fs::create_dir(p.path(".snapshots/s")).unwrap();
        // Accepted, and while they are open only in memory: more than is reserved on the disk.
        let mut late = Vec::new();
        for number in 0..30 {
            let file = File::create(p.path(&format!("late{number}.bin"))).unwrap();
            let bytes = random_bytes(100 + number, MIB);
            // Backwards: a stream would be cut, and stored in what is reserved.
            for at in [MIB / 2, 0] {
                file.write_all_at(&bytes[at..at + MIB / 2], at as u64).unwrap();
            }
            late.push(file);
        }
        let filler = disk.fill();
        assert_eq!(disk.free_bytes(), 0);

        assert_eq!(errno(p.sync()), Some(ENOSPC));
        let status = p.ask(&["status"]).ok().stdout;
        let place = p.volume.join("shards/0");
        assert!(status.contains("No space left on"), "{status}");
        assert!(status.contains(place.to_str().unwrap()), "{status}");
        assert_eq!(errno(p.write("more.bin", 2)), Some(ENOSPC));
        p.assert_kept();
        if kill {
            p.kill();
            late.clear();
            p.mount();
            p.assert_kept();
            p.assert_sound();
            assert!(!p.path("late0.bin").exists(), "it was never committed");
            fs::remove_dir(p.path(".snapshots/s")).unwrap();
            p.sync().unwrap();
            p.ask(&["gc"]).ok();
            p.remount();
            filler.free();
        } else {
            filler.free();
            p.sync().unwrap();
            late.clear();
            p.kept.extend((0..30).map(|number| (format!("late{number}.bin"), 100 + number)));
            let status = p.ask(&["status"]).ok().stdout;
            assert!(!status.contains("No space left on"), "{status}");
        }
        p.assert_kept();
        p.assert_alive();
    }
}

/// More names than the log of the database has room reserved for.
fn many_links(p: &Place, from: usize) -> Option<i32> {
    let target = "t".repeat(4000);
    for number in from..from + 20_000 {
        let made = symlink(&target, p.path(&format!("link{number}")));
        let done = if number % 1000 == 999 { made.and_then(|()| p.sync()) } else { made };
        if let Err(error) = done {
            return error.raw_os_error();
        }
    }
    None
}

/// Somebody else takes the last block of the disk with the metadata.
#[test]
fn a_metadata_disk_filled_by_another_process() {
    for kill in [false, true] {
        let disk = LoopDisk::new(160);
        // Room is asked for only now and then, and nothing else stops these changes. None of them
        // is committed before the disk is full: they are less than a third of the bound.
        let config =
            format!("{CONFIG}overlay_bytes = \"192MiB\"\nwrite_buffer_bytes = \"192MiB\"\n");
        let mut p = Place::new(Some(&disk), None, &config);
        p.keep("safe.bin", 1);
        p.write("late.bin", 2).unwrap();
        let target = "t".repeat(4000);
        for number in 0..10_000 {
            symlink(&target, p.path(&format!("early{number}"))).unwrap();
        }
        let filler = disk.fill();

        let refused = match p.sync() {
            Ok(()) => many_links(&p, 0),
            Err(error) => error.raw_os_error(),
        };
        assert_eq!(refused, Some(ENOSPC), "{}", p.m.said());
        assert_eq!(errno(p.sync()), Some(ENOSPC));
        let status = p.ask(&["status"]).ok().stdout;
        let place = disk.join("volume/meta");
        assert!(status.contains("No space left on"), "{status}");
        assert!(status.contains(place.to_str().unwrap()), "{status}");
        assert_eq!(errno(p.write("more.bin", 2)), Some(ENOSPC));
        p.assert_kept();
        // To unmount now would lose what waits: it does not happen by itself.
        let refused = stratafs(&[Path::new("umount"), &p.mnt()]);
        refused.refused(10, &["No space left on", place.to_str().unwrap(), "--lazy"]);
        assert!(p.m.is_mounted());
        if kill {
            p.kill();
            let refused = Traced::mount(&p.volume, &p.mnt(), None);
            assert!(!refused.is_mounted(), "RocksDB opened on a full disk");
            assert!(refused.said().contains("No space left on"), "{}", refused.said());
            assert!(refused.said().contains("read-only"), "{}", refused.said());
            p.assert_sound();
            stratafs(&[Path::new("mount"), Path::new("-o"), Path::new("ro"), &p.volume, &p.mnt()])
                .ok();
            p.assert_kept();
            stratafs(&[Path::new("umount"), &p.mnt()]).ok();
            filler.free();
            p.mount();
        } else {
            filler.free();
            // The database looks for room every five seconds.
            wait_until("commits go on", || p.sync().is_ok());
            p.kept.insert("late.bin".to_owned(), 2);
            assert!(p.path("early9999").is_symlink());
            let status = p.ask(&["status"]).ok().stdout;
            assert!(!status.contains("No space left on"), "{status}");
        }
        p.assert_kept();
        p.assert_alive();
    }
}

/// Names alone fill the disk with the metadata: the reserve is for removing them again.
#[test]
fn metadata_that_fills_its_disk_can_be_removed() {
    let disk = LoopDisk::new(192);
    let mut p = Place::new(Some(&disk), None, CONFIG);
    p.keep("safe.bin", 1);
    fs::create_dir(p.path("d")).unwrap();
    let mut made = 0;
    let refused = loop {
        // Targets that do not compress.
        let bytes = random_bytes(made, 3000);
        let target: String = bytes.iter().map(|byte| char::from(b'@' + byte % 64)).collect();
        if let Err(error) = symlink(target, p.path(&format!("d/{made}"))) {
            break error;
        }
        made += 1;
        if made % 2000 == 0
            && let Err(error) = p.sync()
        {
            break error;
        }
        assert!(made < 200_000, "it is never full");
    };
    assert_eq!(refused.raw_os_error(), Some(ENOSPC));
    println!("{made} links fit");
    // A database that rewrites its tables may have taken the last block for a moment.
    wait_until("commits go on", || p.sync().is_ok());
    p.assert_kept();
    p.remount();
    p.assert_kept();
    p.assert_sound();
    for number in 0..made {
        fs::remove_file(p.path(&format!("d/{number}"))).unwrap();
    }
    p.sync().unwrap();
    fs::remove_dir(p.path("d")).unwrap();
    p.ask(&["gc"]).ok();
    p.remount();
    assert_eq!(fs::read_dir(p.path("")).unwrap().count(), 1);
    p.assert_kept();
    let mut file = File::create(p.path("after")).unwrap();
    file.write_all(b"x").unwrap();
    file.sync_all().unwrap();
}
