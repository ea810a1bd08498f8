//! Small real disks: ext4 in a file, mounted through a loop device.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::testkit::{run, try_run};

/// An ext4 file system of a given size; it goes away when dropped.
pub struct LoopDisk {
    temp: TempDir,
}

impl LoopDisk {
    pub fn new(mib: usize) -> Self {
        let this = Self { temp: tempfile::tempdir().unwrap() };
        let image = this.temp.path().join("image");
        let image = image.to_str().unwrap();
        std::fs::create_dir(this.dir()).unwrap();
        run("truncate", &["-s", &format!("{mib}M"), image]);
        // Without blocks that only root may take: full is full.
        run("mkfs.ext4", &["-q", "-F", "-b", "4096", "-m", "0", image]);
        run("mount", &["-o", "loop", image, this.dir().to_str().unwrap()]);
        this
    }

    pub fn dir(&self) -> PathBuf {
        self.temp.path().join("disk")
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Takes every block that is left, behind the back of whoever uses the disk.
    pub fn fill(&self) -> Filler {
        let path = self.join("filler");
        let mut file = File::create(&path).unwrap();
        // What ext4 had set aside for late allocation shows up only after a sync.
        for size in [1 << 20, 4096, 4096, 4096, 4096] {
            while file.write_all(&vec![1; size]).is_ok() {}
            file.sync_all().unwrap();
        }
        Filler(path)
    }

    pub fn free_bytes(&self) -> u64 {
        let dir = self.dir();
        let text = run("df", &["--output=avail", "-B1", dir.to_str().unwrap()]);
        text.lines().nth(1).unwrap().trim().parse().unwrap()
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        try_run("umount", &["-l", self.dir().to_str().unwrap()]);
    }
}

/// What filled a disk.
pub struct Filler(PathBuf);

impl Filler {
    /// Gives the blocks back; ext4 does so for good when it is synced.
    pub fn free(self) {
        std::fs::remove_file(&self.0).unwrap();
        File::open(self.0.parent().unwrap()).unwrap().sync_all().unwrap();
    }
}

/// Moves the volume's first shard to another disk.
pub fn move_shard(volume: &Path, to: &Path) {
    let shard = volume.join("shards/0");
    run("mv", &[shard.to_str().unwrap(), to.to_str().unwrap()]);
    std::os::unix::fs::symlink(to, shard).unwrap();
}
