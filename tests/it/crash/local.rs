//! Faults on real directories and RocksDB, at the points that memory does not have.
//!
//! A cut here is the death of the process: nothing that was written is lost, nothing more comes.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stratafs::check::{self, CheckOptions};
use stratafs::config::Config;
use stratafs::env::{Fault, Faults, Point, Power};
use stratafs::error::{Error, Result};
use stratafs::kv::Kv;
use stratafs::shard::Shard;
use stratafs::types::{At, FileKind, Ino, ShardId, VolumeId};
use stratafs::volume::{
    Bounds, InitOptions, LocalStorage, NewInode, OpenOptions, Opening, Storage, Volume,
};

use super::points::reached_on_directories;
use super::work::env;
use crate::testkit::{NO_BACKGROUND_COMMITS, random_bytes, read_all};

const O_DIRECT: i32 = 0o40000;

/// Directories, with small containers.
struct Small;

impl Storage for Small {
    fn tables(&self, dir: &Path, config: &Config, how: Opening) -> Result<Arc<dyn Kv>> {
        LocalStorage.tables(dir, config, how)
    }
    fn create_shard(
        &self,
        dir: &Path,
        volume: VolumeId,
        id: ShardId,
        faults: &Faults,
    ) -> Result<Arc<dyn Shard>> {
        LocalStorage.create_shard(dir, volume, id, faults)
    }
    fn open_shard(
        &self,
        dir: &Path,
        volume: VolumeId,
        id: ShardId,
        faults: &Faults,
    ) -> Result<Arc<dyn Shard>> {
        LocalStorage.open_shard(dir, volume, id, faults)
    }
    fn bounds(&self) -> Bounds {
        Bounds { container_bytes: 16 * 1024, ..Bounds::default() }
    }
}

fn armed(point: Point, fault: Fault) -> Faults {
    let faults = Faults::watching(Power::default());
    faults.arm(point, 1, fault);
    faults
}

fn init(dir: &Path, faults: &Faults) -> Result<VolumeId> {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("config.toml"), NO_BACKGROUND_COMMITS).unwrap();
    Volume::init(dir, &InitOptions { env: env(3, faults.clone()) })
}

