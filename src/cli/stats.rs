//! `stats`: once, as metrics for a monitor, or again and again.

use std::io::{self, IsTerminal, Write as _};
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::args::VolumeArg;
use super::format::{count, percent, size};
use super::mount_options::MetricsAt;
use super::mountpoint::volume_dir;
use super::output::Output;
use super::show;
use crate::control::{Client, Request, Response, call};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::metrics::server::Endpoint;
use crate::metrics::{self, Facts};
use crate::sys::process::Signals;
use crate::volume::{StatsReport, Status, Volume};

pub(super) const HELP: &str = "\
--watch shows what happens now, until Ctrl-C: on a terminal in place, else a line each time. With
--json each time is one line. --prometheus prints what the endpoint of a mounted volume serves
([metrics] of the configuration), for example for the textfile collector of node_exporter.

Examples:
  stratafs stats /mnt
  stratafs stats /mnt --summary
  stratafs stats /mnt --watch
  stratafs stats /mnt --watch=10 --count 6
  stratafs stats /mnt --prometheus";

#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    volume: VolumeArg,
    /// Print one line
    #[arg(long)]
    summary: bool,
    /// Show what happens now, every 2 seconds, or so many
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "2", value_parser = seconds, conflicts_with = "summary")]
    watch: Option<Duration>,
    /// End after so many times
    #[arg(long, value_name = "N", requires = "watch")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print the metrics as Prometheus reads them
    #[arg(long, conflicts_with_all = ["summary", "watch", "json"])]
    prometheus: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let secs = text.parse::<f64>().ok().filter(|secs| (0.1..=86_400.0).contains(secs));
    secs.map(Duration::from_secs_f64).ok_or_else(|| "use seconds from 0.1 to 86400".to_owned())
}

/// Carries the command out.
///
/// # Errors
/// What the volume answers; `Invalid` when there is nothing to watch.
pub(super) fn run(args: &StatsArgs, output: Output) -> Result<()> {
    let dir = volume_dir(&args.volume.volume)?;
    if let Some(every) = args.watch {
        return watch(&dir, every, args.count, output);
    }
    let stats = stats(&dir, output)?;
    if args.prometheus {
        let status = status(&dir, output)?;
        return output.data(&metrics::text(&Facts { status: &status, stats: &stats }));
    }
    if args.summary && !output.json() {
        return output.data(&show::summary(&stats));
    }
    super::print(&Response::Stats(Box::new(stats)), output)
}

fn stats(dir: &Path, output: Output) -> Result<StatsReport> {
    match call(dir, &Request::Stats, &mut |text| output.progress(text))? {
        Response::Stats(report) => Ok(*report),
        _ => Err(unexpected()),
    }
}

