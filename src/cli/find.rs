//! `find`: its words and its answer.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::{Args, ValueEnum};

use super::args::VolumeArg;
use super::format::{count, size};
use super::listing::Listing;
use super::output::Output;
use super::{bytes, mountpoint};
use crate::classify::PathGlob;
use crate::config::parse_size;
use crate::control::{FindRequest, FoundInfo, Part, Request, Response, VersionInfo, call_in_parts};
use crate::error::{Error, Result};

pub(super) const HELP: &str = "\
PATTERN is for names, as in '*.odt'; with a slash in it, for whole paths from the root, as in
'home/*/report.odt' or '**/src/*.c'. * and ? do not match a slash, ** does; [a-z] and {a,b} work.

For each path it prints the versions that differ in inode, size or mtime, oldest first, with the
snapshots that have them; \"live\" is the tree as it is. It reads all names once, however many
snapshots there are.

Examples:
  stratafs find /mnt 'report*.odt'
  stratafs find /mnt '/home/a/**' --snapshot monday --type f
  stratafs find /backup/vol '*.iso' --size +1GiB --ignore-case --json";

/// Snapshots named one by one in a line.
const NAMED_MAX: usize = 4;

#[derive(Debug, Args)]
pub(super) struct FindArgs {
    #[command(flatten)]
    pub(super) volume: VolumeArg,
    /// What to look for
    #[arg(value_parser = parse_pattern)]
    pub(super) pattern: String,
    /// Look only in this snapshot, or "live"; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(super) snapshot: Vec<OsString>,
    /// Letter case does not count
    #[arg(short, long)]
    pub(super) ignore_case: bool,
    /// Only files (f), directories (d) or symbolic links (l)
    #[arg(long = "type", value_name = "TYPE")]
    pub(super) kinds: Vec<FileType>,
    /// Only files of at least (+10MiB) or at most (-10MiB) this size; may be given twice
    #[arg(long, value_name = "SIZE", value_parser = parse_bound, allow_hyphen_values = true)]
    pub(super) size: Vec<Bound>,
}

/// What `--type` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FileType {
    #[value(name = "f")]
    File,
    #[value(name = "d")]
    Directory,
    #[value(name = "l")]
    Symlink,
}

/// What `--size` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Min(u64),
    Max(u64),
}

fn parse_pattern(text: &str) -> Result<String, String> {
    PathGlob::new(text, false).map(|_| text.to_owned()).map_err(|e| e.to_string())
}

fn parse_bound(text: &str) -> Result<Bound, String> {
    let bound = match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(size), _) => parse_size(size).map(Bound::Min),
        (_, Some(size)) => parse_size(size).map(Bound::Max),
        _ => None,
    };
    bound.ok_or_else(|| "use a size with + (at least) or - (at most), as in +10MiB".to_owned())
}

fn request(args: FindArgs) -> FindRequest {
    let kind = |kind: &FileType| match kind {
        FileType::File => "file".to_owned(),
        FileType::Directory => "directory".to_owned(),
        FileType::Symlink => "symlink".to_owned(),
    };
    let mins = args.size.iter().filter_map(|b| if let Bound::Min(n) = b { Some(*n) } else { None });
    let maxs = args.size.iter().filter_map(|b| if let Bound::Max(n) = b { Some(*n) } else { None });
    FindRequest {
        pattern: args.pattern,
        ignore_case: args.ignore_case,
        states: args.snapshot.into_iter().map(bytes).collect(),
        kinds: args.kinds.iter().map(kind).collect(),
        min_bytes: mins.max(),
        max_bytes: maxs.min(),
    }
}

/// Carries the command out.
///
/// # Errors
/// What the request fails with.
pub(super) fn run(args: FindArgs, output: Output) -> Result<()> {
    let dir = mountpoint::volume_dir(&args.volume.volume)?;
    let order = |a: &FoundInfo, b: &FoundInfo| a.path.0.cmp(&b.path.0);
    let mut listing = Listing::new(output, "found", lines, order);
    let request = Request::Find(request(args));
    let _running = output.begin(request.verb());
    let response = call_in_parts(&dir, &request, &mut |part| match part {
        Part::Found(found) => found.into_iter().try_for_each(|one| listing.take(one)),
        Part::Differences(_) => Ok(()),
    })?;
    let Response::Found(sums) = response else {
        return Err(Error::invalid("The mounted process gave another answer than was asked for"));
    };
    listing.end(None)?;
    output.notice(&format!(
        "{} paths in {} versions; {} snapshots searched",
        count(sums.paths),
        count(sums.versions),
        count(sums.snapshots)
    ));
    Ok(())
}

/// A path, and a line for each of its versions.
fn lines(found: &FoundInfo) -> String {
    let is_dir = found.versions.iter().any(|version| version.kind == "directory");
    let mut text = format!("{}{}\n", found.path, if is_dir { "/" } else { "" });
    for version in &found.versions {
        let bytes = match version.kind.as_str() {
            "file" => size(version.size),
            _ => "-".to_owned(),
        };
        let time = version.mtime.split_once('.').map_or(&*version.mtime, |(seconds, _)| seconds);
        let time = time.replace('T', " ");
        let _ = writeln!(text, "  {bytes:>10}  {time}  {}", places(version));
    }
    text
}

/// `monday … friday (5), live`.
fn places(version: &VersionInfo) -> String {
    let names = &version.snapshots;
    let mut places = match names.as_slice() {
        [first, .., last] if names.len() > NAMED_MAX => {
            format!("{first} … {last} ({})", names.len())
        }
        names => names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    if version.live {
        places += if places.is_empty() { "live" } else { ", live" };
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Name;

    #[test]
    fn a_version_says_where_it_is() {
        let version = |names: &[&str], live| VersionInfo {
            kind: "file".to_owned(),
            size: 2048,
            mtime: "2026-11-03T10:11:12.000000005Z".to_owned(),
            ino: 9,
            snapshots: names.iter().map(|name| Name(name.as_bytes().to_vec())).collect(),
            live,
        };
        let found = FoundInfo {
            path: Name(b"a\n".to_vec()),
            versions: vec![
                version(&["a", "b"], false),
                version(&["a", "b", "c", "d", "e"], true),
                version(&[], true),
            ],
        };
        let expected = "a\\x0a\n     2.0 KiB  2026-11-03 10:11:12  a, b\n     2.0 KiB  2026-11-03 \
                        10:11:12  a … e (5), live\n     2.0 KiB  2026-11-03 10:11:12  live\n";
        assert_eq!(lines(&found), expected);
    }

    #[test]
    fn sizes_are_bounds() {
        assert_eq!(parse_bound("+10MiB"), Ok(Bound::Min(10 << 20)));
        assert_eq!(parse_bound("-1KiB"), Ok(Bound::Max(1024)));
        for bad in ["10MiB", "+", "-x", ""] {
            assert!(parse_bound(bad).is_err(), "{bad}");
        }
    }
}