fn open(dir: &Path, faults: &Faults) -> Result<Arc<Volume>> {
    loop {
        let options =
            OpenOptions { env: env(4, faults.clone()), purpose: "a test".into(), read_only: false };
        match Volume::open_on(dir, options, Arc::new(Small)) {
            Err(Error::Busy { .. }) => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

fn write(volume: &Arc<Volume>, name: &[u8], data: &[u8]) {
    let kind = FileKind::Regular;
    let new =
        NewInode { kind, perm: 0o644, uid: 0, gid: 0, rdev: 0, target: b"", xattrs: Vec::new() };
    let ino = volume.make(Ino::ROOT, name, &new).unwrap().ino;
    volume.open_file(At::Live, ino).unwrap().write(0, data).unwrap();
}

fn content(volume: &Arc<Volume>, name: &[u8]) -> Option<Vec<u8>> {
    let ino = volume.lookup(At::Live, Ino::ROOT, name).unwrap()?.ino;
    Some(read_all(&volume.open_file(At::Live, ino).unwrap()))
}

fn assert_sound(volume: &Arc<Volume>) {
    let report = check::run(volume, CheckOptions { read_data: true }, &mut |_| {}).unwrap();
    assert!(report.problems.is_empty(), "{:#?}", report.problems);
}

/// Until the last step of `init` the directory is no volume, and says so; afterwards it is one.
#[test]
fn an_interrupted_init_is_no_volume() {
    let points = reached_on_directories().filter(|point| {
        point.name().starts_with("init.")
            || [Point::ShardMake, Point::ShardMark, Point::ShardMarked].contains(point)
    });
    for point in points {
        for fault in [Fault::Cut, Fault::Io, Fault::Full] {
            let temp = tempfile::tempdir().unwrap();
            let dir = temp.path().join("volume");
            let faults = armed(point, fault);
            assert!(init(&dir, &faults).is_err());
            assert!(faults.has_fired(), "{}", point.name());
            let opened = open(&dir, &Faults::default());
            assert!(matches!(opened, Err(Error::NotAVolume { .. })), "{opened:?}");
            init(&dir, &Faults::default()).unwrap();
            assert_sound(&open(&dir, &Faults::default()).unwrap());
        }
    }
}

struct Disk {
    temp: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let disk = Self { temp: tempfile::tempdir().unwrap() };
        init(&disk.volume(), &Faults::default()).unwrap();
        disk
    }

    fn volume(&self) -> PathBuf {
        self.temp.path().join("volume")
    }
}

/// However far `shard add` came: the volume opens, and adding the shard again works.
#[test]
fn an_interrupted_shard_add_is_done_again() {
    const POINTS: [Point; 6] = [
        Point::ShardMake,
        Point::ShardMark,
        Point::ShardMarked,
        Point::ShardAdd,
        Point::ShardAddStaged,
        Point::ShardAddAttach,
    ];
    for point in POINTS {
        for fault in [Fault::Cut, Fault::Io, Fault::Full] {
            let disk = Disk::new();
            let extra = disk.temp.path().join("extra");
            let faults = armed(point, fault.clone());
            let volume = open(&disk.volume(), &faults).unwrap();
            write(&volume, b"a", &random_bytes(1, 30_000));
            volume.commit().unwrap();
            let added = volume.shard_add(&extra, "extra", 1);
            assert!(added.is_err() && faults.has_fired(), "{}: {added:?}", point.name());
            // A failed call leaves a volume that goes on; a dead process leaves one that opens.
            let is_dead = matches!(fault, Fault::Cut);
            let volume = if is_dead {
                drop(volume);
                open(&disk.volume(), &Faults::default()).unwrap()
            } else {
                volume
            };
            if volume.shard_list().unwrap().len() == 1 {
                volume.shard_add(&extra, "extra", 1).unwrap();
            }
            for number in 0..8 {
                write(&volume, format!("b{number}").as_bytes(), &random_bytes(number, 20_000));
            }
            assert_sound(&volume);
            let stored = |volume: &Volume| -> Vec<u64> {
                volume.shard_list().unwrap().iter().map(|shard| shard.stored_bytes).collect()
            };
            assert!(stored(&volume).iter().all(|bytes| *bytes > 0), "{:?}", stored(&volume));
            volume.shutdown().unwrap();
            drop(volume);
            let volume = open(&disk.volume(), &Faults::default()).unwrap();
            assert_eq!(stored(&volume).len(), 2);
            assert_sound(&volume);
        }
    }
}

fn has_direct_io(dir: &Path) -> bool {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).custom_flags(O_DIRECT);
    options.open(dir.join("probe")).is_ok()
}

/// A container whose data is synced and whose name or length is not: no commit relies on it.
#[test]
fn a_container_synced_by_half_is_in_no_commit() {
    let probe = tempfile::tempdir().unwrap();
    for point in [Point::ShardSyncNames, Point::ShardCut] {
        if point == Point::ShardCut && !has_direct_io(probe.path()) {
            eprintln!("no O_DIRECT below {}: {} is left out", probe.path().display(), point.name());
            continue;
        }
        for fault in [Fault::Cut, Fault::Io] {
            let disk = Disk::new();
            let volume = open(&disk.volume(), &Faults::default()).unwrap();
            write(&volume, b"old", &random_bytes(1, 30_000));
            volume.shutdown().unwrap();
            drop(volume);
            let faults = armed(point, fault);
            let volume = open(&disk.volume(), &faults).unwrap();
            write(&volume, b"new", &random_bytes(2, 30_000));
            let committed = volume.commit();
            assert!(faults.has_fired(), "{}", point.name());
            // A footer may be written later; then the frames are durable without it.
            let expected = committed.is_ok().then(|| random_bytes(2, 30_000));
            if let Err(e) = &committed {
                assert!(matches!(e, Error::Poisoned { .. }), "{e:?}");
            }
            drop(volume);
            let volume = open(&disk.volume(), &Faults::default()).unwrap();
            assert!(content(&volume, b"old") == Some(random_bytes(1, 30_000)));
            assert!(content(&volume, b"new") == expected, "{}", point.name());
            assert_sound(&volume);
        }
    }
}
