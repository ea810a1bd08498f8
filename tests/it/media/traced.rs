//! The program, mounted in the foreground with the shim below it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::shim::Shim;
use crate::testkit::{Ran, stratafs, try_run};

/// A mount that hangs would hang the test; killed, it answers with an error.
const HANGS_AFTER: Duration = Duration::from_mins(1);

/// A mount that always goes away again.
pub struct Traced {
    child: Child,
    mnt: PathBuf,
    said: PathBuf,
    over: Arc<AtomicBool>,
    hung: Arc<AtomicBool>,
    /// How it ended.
    code: Option<i32>,
}

impl Traced {
    /// Mounts. It may fail: see [`Traced::is_mounted`].
    pub fn mount(volume: &Path, mnt: &Path, shim: Option<&Shim>) -> Self {
        std::fs::create_dir_all(mnt).unwrap();
        let said = mnt.with_extension("said");
        let mut command = Command::new(env!("CARGO_BIN_EXE_stratafs"));
        command.args(["mount", "-f"]).args([volume, mnt]);
        command.envs(shim.map(Shim::environment).unwrap_or_default());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&said).unwrap());
        let child = command.spawn().unwrap();
        let (over, hung) = (Arc::default(), Arc::default());
        let mnt = mnt.to_owned();
        let mut this = Self { child, mnt, said, over, hung, code: None };
        this.watch();
        while !this.is_mounted() && this.ended().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        this
    }

    fn watch(&self) {
        let (over, hung) = (Arc::clone(&self.over), Arc::clone(&self.hung));
        let pid = self.child.id();
        std::thread::spawn(move || {
            let started = Instant::now();
            while started.elapsed() < HANGS_AFTER {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            hung.store(true, Ordering::Relaxed);
            try_run("kill", &["-KILL", &pid.to_string()]);
        });
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.mnt.join(below)
    }

    pub fn is_mounted(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.lines().any(|line| line.split(' ').nth(1) == self.mnt.to_str())
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// It had to be killed.
    pub fn hung(&self) -> bool {
        self.hung.load(Ordering::Relaxed)
    }

    fn ended(&mut self) -> Option<i32> {
        if self.code.is_none()
            && let Some(status) = self.child.try_wait().unwrap()
        {
            self.over.store(true, Ordering::Relaxed);
            // A signal is no exit code.
            self.code = Some(status.code().unwrap_or(-1));
            if self.is_mounted() {
                try_run("umount", &["-l", self.mnt.to_str().unwrap()]);
            }
        }
        self.code
    }

    /// Waits until the process is gone; its exit code, -1 for a signal.
    pub fn wait(&mut self) -> i32 {
        loop {
            if let Some(code) = self.ended() {
                return code;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Unmounts with our command; what it said, and the exit code of the mounted process.
    pub fn umount(&mut self) -> (Ran, i32) {
        let ran = stratafs(&[Path::new("umount"), &self.mnt]);
        if ran.code == Some(6) || self.is_mounted() {
            // Nothing of ours is open: this is for a failed test, or a control socket never made.
            try_run("umount", &["-l", self.mnt.to_str().unwrap()]);
        }
        (ran, self.wait())
    }

    /// As `kill -9`, and takes the dead mount away.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.wait();
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if self.ended().is_none() {
            try_run("umount", &["-l", self.mnt.to_str().unwrap()]);
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.over.store(true, Ordering::Relaxed);
        }
        if std::thread::panicking() {
            eprintln!("---- the mount said ----\n{}", self.said());
        }
    }
}