fn status(dir: &Path, output: Output) -> Result<Status> {
    match call(dir, &Request::Status, &mut |text| output.progress(text))? {
        Response::Status(status) => Ok(*status),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> Error {
    Error::invalid("The mounted process gave an answer to another question")
}

/// Serves the metrics of a volume that is about to be mounted, if that is wanted: `asked` of the
/// command line wins over the configuration.
///
/// # Errors
/// `Mount` when the address cannot be had.
pub(super) fn endpoint(
    volume: &Arc<Volume>,
    asked: MetricsAt,
    mountpoint: &Path,
) -> Result<Option<Endpoint>> {
    let address = match asked {
        MetricsAt::Configured => volume.config().metrics.listen,
        MetricsAt::Off => None,
        MetricsAt::Address(address) => Some(address),
    };
    let Some(address) = address else { return Ok(None) };
    let (volume, mountpoint) = (Arc::downgrade(volume), mountpoint.display().to_string());
    // Keeps nothing alive: whoever asks at the end gets nothing.
    let collect = move || {
        let volume = volume.upgrade()?;
        volume.look_after_shards();
        let collected = volume.status().and_then(|status| Ok((status, volume.stats_report()?)));
        let (mut status, stats) = collected
            .inspect_err(|error| log::warn!("Metrics cannot be collected error={error}"))
            .ok()?;
        status.mounted_on = Some(mountpoint.clone());
        Some(metrics::text(&Facts { status: &status, stats: &stats }))
    };
    let endpoint = Endpoint::start(address, Box::new(collect))?;
    log::info!("Metrics served address={}", endpoint.address()?);
    Ok(Some(endpoint))
}

/// The volume at one moment.
struct Moment {
    at: Instant,
    stats: StatsReport,
    status: Status,
}

fn watch(dir: &Path, every: Duration, times: Option<u64>, output: Output) -> Result<()> {
    let look = || -> Result<Moment> {
        if Client::connect(dir)?.is_none() {
            let dir = dir.display();
            return Err(Error::invalid(format!(
                "Nothing to watch: volume {dir} is not mounted; use stats without --watch"
            )));
        }
        let stats = stats(dir, output)?;
        Ok(Moment { at: Instant::now(), stats, status: status(dir, output)? })
    };
    end_on_signal()?;
    let in_place = io::stdout().is_terminal() && !output.json();
    let mut before = look()?;
    let mut drawn = 0;
    for time in 0.. {
        if times.is_some_and(|times| time >= times) {
            break;
        }
        thread::sleep(every);
        let now = look()?;
        let rates = Rates::between(&before, &now);
        if output.json() {
            output.data(&format!("{}\n", rates.json(&now)))?;
        } else if in_place {
            let text = rates.table(&now);
            // Up to where the last one began, and everything below it away.
            let back = if drawn > 0 { format!("\x1b[{drawn}A\x1b[J") } else { String::new() };
            drawn = text.lines().count();
            output.data(&format!("{back}{text}"))?;
        } else {
            let head = if time % 20 == 0 { HEAD } else { "" };
            output.data(&format!("{head}{}", rates.line(&now)))?;
        }
        before = now;
    }
    Ok(())
}

/// Ctrl-C is how a watch is meant to end.
fn end_on_signal() -> Result<()> {
    let failed = |e| Error::io("block signals in", Path::new("this process"), e);
    let signals = Signals::block().map_err(failed)?;
    let wait = move || {
        let _ = signals.wait();
        let _ = io::stdout().flush();
        process::exit(0);
    };
    let started = thread::Builder::new().name("signals".to_owned()).spawn(wait);
    started.map(drop).map_err(failed)
}

/// Titles of the lines.
const HEAD: &str = "  written/s      new/s  duplicate   requests/s      dirty   commit  resident\n";

/// What happened in a second, between two moments.
struct Rates {
    written: u64,
    new: u64,
    stored: u64,
    /// Of what was written and not zero.
    duplicates: (u64, u64),
    requests: u64,
    faults: u64,
    commit_age: Option<u64>,
}

impl Rates {
    fn between(before: &Moment, now: &Moment) -> Self {
        let (a, b) = (&before.stats.totals, &now.stats.totals);
        let micros = now.at.duration_since(before.at).as_micros().max(1);
        let rate = |from: u64, to: u64| {
            let per_second = u128::from(to.saturating_sub(from)) * 1_000_000 / micros;
            u64::try_from(per_second).unwrap_or(u64::MAX)
        };
        let (did, does) = (&before.stats.activity, &now.stats.activity);
        let data = |t: &crate::volume::ClassReport| t.written_bytes - t.zero_bytes;
        let duplicates = b.duplicate_bytes.saturating_sub(a.duplicate_bytes);
        let clock = u64::try_from(Env::system().now().secs).unwrap_or(0);
        let committed = now.status.last_commit_secs;
        Self {
            written: rate(a.written_bytes, b.written_bytes),
            new: rate(a.new_bytes, b.new_bytes),
            stored: rate(a.stored_bytes, b.stored_bytes),
            duplicates: (duplicates, data(b).saturating_sub(data(a))),
            requests: rate(did.requests, does.requests),
            faults: rate(did.faults, does.faults),
            commit_age: (committed > 0).then(|| clock.saturating_sub(committed)),
        }
    }

    fn duplicate_share(&self) -> String {
        match self.duplicates {
            (_, 0) => "-".to_owned(),
            (of, all) => percent(of, all),
        }
    }

    fn age(&self) -> String {
        self.commit_age.map_or_else(|| "-".to_owned(), |secs| format!("{secs} s"))
    }

    fn line(&self, now: &Moment) -> String {
        format!(
            "{:>11} {:>10} {:>10} {:>12} {:>10} {:>8} {:>9}\n",
            size(self.written),
            size(self.new),
            self.duplicate_share(),
            count(self.requests),
            size(now.status.dirty_bytes),
            self.age(),
            size(now.stats.resident_bytes)
        )
    }

    fn table(&self, now: &Moment) -> String {
        let rows = [
            ("Written", format!("{}/s", size(self.written))),
            ("New", format!("{}/s, {}/s stored", size(self.new), size(self.stored))),
            ("Duplicate", self.duplicate_share()),
            ("Requests", format!("{}/s, {} faults/s", count(self.requests), count(self.faults))),
            ("Not durable", {
                let (dirty, txg) = (now.status.dirty_bytes, now.status.open_txg_bytes);
                format!("{} of data, {} of metadata", size(dirty), size(txg))
            }),
            ("Last commit", format!("{} ago, txg {}", self.age(), now.status.txg)),
            ("Stored", format!("{} in all", size(now.stats.stored_bytes))),
            ("Memory", format!("{} resident", size(now.stats.resident_bytes))),
            ("State", now.status.state().to_owned()),
        ];
        rows.iter()
            .map(|(name, value)| format!("{name:<12} {value}\n"))
            .collect::<Vec<_>>()
            .concat()
    }

    fn json(&self, now: &Moment) -> Value {
        json!({
            "written_bytes_per_sec": self.written,
            "new_bytes_per_sec": self.new,
            "stored_bytes_per_sec": self.stored,
            "duplicate_bytes": self.duplicates.0,
            "data_bytes": self.duplicates.1,
            "requests_per_sec": self.requests,
            "faults_per_sec": self.faults,
            "dirty_bytes": now.status.dirty_bytes,
            "open_txg_bytes": now.status.open_txg_bytes,
            "txg": now.status.txg,
            "last_commit_age_secs": self.commit_age,
            "resident_bytes": now.stats.resident_bytes,
            "state": now.status.state(),
        })
    }
}
