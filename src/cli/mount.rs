//! `mount`: in the foreground, or by starting this program again in the background and waiting
//! until it reports on its stdout that the mount is ready, or why not.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::args::{Global, MountArgs};
use super::logging::{Held, LOG_NAME, Talk, held, to_stderr};
use super::mount_options::Choices;
use super::mounted::{Job, Watch, run};
use super::mountpoint::absolute;
use super::notify;
use crate::error::{Error, Result};
use crate::sys::mount::effective_ids;
use crate::sys::process::{close_inherited_files, new_session, take_stdout};

/// Longest report the parent reads: one sentence with two paths.
const REPORT_BYTES_MAX: u64 = 64 * 1024;

/// What the process in the background says, once.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Report {
    Ready { pid: u32 },
    Failed { what: String, code: u8 },
}

/// What the options on the command line choose.
///
/// # Errors
/// `Invalid` that names an unknown option or a bad value.
pub(super) fn choices(args: &MountArgs) -> Result<Choices> {
    let mut choices = Choices::defaults(effective_ids().0 == 0);
    choices.apply(&args.options, args.sloppy)?;
    if args.read_only {
        choices.generic.apply("ro");
    }
    Ok(choices)
}

fn job(args: &MountArgs, background: bool) -> Result<Job> {
    let choices = choices(args)?;
    Ok(Job {
        volume: args.volume.clone(),
        mountpoint: args.mountpoint.clone(),
        choices,
        background,
    })
}

/// Looks whether the words make sense, and at nothing else: `mount -f`, for the sake of a table of
/// mounts that no longer exists.
///
/// # Errors
/// `Invalid` that names the option.
pub(super) fn only_look(args: &MountArgs) -> Result<()> {
    job(args, true).map(drop)
}

/// Mounts and stays until the end.
///
/// # Errors
/// Why it cannot be mounted, or what its last commit failed with.
pub(super) fn in_foreground(args: &MountArgs, global: &Global) -> Result<()> {
    to_stderr(global, Talk::Mount);
    let place = absolute(&args.mountpoint);
    run(&job(args, false)?, &mut Foreground { place })
}

/// A service manager may be waiting for it.
struct Foreground {
    place: PathBuf,
}

impl Watch for Foreground {
    fn opened(&mut self, _dir: &Path) {}

    fn ready(&mut self) -> Result<()> {
        notify::ready(&format!("Mounted on {}", self.place.display()));
        Ok(())
    }

    fn ending(&mut self) {
        notify::stopping(&format!("Unmounting {}; the last commit follows", self.place.display()));
    }
}

/// Starts this program again with `line`, the words of this command line, and returns the number
/// of the process that has the volume mounted.
///
/// # Errors
/// What the other process failed with.
pub(super) fn start_background(args: &MountArgs, line: &[OsString]) -> Result<u32> {
    // Wrong options are told before anything is started.
    job(args, true)?;
    let failed = |e| Error::io("start", Path::new("stratafs"), e);
    // The link works when the file was replaced or removed, but its name looks odd in ps.
    let program = env::current_exe().ok().filter(|path| path.exists());
    let mut child = Command::new(program.unwrap_or_else(|| PathBuf::from("/proc/self/exe")))
        .arg("--in-background")
        .args(line)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut report = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout.take(REPORT_BYTES_MAX));
        reader.read_until(b'\n', &mut report).map_err(failed)?;
    }
    match serde_json::from_slice(&report) {
        Ok(Report::Ready { pid }) => Ok(pid),
        Ok(Report::Failed { what, code }) => {
            // Its volume is closed when it has ended, so the next command finds it free.
            let _ = child.wait();
            Err(Error::Remote { what, code })
        }
        Err(_) => {
            let status = child.wait().map_err(failed)?;
            let log = absolute(&args.volume).join(LOG_NAME);
            Err(Error::Mount {
                what: format!(
                    "The process that should mount {} ended before the mount was ready ({status}); \
                     {} may say why",
                    args.volume.display(),
                    log.display()
                ),
            })
        }
    }
}

/// The other end of [`start_background`]: detaches from the terminal, mounts, reports, stays.
/// Returns the exit code; what went wrong is reported to the parent, or logged.
///
/// # Errors
/// When there is nobody to report to.
pub(super) fn in_background(args: &MountArgs, global: &Global) -> Result<u8> {
    close_inherited_files();
    let failed = |e| Error::io("detach", Path::new("this process"), e);
    new_session().map_err(failed)?;
    let report = take_stdout().map_err(failed)?;
    let mut watch = Background { report: Some(report), log: held(global) };
    let outcome = job(args, true).and_then(|job| run(&job, &mut watch));
    let Err(error) = outcome else { return Ok(0) };
    if global.verbose > 0 {
        let _ = io::stderr().write_all(&watch.log.take());
    }
    let _ = watch.say(&Report::Failed { what: error.to_string(), code: error.exit_code() });
    Ok(error.exit_code())
}

struct Background {
    /// Until something was reported.
    report: Option<File>,
    log: Held,
}

impl Background {
    fn say(&mut self, report: &Report) -> io::Result<()> {
        let Some(mut pipe) = self.report.take() else { return Ok(()) };
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        pipe.write_all(&line)
    }
}

impl Watch for Background {
    fn opened(&mut self, dir: &Path) {
        if let Err(error) = self.log.write_into(dir) {
            log::warn!("Log file cannot be written error={error}");
        }
    }

    fn ready(&mut self) -> Result<()> {
        self.say(&Report::Ready { pid: std::process::id() }).map_err(|_| Error::Mount {
            what: "The command that started the mount was interrupted".to_owned(),
        })
    }

    fn ending(&mut self) {}
}
