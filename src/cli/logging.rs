//! Where log lines go: stderr, or `stratafs.log` once a mount in the background has its volume.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use env_logger::{Builder, Target, WriteStyle};
use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;

use super::args::Global;
use crate::sys::process::replace_stderr;

/// The log's name in the volume directory.
pub(super) const LOG_NAME: &str = "stratafs.log";
/// A longer log is set aside at the next mount; one is kept.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Log lines kept until the log file is known; a mount says a few hundred bytes until then.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// What is logged by default: warnings by commands, life events by mounts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Talk {
    Command,
    Mount,
}

fn builder(global: &Global, talk: Talk) -> Builder {
    let level = match (global.quiet, global.verbose, talk) {
        (true, ..) => LevelFilter::Error,
        (false, 0, Talk::Command) => LevelFilter::Warn,
        (false, 0, Talk::Mount) | (false, 1, Talk::Command) => LevelFilter::Info,
        (false, 1, Talk::Mount) | (false, 2, Talk::Command) => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let mut builder = Builder::new();
    builder.filter_level(level.min(LevelFilter::Warn)).filter_module("stratafs", level);
    builder.parse_env("STRATAFS_LOG");
    if global.no_color {
        builder.write_style(WriteStyle::Never);
    }
    builder
}

/// Logs to stderr.
pub(super) fn to_stderr(global: &Global, talk: Talk) {
    start(builder(global, talk));
}

/// Holds log lines back until [`Held::write_into`] says where they belong.
pub(super) fn held(global: &Global) -> Held {
    let held = Held::default();
    let target = Target::Pipe(Box::new(held.clone()));
    let mut builder = builder(global, Talk::Mount);
    builder.target(target);
    start(builder);
    held
}

fn start(mut builder: Builder) {
    let logger = builder.build();
    let level = logger.filter();
    // Fails only when a logger is set already, as in tests.
    if log::set_boxed_logger(Box::new(WithoutNoise(logger))).is_ok() {
        log::set_max_level(level);
    }
}

/// Leaves out what fuser reports as an error and is none: a program got a signal while it waited
/// (those written in Go all the time), the kernel asked us to hurry, and our answer "cannot" came
/// after the one it waited for.
struct WithoutNoise(env_logger::Logger);

impl Log for WithoutNoise {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if !is_noise(record) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

fn is_noise(record: &Record) -> bool {
    // Only an answer to such a hint can have nobody who waits for it.
    record.target() == "fuser::reply" && record.args().to_string().ends_with("(os error 2)")
}

/// The log of a process in the background.
#[derive(Clone, Default)]
pub(super) struct Held(Arc<Mutex<State>>);

enum State {
    Holding(Vec<u8>),
    Passing,
}

impl Default for State {
    fn default() -> Self {
        Self::Holding(Vec::new())
    }
}

impl Held {
    /// Lets stderr, and with it all log lines, go into the log of the volume in `dir`. When there
    /// can be no log, a mount without one is still better than none.
    pub(super) fn write_into(&self, dir: &Path) -> io::Result<()> {
        let opened = open_log(dir);
        match &opened {
            Ok(log) => replace_stderr(log)?,
            Err(_) => replace_stderr(&OpenOptions::new().write(true).open("/dev/null")?)?,
        }
        let mut state = self.0.lock();
        if let State::Holding(lines) = std::mem::replace(&mut *state, State::Passing) {
            let _ = io::stderr().write_all(&lines);
        }
        opened.map(drop)
    }

    /// What was held, for a mount that failed before it had a log.
    pub(super) fn take(&self) -> Vec<u8> {
        match &mut *self.0.lock() {
            State::Holding(lines) => std::mem::take(lines),
            State::Passing => Vec::new(),
        }
    }
}

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.0.lock() {
            State::Holding(lines) if lines.len() < HELD_BYTES_MAX => lines.extend(bytes),
            State::Holding(_) => {}
            State::Passing => return io::stderr().write(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open_log(dir: &Path) -> io::Result<File> {
    let path = dir.join(LOG_NAME);
    if fs::metadata(&path).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
        fs::rename(&path, dir.join(format!("{LOG_NAME}.1")))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn lines_are_held_within_bounds() {
        let mut held = Held::default();
        for _ in 0..100 {
            held.write_all(&[b'x'; 1024]).unwrap();
        }
        assert_eq!(held.take().len(), HELD_BYTES_MAX);
        assert!(held.take().is_empty());
    }

    #[test]
    fn late_answers_to_signals_are_no_errors() {
        let noise = |target: &str, message: &str| {
            is_noise(&Record::builder().target(target).args(format_args!("{message}")).build())
        };
        assert!(noise("fuser::reply", "Failed to send FUSE reply: No such file (os error 2)"));
        assert!(!noise("fuser::reply", "Failed to send FUSE reply: Invalid (os error 22)"));
        assert!(!noise("stratafs::shard", "Cannot read: No such file (os error 2)"));
    }

    #[test]
    fn a_long_log_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(dir.path()).unwrap();
        assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        log.set_len(LOG_BYTES_MAX + 1).unwrap();
        assert_eq!(open_log(dir.path()).unwrap().metadata().unwrap().len(), 0);
        assert!(dir.path().join("stratafs.log.1").exists());
    }
}
