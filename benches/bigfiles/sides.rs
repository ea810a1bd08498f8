//! What big files are written to.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use stratafs::env::Env;
use stratafs::types::{At, FileKind, Ino};
use stratafs::volume::{InitOptions, NewInode, OpenOptions as VolumeOptions, Volume};
use tempfile::TempDir;

const MIB: usize = 1024 * 1024;
const STRATAFS: &str = env!("CARGO_BIN_EXE_stratafs");

/// Something that takes files.
pub trait Side {
    fn name(&self) -> &'static str;
    /// Writes a file in pieces of 1 MiB; what it returns makes it durable.
    fn write(&self, name: &str, data: &[u8]) -> Box<dyn FnOnce() + '_>;
    /// The file for writing at any place, if there are descriptors here.
    fn open(&self, _name: &str) -> Option<File> {
        None
    }
    /// Most memory that serving took.
    fn peak_mib(&self) -> Option<u64> {
        None
    }
}

fn write_in(dir: &Path, name: &str, data: &[u8]) -> Box<dyn FnOnce()> {
    let path = dir.join(name);
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path);
    let mut file = file.expect("a new file");
    for piece in data.chunks(MIB) {
        std::io::Write::write_all(&mut file, piece).expect("a write");
    }
    Box::new(move || file.sync_all().expect("an fsync"))
}

fn open_in(dir: &Path, name: &str) -> File {
    OpenOptions::new().write(true).open(dir.join(name)).expect("it was written")
}

pub struct Ext4(TempDir);

impl Ext4 {
    pub fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }
}

impl Side for Ext4 {
    fn name(&self) -> &'static str {
        "ext4"
    }

    fn write(&self, name: &str, data: &[u8]) -> Box<dyn FnOnce() + '_> {
        write_in(self.0.path(), name, data)
    }

    fn open(&self, name: &str) -> Option<File> {
        Some(open_in(self.0.path(), name))
    }
}

/// A mount in a temporary directory.
struct Mount {
    dir: TempDir,
    process: Option<Child>,
}

impl Mount {
    fn at(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn is_there(&self) -> bool {
        let device = |path: &Path| fs::metadata(path).map(|m| m.dev()).ok();
        device(&self.at()) != device(self.dir.path())
    }

    fn pid(&self) -> Option<u32> {
        let locked = fs::read_to_string(self.dir.path().join("volume/lock")).ok()?;
        locked.split_whitespace().find_map(|word| word.parse().ok())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let mut by = Command::new(if self.process.is_some() { "umount" } else { STRATAFS });
        if self.process.is_none() {
            by.arg("umount");
        }
        let done = by.arg(self.at()).stdout(Stdio::null()).status();
        assert!(done.is_ok_and(|status| status.success()), "{} stays mounted", self.at().display());
        if let Some(process) = &mut self.process {
            process.wait().expect("the floor ends with its mount");
        }
    }
}

fn mount_dir() -> TempDir {
    let dir = TempDir::new().expect("a temporary directory");
    fs::create_dir(dir.path().join("mnt")).expect("a mountpoint");
    dir
}

pub struct Floor(Mount);

impl Floor {
    pub fn new() -> Self {
        let nullfs = Path::new(STRATAFS).with_file_name("examples").join("nullfs");
        let dir = mount_dir();
        let process =
            Command::new(&nullfs).arg(dir.path().join("mnt")).stderr(Stdio::null()).spawn();
        let process = process.expect("cargo build --release --example nullfs makes the floor");
        let mount = Mount { dir, process: Some(process) };
        for _ in 0..500 {
            if mount.is_there() {
                return Self(mount);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the floor did not mount");
    }
}

impl Side for Floor {
    fn name(&self) -> &'static str {
        "floor"
    }

    fn write(&self, name: &str, data: &[u8]) -> Box<dyn FnOnce() + '_> {
        write_in(&self.0.at(), name, data)
    }

    fn open(&self, name: &str) -> Option<File> {
        Some(open_in(&self.0.at(), name))
    }
}

pub struct Strata(Mount);

impl Strata {
    pub fn new() -> Self {
        let dir = mount_dir();
        let run = |args: &[&Path]| {
            let done = Command::new(STRATAFS).args(args).stdout(Stdio::null()).status();
            assert!(done.expect("the program runs").success(), "{args:?}");
        };
        let (volume, at) = (dir.path().join("volume"), dir.path().join("mnt"));
        run(&[Path::new("init"), &volume]);
        run(&[Path::new("mount"), &volume, &at]);
        Self(Mount { dir, process: None })
    }
}

impl Side for Strata {
    fn name(&self) -> &'static str {
        "strata"
    }

    fn write(&self, name: &str, data: &[u8]) -> Box<dyn FnOnce() + '_> {
        write_in(&self.0.at(), name, data)
    }

    fn open(&self, name: &str) -> Option<File> {
        Some(open_in(&self.0.at(), name))
    }

    fn peak_mib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.pid()?)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
    }
}

/// A volume in this process: what a mount adds is what it is slower by.
pub struct Library {
    volume: Arc<Volume>,
    _dir: TempDir,
}

impl Library {
    pub fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let path = dir.path().join("volume");
        Volume::init(&path, &InitOptions { env: Env::system() }).expect("a new volume");
        let options =
            VolumeOptions { env: Env::system(), purpose: "bench".to_owned(), read_only: false };
        Self { volume: Volume::open(&path, options).expect("it opens"), _dir: dir }
    }
}

impl Side for Library {
    fn name(&self) -> &'static str {
        "library"
    }

    fn write(&self, name: &str, data: &[u8]) -> Box<dyn FnOnce() + '_> {
        let new = NewInode {
            kind: FileKind::Regular,
            perm: 0o644,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: b"",
            xattrs: Vec::new(),
        };
        let ino = self.volume.make(Ino::ROOT, name.as_bytes(), &new).expect("a new file").ino;
        let file = self.volume.open_file(At::Live, ino).expect("it was just made");
        for (number, piece) in data.chunks(MIB).enumerate() {
            file.write((number * MIB) as u64, piece).expect("a write");
        }
        Box::new(move || {
            self.volume.commit().expect("a commit");
            drop(file);
        })
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        self.volume.shutdown().expect("the volume closes");
    }
}

/// Appends what source files there are below `dir`, in the order of their names.
pub fn source_files(dir: &Path, out: &mut Vec<u8>) {
    let mut paths: Vec<_> =
        ["src", "tests", "benches", "docs"].iter().map(|name| dir.join(name)).collect();
    while let Some(path) = paths.pop() {
        if let Ok(entries) = fs::read_dir(&path) {
            let mut below: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            below.sort_unstable();
            paths.extend(below);
        } else if let Ok(bytes) = fs::read(&path) {
            out.extend_from_slice(&bytes);
        }
    }
}
