//! A mounted volume that always goes away again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::testkit::{Ran, run, stratafs, try_run, wait_until};

/// A filesystem that hangs would hang the test; killed, it answers with an error.
const HANGS_AFTER: Duration = Duration::from_mins(4);
/// The full size of the large volume takes longer than that.
const BIG_HANGS_AFTER: Duration = Duration::from_hours(1);

/// A volume and its mount, in a temporary directory. Dropping it unmounts, whatever happened.
pub struct Mounted {
    temp: TempDir,
    options: Vec<String>,
    /// Process that has it mounted; 0 when none.
    pid: Arc<AtomicU32>,
    gone: Arc<AtomicBool>,
}

impl Mounted {
    pub fn new() -> Self {
        Self::with(&[], "")
    }

    /// With words for the command line of `mount`, and a configuration file.
    pub fn with(options: &[&str], config: &str) -> Self {
        assert!(Path::new("/dev/fuse").exists(), "these tests need /dev/fuse");
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("mnt")).unwrap();
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut this = Self { temp, options, pid: Arc::default(), gone: Arc::default() };
        std::fs::create_dir(this.volume()).unwrap();
        if !config.is_empty() {
            std::fs::write(this.volume().join("config.toml"), config).unwrap();
        }
        stratafs(&["init", &this.volume_text()]).ok();
        this.mount();
        this.watch();
        this
    }

    fn watch(&self) {
        let (pid, gone) = (Arc::clone(&self.pid), Arc::clone(&self.gone));
        std::thread::spawn(move || {
            let started = Instant::now();
            let patience = if is_big() { BIG_HANGS_AFTER } else { HANGS_AFTER };
            while started.elapsed() < patience {
                if gone.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            eprintln!("A mount took longer than any test should; its process is killed");
            kill(pid.load(Ordering::Relaxed), "KILL");
        });
    }

    // ---- places

    /// The directory for this test alone; outside of the mount.
    pub fn outside(&self) -> &Path {
        self.temp.path()
    }

    pub fn volume(&self) -> PathBuf {
        self.temp.path().join("volume")
    }

    /// A path below the mountpoint, or the mountpoint.
    pub fn path(&self, below: &str) -> PathBuf {
        let mnt = self.temp.path().join("mnt");
        if below.is_empty() { mnt } else { mnt.join(below) }
    }

    pub fn text(&self, below: &str) -> String {
        self.path(below).to_str().unwrap().to_owned()
    }

    fn volume_text(&self) -> String {
        self.volume().to_str().unwrap().to_owned()
    }

    // ---- life

    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    pub fn try_mount(&self) -> Ran {
        let mut line = vec!["mount".to_owned(), "--json".to_owned()];
        line.extend([self.volume_text(), self.text("")]);
        line.extend(self.options.iter().cloned());
        stratafs(&line)
    }

    pub fn mount(&mut self) {
        let mounted = self.try_mount().json();
        let pid = u32::try_from(mounted["pid"].as_u64().expect("a process")).unwrap();
        self.pid.store(pid, Ordering::Relaxed);
    }

    /// Unmounts with our command; everything is durable when it returns.
    pub fn umount(&mut self) {
        stratafs(&["umount", &self.text("")]).ok();
        let pid = self.pid.swap(0, Ordering::Relaxed);
        assert!(!is_running(pid), "the disk below can be unmounted at once");
    }

    pub fn remount(&mut self) {
        self.umount();
        self.mount();
    }

    pub fn remount_with(&mut self, options: &[&str]) {
        self.next_options(options);
        self.remount();
    }

    /// Words for the command line of the next `mount`.
    pub fn next_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
    }

    /// Sends a signal and waits until the process is gone.
    pub fn end_by(&mut self, signal: &str) {
        let pid = self.pid.swap(0, Ordering::Relaxed);
        kill(pid, signal);
        wait_until("the process is gone", || !is_running(pid));
    }

    /// Takes note of the process that has it mounted now, if others remounted it.
    pub fn follow(&self) {
        let pid = self.ask_json(&["status"], &[])["pid"].as_u64().unwrap();
        self.pid.store(u32::try_from(pid).unwrap(), Ordering::Relaxed);
    }

    pub fn is_mounted(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.lines().any(|line| line.split(' ').nth(1) == Some(&self.text("")))
    }

    // ---- asking

    /// Runs one of our commands on the mounted, or unmounted, volume.
    pub fn ask(&self, command: &[&str], rest: &[&str]) -> Ran {
        let dir = self.volume_text();
        stratafs(&[command, &[&dir], rest].concat())
    }

    pub fn ask_json(&self, command: &[&str], rest: &[&str]) -> serde_json::Value {
        self.ask(command, &[rest, &["--json"]].concat()).json()
    }

    /// Cumulative counters over all classes: `new_bytes`, `written_bytes` and their kin.
    pub fn total(&self, counter: &str) -> u64 {
        // What is still buffered is not yet counted.
        run("sync", &["-f", &self.text("")]);
        std::fs::File::open(self.path("")).unwrap().sync_all().unwrap();
        let stats = self.ask_json(&["stats"], &[]);
        stats["totals"][counter].as_u64().unwrap_or_else(|| panic!("{counter}: {stats:#}"))
    }

    /// Chunks in the volume.
    pub fn chunks(&self) -> u64 {
        std::fs::File::open(self.path("")).unwrap().sync_all().unwrap();
        self.ask_json(&["stats"], &[])["chunks"].as_u64().unwrap()
    }

    pub fn assert_sound(&self) {
        let report = self.ask_json(&["check"], &["--read-data"]);
        assert_eq!(report["problems"], serde_json::json!([]), "{report:#}");
    }

    /// Resident memory of the mounted process.
    pub fn resident_bytes(&self) -> u64 {
        self.memory_of_process("VmRSS:")
    }

    /// The most that was ever resident of it.
    pub fn peak_bytes(&self) -> u64 {
        self.memory_of_process("VmHWM:")
    }

    fn memory_of_process(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

/// True when the tests of size are to run at their full size: `STRATAFS_BIG=1`.
pub fn is_big() -> bool {
    std::env::var_os("STRATAFS_BIG").is_some_and(|value| value == "1")
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
        let pid = self.pid();
        if pid != 0 {
            try_run("umount", &["-l", &self.text("")]);
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.volume().join("stratafs.log"));
                eprintln!("---- log of the mount ----\n{}", log.unwrap_or_default());
            }
            kill(pid, "KILL");
            let started = Instant::now();
            while is_running(pid) && started.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if self.is_mounted() {
            try_run("umount", &["-l", &self.text("")]);
        }
    }
}

fn kill(pid: u32, signal: &str) {
    if pid != 0 {
        try_run("kill", &[format!("-{signal}"), pid.to_string()]);
    }
}

/// True while the process lives; a zombie that nobody has waited for is dead.
pub fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
    state.is_some_and(|state| state != b'Z' && state != b'X')
}

/// Names in a directory, sorted.
pub fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Takes a snapshot.
pub fn take(m: &Mounted, name: &str) {
    std::fs::create_dir(m.path(&format!(".snapshots/{name}"))).unwrap();
}

/// Error number of a call.
pub fn os_error<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.expect_err("it should fail").raw_os_error().expect("from the system")
}
