//! `stratafs rebuild-index`.

use std::fmt::Write as _;
use std::path::Path;

use super::format::{count, plain};
use super::output::Output;
use super::{EXIT_PROBLEMS, mountpoint};
use crate::error::{Error, Result};
use crate::volume::{RebuildReport, Volume};

/// Rebuilds the index of the volume that `volume` names, or looks what that would give.
pub(super) fn run(volume: &Path, dry_run: bool, output: Output) -> Result<u8> {
    let dir = mountpoint::volume_dir(volume)?;
    let _running = output.begin("rebuild-index");
    let report = Volume::rebuild_index(&dir, dry_run, &mut |line| output.progress(line))?;
    if output.json() {
        let document = serde_json::to_value(&report)
            .map_err(|e| Error::invalid(format!("Report cannot be written as JSON: {e}")))?;
        output.document(&document)?;
    } else {
        output.data(&text(&report))?;
    }
    Ok(if report.problems.is_empty() { 0 } else { EXIT_PROBLEMS })
}

fn text(report: &RebuildReport) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        let _ = writeln!(text, "{}", plain(problem));
    }
    if report.more_problems > 0 {
        let _ = writeln!(text, "and {} more", count(report.more_problems));
    }
    let done = if report.rebuilt { "Rebuilt" } else { "Would be rebuilt" };
    let _ = writeln!(
        text,
        "{done}: {} chunks in {} containers; {} of them unreadable, {} extents without a chunk",
        count(report.chunks),
        count(report.containers),
        count(report.unreadable_chunks),
        count(report.lost_extents)
    );
    text
}
