//! `scrub`: its words, what Ctrl-C does to it, and its answers as text.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clap::Args;
use serde_json::Value;

use super::args::VolumeArg;
use super::format::{count, percent, plain, size};
use super::mountpoint;
use super::output::Output;
use crate::config::parse_size;
use crate::control::{Client, Name, Request, Response, ScrubAnswer, ScrubRequest, call_until};
use crate::error::{Error, Result};
use crate::scrub::{Ended, RepairReport, ScrubReport, ScrubState};
use crate::sys::process::Signals;
use crate::types::Timestamp;
use crate::volume::{Damage, Verified};

pub(super) const HELP: &str = "\
Works while mounted and in use. Goes on where the last scrub ended: with what was verified longest
ago. Ctrl-C ends it; what was verified stays recorded. Exits with 11 when damage is known.

A mounted volume also scrubs itself, slowly: see [scrub] in config.toml.

Examples:
  stratafs scrub /mnt
  stratafs scrub /mnt --max-duration 30m --rate 50MiB
  stratafs scrub /backup/vol --status
  stratafs scrub /mnt --repair --from /home";

#[derive(Debug, Args)]
pub(super) struct ScrubArgs {
    #[command(flatten)]
    pub(super) volume: VolumeArg,
    /// Begin no further container after this time, as in 90s, 10m or 2h
    #[arg(long, value_name = "TIME", value_parser = parse_secs)]
    pub(super) max_duration: Option<u64>,
    /// Read at most this much in a second, as in 50MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    pub(super) rate: Option<u64>,
    /// Verify nothing; say what was verified when, and what is damaged
    #[arg(long, conflicts_with_all = ["max_duration", "rate", "repair"])]
    pub(super) status: bool,
    /// Store damaged data anew, from the good copies below --from
    #[arg(long, requires = "from", conflicts_with_all = ["max_duration", "rate"])]
    pub(super) repair: bool,
    /// A directory with good copies: where the data came from, or another backup of it
    #[arg(long, value_name = "PATH", requires = "repair")]
    pub(super) from: Option<PathBuf>,
}

fn parse_secs(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 0,
    };
    let secs = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    secs.filter(|secs| *secs > 0).ok_or_else(|| "use a time like 90s, 10m, 2h or 1d".to_owned())
}

fn parse_rate(text: &str) -> Result<u64, String> {
    let rate = parse_size(text).filter(|rate| *rate > 0);
    rate.ok_or_else(|| "use a size like 50MiB".to_owned())
}

fn request(args: &ScrubArgs) -> ScrubRequest {
    match &args.from {
        Some(from) => {
            let from = mountpoint::absolute(from).into_os_string().into_vec();
            ScrubRequest::Repair { from: Name(from) }
        }
        None if args.status => ScrubRequest::Status,
        None => ScrubRequest::Run { max_secs: args.max_duration, rate_bytes: args.rate },
    }
}

/// What is said of a scrub that another process does.
const STOPPED: &str = "Interrupted; what was verified is recorded";

/// Carries the command out. Ctrl-C ends a scrub of our own between two frames; the process that has
/// the volume mounted notices that we are gone.
///
/// # Errors
/// What the request fails with.
pub(super) fn ask(args: &ScrubArgs, output: Output) -> Result<Response> {
    let dir = mountpoint::volume_dir(&args.volume.volume)?;
    let gone = Arc::new(AtomicBool::new(false));
    if !args.status {
        let mounted = Client::connect(&dir)?.is_some();
        stop_on_signal(Arc::clone(&gone), mounted, output, STOPPED)?;
    }
    let request = Request::Scrub(request(args));
    let _running = output.begin(request.verb());
    call_until(&dir, &request, &mut |text| output.progress(text), &gone)
}

/// Sets `gone` when a signal asks to end; when another process does the work, `said` is all there
/// is to do.
///
/// # Errors
/// `Io` when signals cannot be waited for.
pub(super) fn stop_on_signal(
    gone: Arc<AtomicBool>,
    mounted: bool,
    output: Output,
    said: &'static str,
) -> Result<()> {
    let failed = |e| Error::io("block signals in", Path::new("this process"), e);
    let signals = Signals::block().map_err(failed)?;
    let wait = move || {
        for told in 0.. {
            let _ = signals.wait();
            gone.store(true, Ordering::Relaxed);
            if mounted || told > 0 {
                output.error(said, 1);
                std::process::exit(1);
            }
        }
    };
    let started = thread::Builder::new().name("signals".to_owned()).spawn(wait);
    started.map(drop).map_err(failed)
}

/// True if the answer says that something is damaged.
pub(super) fn is_damaged(response: &Response) -> bool {
    let Response::Scrub(answer) = response else { return false };
    match &**answer {
        ScrubAnswer::Report(report) => !report.is_clean(),
        ScrubAnswer::State(state) => {
            state.damage.chunks > 0 || state.verified.flawed_containers > 0
        }
        ScrubAnswer::Repaired(report) => report.damage.chunks > 0,
    }
}

pub(super) fn text(answer: &ScrubAnswer) -> String {
    match answer {
        ScrubAnswer::Report(found) => report(found),
        ScrubAnswer::State(known) => state(known),
        ScrubAnswer::Repaired(done) => repaired(done),
    }
}

