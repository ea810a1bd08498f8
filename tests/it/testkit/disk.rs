//! Disks that are small, full or read-only.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{run, try_run};

/// A tmpfs of a given size, unmounted when dropped.
pub struct SmallDisk {
    temp: TempDir,
}

impl SmallDisk {
    pub fn new(mib: usize) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        run("mount", &["-t", "tmpfs", "-o", &size, "none", temp.path().to_str().unwrap()]);
        Self { temp }
    }

    pub fn path(&self) -> &Path {
        self.temp.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub fn set_read_only(&self, read_only: bool) {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        run("mount", &["-o", options, self.temp.path().to_str().unwrap()]);
    }

    /// Takes all space that is left, behind the back of whoever uses the disk.
    pub fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        try_run("umount", &["-l", self.temp.path().to_str().unwrap()]);
    }
}
