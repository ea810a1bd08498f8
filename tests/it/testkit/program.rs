//! Programs: ours, as it was built, and those of the system.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing a test starts takes longer, unless it hangs.
const PROGRAM_SECS_MAX: &str = "120";

/// How a program ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// It succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// It failed with this exit code and one sentence that contains `words`.
    #[track_caller]
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "not one sentence: {self:#?}");
        assert!(self.stderr.starts_with("stratafs: "), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing: {self:#?}");
        }
    }

    /// Its stdout as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let ran = self.ok();
        serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:#?}"))
    }
}

fn output(mut command: Command) -> Ran {
    command.stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn bounded(program: &OsStr) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", PROGRAM_SECS_MAX]).arg(program);
    command.env_remove("STRATAFS_LOG").env("LC_ALL", "C.UTF-8");
    command
}

/// Runs our program.
pub fn stratafs<A: AsRef<OsStr>>(args: &[A]) -> Ran {
    let mut command = bounded(OsStr::new(env!("CARGO_BIN_EXE_stratafs")));
    command.args(args);
    output(command)
}

/// Runs our program with variables in its environment.
pub fn run_with<A: AsRef<OsStr>>(environment: &[(&str, String)], args: &[A]) -> Ran {
    let mut command = bounded(OsStr::new("env"));
    command.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
    command.arg(env!("CARGO_BIN_EXE_stratafs")).args(args);
    output(command)
}

/// Runs a program of the system, whatever becomes of it.
pub fn try_run<A: AsRef<OsStr>>(program: &str, args: &[A]) -> Ran {
    let mut command = bounded(OsStr::new(program));
    command.args(args);
    output(command)
}

/// Runs a program of the system that has to succeed; returns its stdout.
#[track_caller]
pub fn run<A: AsRef<OsStr>>(program: &str, args: &[A]) -> String {
    let ran = try_run(program, args);
    assert_eq!(ran.code, Some(0), "{program} failed: {ran:#?}");
    ran.stdout
}

/// Runs a shell script in a directory; it has to succeed. Returns its stdout.
#[track_caller]
pub fn run_in(dir: &Path, script: &str) -> String {
    let mut command = bounded(OsStr::new("bash"));
    command.args(["-euo", "pipefail", "-c", script]).current_dir(dir);
    let ran = output(command);
    assert_eq!(ran.code, Some(0), "{script}\nfailed: {ran:#?}");
    ran.stdout
}

/// Waits for something that happens in another thread or process.
#[track_caller]
pub fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let started = Instant::now();
    while !reached() {
        assert!(started.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
