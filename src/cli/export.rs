//! `export`: its words, and its answer as text.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::format::{count, size};
use super::import::{ask, volume_of};
use super::output::Output;
use super::{EXIT_PROBLEMS, bytes, mountpoint, print};
use crate::control::{ExportRequest, Request, Response};
use crate::error::Result;
use crate::export::{ExportReport, ExportWhat};

pub(super) const HELP: &str = "\
PATH begins at the volume's root. What it names goes into the directory DEST, under its own name;
of one that ends with /, and without a PATH, what is in it. DEST is a directory outside; its last
part is made if it is missing. SNAPSHOT may be .latest. Kept as by rsync -aHAXS: modes, owners,
times, links, hard links, devices, attributes, ACLs, holes. The process that has the volume mounted
writes the files itself; when export returns, all is durable.

Files that have the size and mtime of the snapshot's already are left alone, but for attributes;
others are replaced, each when it is whole. So an export that was cut off goes on when it is run
again. Nothing is removed.

Exits with 11 when something could not be read or written; everything else is exported then.

The volume is the one that we are in the mount of, unless it is named.

Examples:
  stratafs export --volume /mnt monday /srv/restored
  stratafs export --volume /backup/vol monday:home/ann /home
  cd /mnt && stratafs export .latest:etc/ /tmp/etc --dry-run";

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The snapshot, and what of it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    from: OsString,
    /// The directory outside
    #[arg(value_name = "DEST")]
    dest: PathBuf,
    /// The volume directory, or the mountpoint
    #[arg(long = "volume", id = "of_volume", value_name = "VOLUME")]
    volume: Option<PathBuf>,
    /// Change nothing; say what would be created and replaced
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Carries the command out.
///
/// # Errors
/// What the request fails with.
pub(super) fn run(args: ExportArgs, output: Output) -> Result<u8> {
    let volume = volume_of(args.volume.as_deref(), None)?;
    let dir = mountpoint::volume_dir(&volume)?;
    let dest = mountpoint::absolute(Path::new(&args.dest)).into_os_string();
    let request =
        ExportRequest { from: bytes(args.from), dest: bytes(dest), dry_run: args.dry_run };
    let said = "Interrupted; run it again to go on";
    let response = ask(&dir, &Request::Export(request), output, said)?;
    print(&response, output)?;
    let partial = matches!(&response, Response::Exported(report) if report.is_partial());
    Ok(if partial { EXIT_PROBLEMS } else { 0 })
}

/// The answer as text.
pub(super) fn text(report: &ExportReport) -> String {
    let mut out = String::new();
    for change in report.changes.iter().filter(|_| report.dry_run) {
        let sign = match change.what {
            ExportWhat::Created => "+",
            ExportWhat::Replaced => "M",
            ExportWhat::Attributes => "a",
        };
        let _ = writeln!(out, "{sign} {}", change.path);
    }
    for problem in &report.problems {
        let _ = writeln!(out, "! {}: {}", problem.path, problem.why);
    }
    let verb = if report.dry_run { "Would export" } else { "Exported" };
    let _ = writeln!(
        out,
        "{verb}: {} created, {} replaced, {} with new attributes, {} unchanged; {} written",
        count(report.created),
        count(report.replaced),
        count(report.attributes),
        count(report.unchanged),
        size(report.written_bytes),
    );
    if report.failed > 0 {
        let _ = writeln!(out, "{} could not be exported as they are (!)", count(report.failed));
    }
    out
}