pub(super) fn document(answer: &ScrubAnswer) -> serde_json::Result<Value> {
    match answer {
        ScrubAnswer::Report(found) => serde_json::to_value(found),
        ScrubAnswer::State(known) => serde_json::to_value(known),
        ScrubAnswer::Repaired(done) => serde_json::to_value(done),
    }
}

fn report(report: &ScrubReport) -> String {
    let mut text = String::new();
    for flaw in &report.flaws {
        let _ = writeln!(text, "{}", plain(flaw));
    }
    if report.more_flaws > 0 {
        let _ = writeln!(text, "… and {} more", count(report.more_flaws));
    }
    text += &damage(&report.damage);
    let ended = match report.ended {
        Ended::Complete => "all".to_owned(),
        Ended::OutOfTime | Ended::Stopped => {
            let why = if report.ended == Ended::Stopped { "stopped" } else { "its time is over" };
            let left = size(report.bytes_left);
            format!("{why}, {left} in {} containers are left", count(report.containers_left))
        }
    };
    let _ = writeln!(
        text,
        "Verified {} in {} containers, {} chunks ({ended}): {} damaged, {} good again",
        size(report.bytes),
        count(report.containers),
        count(report.chunks),
        count(report.damaged_chunks),
        count(report.recovered_chunks),
    );
    text
}

fn state(state: &ScrubState) -> String {
    format!("{}{}\n", damage(&state.damage), verified(&state.verified))
}

fn repaired(report: &RepairReport) -> String {
    let mut text = damage(&report.damage);
    let stopped = if report.stopped { "; stopped early" } else { "" };
    let _ = writeln!(
        text,
        "Repaired {} of {} damaged chunks ({}), {} of them at their own path; {} files searched, \
         {} not readable; {} still damaged{stopped}",
        count(report.repaired_chunks),
        count(report.damaged_chunks),
        size(report.repaired_bytes),
        count(report.found_in_place),
        count(report.files_searched),
        count(report.files_skipped),
        count(report.damage.chunks),
    );
    text
}

/// Every damaged chunk, and every file with what it lost, a line each.
fn damage(damage: &Damage) -> String {
    let mut text = String::new();
    for chunk in &damage.listed {
        let _ = writeln!(
            text,
            "Chunk {} ({}) in container {} on shard {} is damaged",
            chunk.chunk,
            size(u64::from(chunk.bytes)),
            chunk.container,
            plain(&chunk.shard)
        );
    }
    let unlisted = damage.chunks.saturating_sub(damage.listed.len() as u64);
    if unlisted > 0 {
        let _ = writeln!(text, "… and {} more chunks", count(unlisted));
    }
    for file in &damage.files {
        let _ = writeln!(text, "{}", plain(&file.sentence()));
    }
    if damage.more_files > 0 {
        let _ = writeln!(text, "… and {} more files", count(damage.more_files));
    }
    if damage.chunks > 0 && damage.files.is_empty() {
        text.push_str("No file and no snapshot shows the damage; gc removes it in time\n");
    }
    text
}

/// One line that says what was verified when.
pub(super) fn verified(verified: &Verified) -> String {
    let share = |bytes| percent(bytes, verified.stored_bytes);
    let mut line = format!(
        "{} in the last 7 days, {} in 30, never {}",
        share(verified.verified_7_days_bytes),
        share(verified.verified_30_days_bytes),
        share(verified.never_verified_bytes),
    );
    if let Some(oldest) = verified.oldest_verified {
        let _ = write!(line, "; oldest {}", day(oldest));
    }
    if let Some(ended) = verified.last_pass_ended {
        let _ = write!(line, "; last full pass ended {}", day(ended));
    }
    let _ = write!(line, "; {} damaged chunks", count(verified.damaged_chunks));
    if verified.flawed_containers > 0 {
        let _ = write!(line, ", {} flawed containers", count(verified.flawed_containers));
    }
    line
}

/// A day and a minute: `2026-11-20 10:11Z`.
fn day(secs: u64) -> String {
    let iso = Timestamp { secs: i64::try_from(secs).unwrap_or(i64::MAX), nanos: 0 }.iso_utc();
    iso.get(..16).map_or(iso.clone(), |minute| format!("{}Z", minute.replace('T', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let good = [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400)];
        for (text, secs) in good {
            assert_eq!(parse_secs(text), Ok(secs), "{text}");
        }
        for bad in ["", "m", "0", "0m", "10x", "1.5h", "-1s", "99999999999999999999d", "10 m"] {
            assert!(parse_secs(bad).is_err(), "{bad}");
        }
        assert!(parse_rate("0").is_err() && parse_rate("fast").is_err());
    }

    #[test]
    fn what_was_verified_is_one_line() {
        let nothing = Verified::default();
        assert_eq!(
            verified(&nothing),
            "0 % in the last 7 days, 0 % in 30, never 0 %; 0 damaged chunks"
        );
        let some = Verified {
            stored_bytes: 1000,
            verified_7_days_bytes: 250,
            verified_30_days_bytes: 900,
            never_verified_bytes: 100,
            oldest_verified: Some(1_793_700_672),
            last_pass_ended: Some(1_793_700_733),
            damaged_chunks: 2,
            flawed_containers: 1,
            ..nothing
        };
        assert_eq!(
            verified(&some),
            "25 % in the last 7 days, 90 % in 30, never 10 %; oldest 2026-11-03 10:11Z; last full \
             pass ended 2026-11-03 10:12Z; 2 damaged chunks, 1 flawed containers"
        );
    }
}
