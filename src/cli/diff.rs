//! `snapshot diff`: its words and its answer.

use std::ffi::OsString;

use clap::Args;

use super::args::VolumeArg;
use super::format::{count, size};
use super::listing::{Listing, json_of};
use super::output::Output;
use super::{bytes, mountpoint};
use crate::control::{
    ChangeName, DiffRequest, DiffSums, DifferenceInfo, LIVE, Name, Part, Request, Response, Tally,
    call_in_parts,
};
use crate::error::{Error, Result};

pub(super) const HELP: &str = "\
Prints a line for each difference:
  +  added        -  removed        M  content changed        U  only attributes changed
  R  OLD -> NEW   renamed
with what else differs in brackets. Directories end with a slash. What was added or removed with
a directory is listed, too; what moved with one is not. A file that was replaced by another of
its name, as rsync does it, is one that changed. Times of directories do not count.

The answer comes from what was noted at the time of the change: it takes milliseconds, however
large the volume is. Lines are sorted by path, unless there are more than 100,000.

Examples:
  stratafs snapshot diff /mnt monday tuesday
  stratafs snapshot diff /mnt tuesday                what changed since
  stratafs snapshot diff /backup/vol monday live --stat
  stratafs snapshot diff /mnt monday tuesday --json | jq -r '.differences[].path'";

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    #[command(flatten)]
    pub(super) volume: VolumeArg,
    /// A snapshot, or "live"
    #[arg(value_name = "A")]
    pub(super) from: OsString,
    /// A snapshot, or "live" for the tree as it is now; it may be older than A
    #[arg(value_name = "B", default_value = "live")]
    pub(super) to: OsString,
    /// Only print how many and how much
    #[arg(long)]
    pub(super) stat: bool,
}

/// Carries the command out.
///
/// # Errors
/// What the request fails with.
pub(super) fn run(args: DiffArgs, output: Output) -> Result<()> {
    let dir = mountpoint::volume_dir(&args.volume.volume)?;
    let request = DiffRequest { from: bytes(args.from), to: bytes(args.to), sums_only: args.stat };
    let _running = output.begin("snapshot diff");
    let order = |a: &DifferenceInfo, b: &DifferenceInfo| {
        (&a.path.0, a.change as u8).cmp(&(&b.path.0, b.change as u8))
    };
    let mut listing = Listing::new(output, "differences", line, order);
    let response = call_in_parts(&dir, &Request::SnapshotDiff(request), &mut |part| match part {
        Part::Differences(found) => found.into_iter().try_for_each(|one| listing.take(one)),
        Part::Found(_) => Ok(()),
    })?;
    let Response::Diff(sums) = response else {
        return Err(Error::invalid("The mounted process gave another answer than was asked for"));
    };
    if args.stat && output.json() {
        return output.document(&json_of(&sums)?);
    }
    listing.end(Some(("stat", &json_of(&sums)?)))?;
    if args.stat {
        return output.data(&sums_text(&sums));
    }
    if !output.json() {
        output.notice(&brief(&sums));
    }
    Ok(())
}

/// `M  home/a (mode)`.
fn line(found: &DifferenceInfo) -> String {
    let slash = if found.kind == "directory" { "/" } else { "" };
    let mut told: Vec<&str> = found.attributes.iter().map(String::as_str).collect();
    let letter = match found.change {
        ChangeName::Added => '+',
        ChangeName::Removed => '-',
        ChangeName::Renamed => 'R',
        // Whoever changes content changes its time.
        ChangeName::Changed if found.content => {
            told.retain(|name| *name != "mtime");
            'M'
        }
        ChangeName::Changed => 'U',
    };
    if found.content && found.change == ChangeName::Renamed {
        told.insert(0, "content");
    }
    let path =
        if found.path.0.is_empty() { "/".to_owned() } else { format!("{}{slash}", found.path) };
    let path = match &found.old_path {
        Some(old) => format!("{old}{slash} -> {path}"),
        None => path,
    };
    if told.is_empty() {
        format!("{letter}  {path}\n")
    } else {
        format!("{letter}  {path} ({})\n", told.join(", "))
    }
}

/// One line for those who read the list.
fn brief(sums: &DiffSums) -> String {
    let all = |tally: &Tally| count(tally.files + tally.directories + tally.others);
    format!(
        "{} added, {} removed, {} changed, {} with other attributes, {} renamed",
        all(&sums.added),
        all(&sums.removed),
        count(sums.changed),
        count(sums.attributes_changed),
        count(sums.renamed)
    )
}

/// What `--stat` prints.
pub(super) fn sums_text(sums: &DiffSums) -> String {
    let name = |name: &Name| match &*name.0 {
        LIVE => "the live tree".to_owned(),
        _ => format!("snapshot {name}"),
    };
    let tally = |tally: &Tally| {
        format!(
            "{} files ({}), {} directories, {} others",
            count(tally.files),
            size(tally.bytes),
            count(tally.directories),
            count(tally.others)
        )
    };
    format!(
        "From {} to {}:\n  added      {}\n  removed    {}\n  \
         changed    {} ({} before, {} after)\n  \
         attributes {} changed nothing else\n  renamed    {}\n",
        name(&sums.from),
        name(&sums.to),
        tally(&sums.added),
        tally(&sums.removed),
        count(sums.changed),
        size(sums.changed_old_bytes),
        size(sums.changed_bytes),
        count(sums.attributes_changed),
        count(sums.renamed)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(change: ChangeName, content: bool, attributes: &[&str]) -> DifferenceInfo {
        DifferenceInfo {
            change,
            kind: "file".to_owned(),
            path: Name(b"a\n\xff".to_vec()),
            old_path: None,
            content,
            attributes: attributes.iter().map(|name| (*name).to_owned()).collect(),
            old_size: None,
            size: Some(1),
            ino: 5,
        }
    }

    #[test]
    fn a_difference_is_one_line() {
        let added = found(ChangeName::Added, false, &[]);
        assert_eq!(line(&added), "+  a\\x0a\\xff\n");
        let touched = found(ChangeName::Changed, false, &["mode", "mtime"]);
        assert_eq!(line(&touched), "U  a\\x0a\\xff (mode, mtime)\n");
        let changed = found(ChangeName::Changed, true, &["mtime"]);
        assert_eq!(line(&changed), "M  a\\x0a\\xff\n");
        let moved = DifferenceInfo {
            kind: "directory".to_owned(),
            old_path: Some(Name(b"b".to_vec())),
            ..found(ChangeName::Renamed, false, &[])
        };
        assert_eq!(line(&moved), "R  b/ -> a\\x0a\\xff/\n");
        let moved = DifferenceInfo {
            old_path: Some(Name(b"b".to_vec())),
            ..found(ChangeName::Renamed, true, &["mtime"])
        };
        assert_eq!(line(&moved), "R  b -> a\\x0a\\xff (content, mtime)\n");
        let root = DifferenceInfo {
            kind: "directory".to_owned(),
            path: Name(Vec::new()),
            ..found(ChangeName::Changed, false, &["owner"])
        };
        assert_eq!(line(&root), "U  / (owner)\n");
    }
}
