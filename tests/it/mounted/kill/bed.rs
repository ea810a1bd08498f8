//! A volume that is mounted, killed and mounted again; kept when a test fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::helper::is_running;
use crate::testkit::{Ran, stratafs, try_run, wait_until};

/// A round that takes longer hangs; its process is killed, and the calls that wait for it fail.
const ROUND_SECS_MAX: u64 = 150;

pub struct Bed {
    temp: Option<TempDir>,
    /// The mounted process, 0 for none.
    pid: Arc<AtomicU32>,
    /// Seconds since `started` when the last round began.
    beat: Arc<AtomicU64>,
    started: Instant,
    over: Arc<AtomicBool>,
    /// How long each mount took until it was ready.
    pub mount_times: Vec<Duration>,
    /// What a message must say so that a failure can be looked into.
    pub story: String,
}

impl Bed {
    pub fn new() -> Self {
        assert!(Path::new("/dev/fuse").exists(), "these tests need /dev/fuse");
        let temp = tempfile::Builder::new().prefix("stratafs-kill-").tempdir().unwrap();
        fs::create_dir(temp.path().join("mnt")).unwrap();
        let bed = Self {
            temp: Some(temp),
            pid: Arc::default(),
            beat: Arc::default(),
            started: Instant::now(),
            over: Arc::default(),
            mount_times: Vec::new(),
            story: String::new(),
        };
        stratafs(&["init", &bed.text("volume")]).ok();
        bed.watch();
        bed
    }

    fn watch(&self) {
        let (pid, beat, over) =
            (Arc::clone(&self.pid), Arc::clone(&self.beat), Arc::clone(&self.over));
        let started = self.started;
        std::thread::spawn(move || {
            while !over.load(Relaxed) {
                std::thread::sleep(Duration::from_millis(200));
                let pid = pid.load(Relaxed);
                if pid != 0 && started.elapsed().as_secs() > beat.load(Relaxed) + ROUND_SECS_MAX {
                    eprintln!("A round hangs; process {pid} is killed");
                    try_run("kill", &["-KILL", &pid.to_string()]);
                }
            }
        });
    }

    /// Tells the watch that things go on.
    pub fn alive(&self) {
        self.beat.store(self.started.elapsed().as_secs(), Relaxed);
    }

    pub fn dir(&self) -> &Path {
        self.temp.as_ref().unwrap().path()
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir().join(below)
    }

    pub fn text(&self, below: &str) -> String {
        self.path(below).to_str().unwrap().to_owned()
    }

    pub fn mnt(&self) -> PathBuf {
        self.path("mnt")
    }

    pub fn pid(&self) -> u32 {
        self.pid.load(Relaxed)
    }

    pub fn configure(&self, config: &str) {
        fs::write(self.path("volume/config.toml"), config).unwrap();
    }

    /// Mounts, at the first attempt and with nothing done before.
    pub fn mount(&mut self) {
        let began = Instant::now();
        let line = ["mount", "--json", &self.text("volume"), &self.text("mnt")];
        let mounted = stratafs(&line).json();
        self.mount_times.push(began.elapsed());
        self.pid.store(u32::try_from(mounted["pid"].as_u64().unwrap()).unwrap(), Relaxed);
    }

    pub fn kill(&self) {
        let pid = self.pid();
        try_run("kill", &["-KILL", &pid.to_string()]);
    }

    /// Waits until nothing of a killed process is left.
    pub fn gone(&self) {
        let pid = self.pid.swap(0, Relaxed);
        wait_until("the killed process is gone", || !is_running(pid));
    }

    /// Starts to mount in the foreground, and kills that after a while.
    pub fn kill_mounting(&self, after: Duration) {
        let log = File::options().append(true).create(true).open(self.path("mount.log")).unwrap();
        let mut child: Child = Command::new(env!("CARGO_BIN_EXE_stratafs"))
            .args(["mount", "-f", &self.text("volume"), &self.text("mnt")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.pid.store(child.id(), Relaxed);
        std::thread::sleep(after);
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "mounting failed with {ended:?}: see mount.log");
        child.kill().unwrap();
        child.wait().unwrap();
        self.pid.store(0, Relaxed);
    }

    pub fn ask(&self, command: &[&str], rest: &[&str]) -> Ran {
        stratafs(&[command, &[&self.text("volume")], rest].concat())
    }

    /// What the log says of lost work or damage.
    pub fn assert_no_errors_logged(&self) {
        for name in ["volume/stratafs.log", "mount.log"] {
            let text = fs::read_to_string(self.path(name)).unwrap_or_default();
            let errors: Vec<_> = text.lines().filter(|line| line.contains(" ERROR ")).collect();
            assert!(errors.is_empty(), "{name}: {errors:#?}");
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        let pid = self.pid();
        if pid != 0 {
            try_run("kill", &["-KILL", &pid.to_string()]);
        }
        for _ in 0..3 {
            try_run("umount", &["-l", &self.text("mnt")]);
        }
        if std::thread::panicking()
            && let Some(temp) = self.temp.take()
        {
            eprintln!("{}; the volume is kept in {}", self.story, temp.keep().display());
        }
    }
}
