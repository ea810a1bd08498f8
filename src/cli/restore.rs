//! `restore`: its words, and its answer as text.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::args::VolumeArg;
use super::format::{count, size};
use super::{bytes, mountpoint};
use crate::control::{Name, Request, RestoreRequest};
use crate::error::{Error, Result};
use crate::restore::{RestoreReport, What};

pub(super) const HELP: &str = "\
PATH begins at the volume's root, with or without a slash; it may also be given as it is seen below
the mountpoint. SNAPSHOT may be .latest. An empty PATH is the whole tree.

DEST is where it goes: a path in the volume, or below the mountpoint; the same path as then unless
given. Its directory must be there. With a / at its end it is a directory to restore into.

Nothing is copied: files refer to what the snapshot has. Each is replaced whole or not at all. What
is the same already is left alone, and what the snapshot does not have stays, unless --delete is
given. Exits with 1 when a directory with entries was in the way of something else.

VOLUME may be left out in a directory below the mountpoint.

Examples:
  stratafs restore /mnt monday:home/ann/letter.odt
  stratafs restore /mnt monday:home/ann/letter.odt /mnt/home/ann/letter-monday.odt
  stratafs restore /mnt .latest:home/ann --delete --dry-run
  cd /mnt && stratafs restore monday:home/ann";

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// [VOLUME] SNAPSHOT:PATH [DEST]
    #[arg(value_name = "ARGUMENT", required = true, num_args = 1..=3)]
    words: Vec<OsString>,
    /// Change nothing; say what would be created, replaced and removed
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Remove what the snapshot does not have from the restored directories
    #[arg(long)]
    delete: bool,
}

/// What the words ask for.
///
/// # Errors
/// `Invalid` when no volume is named and none is around.
pub(super) fn request(args: RestoreArgs) -> Result<(VolumeArg, Request)> {
    let RestoreArgs { words, dry_run, delete } = args;
    let (volume, from, to) = sort(words)?;
    let around = mountpoint::above(Path::new(".")).ok();
    // In a directory of the mount, a relative path is meant as everywhere.
    let to = to.map(|to| if around.is_some() { from_here(&to) } else { to });
    let volume = match volume {
        Some(volume) => PathBuf::from(volume),
        None => around.ok_or_else(|| no_volume(&from))?,
    };
    let request = RestoreRequest { from: bytes(from), to: to.map(bytes), dry_run, delete };
    Ok((VolumeArg { volume }, Request::Restore(request)))
}

type Sorted = (Option<OsString>, OsString, Option<OsString>);

/// Which word is which: the first that has a colon, and is not the directory of a volume that
/// another such word follows, names the snapshot.
fn sort(words: Vec<OsString>) -> Result<Sorted> {
    let has_colon = |word: &OsStr| word.as_bytes().contains(&b':');
    let mut words = words.into_iter();
    let (first, second, third) = (words.next().unwrap_or_default(), words.next(), words.next());
    match (second, third) {
        (Some(from), Some(to)) => Ok((Some(first), from, Some(to))),
        (Some(second), None) if has_colon(&second) && Path::new(&first).is_dir() => {
            Ok((Some(first), second, None))
        }
        (second, _) if has_colon(&first) => Ok((None, first, second)),
        (Some(second), None) => Ok((Some(first), second, None)),
        (None, _) => Ok((None, first, None)),
    }
}

/// Absolute, and with the slash at its end that says "into".
fn from_here(to: &OsStr) -> OsString {
    // A link at the end is what gets replaced, not what it leads to.
    let given = std::path::absolute(to).unwrap_or_else(|_| PathBuf::from(to));
    let mut path = match (given.parent().map(std::fs::canonicalize), given.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name).into_os_string(),
        _ => given.into_os_string(),
    };
    if to.as_bytes().ends_with(b"/") && !path.as_bytes().ends_with(b"/") {
        path.push("/");
    }
    path
}

fn no_volume(from: &OsStr) -> Error {
    let from = Name(from.as_bytes().to_vec());
    Error::invalid(format!(
        "No volume is mounted here; name it, as in stratafs restore VOLUME {from}"
    ))
}

/// The answer as text.
pub(super) fn text(report: &RestoreReport) -> String {
    let mut out = String::new();
    if report.dry_run || report.in_the_way > 0 {
        for change in &report.changes {
            let sign = match change.what {
                What::Created => "+",
                What::Replaced => "M",
                What::Attributes => "a",
                What::Deleted => "-",
                What::InTheWay => "!",
            };
            if report.dry_run || change.what == What::InTheWay {
                let _ = writeln!(out, "{sign} {}", change.path);
            }
        }
    }
    let verb = if report.dry_run { "Would restore" } else { "Restored" };
    let _ = writeln!(
        out,
        "{verb} {} in files: {} created, {} replaced, {} with new attributes, {} removed, {} as \
         they were",
        size(report.file_bytes),
        count(report.created),
        count(report.replaced),
        count(report.attributes),
        count(report.deleted),
        count(report.unchanged),
    );
    if report.in_the_way > 0 {
        let _ = writeln!(
            out,
            "{} directories with entries are in the way (!); remove them, or use --delete",
            count(report.in_the_way)
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn sorted(words: &[&str]) -> (Option<String>, String, Option<String>) {
        let text = |word: OsString| String::from_utf8(word.into_vec()).unwrap();
        let (volume, from, to) = sort(words.iter().map(OsString::from).collect()).unwrap();
        (volume.map(text), text(from), to.map(text))
    }

    #[test]
    fn the_word_with_a_colon_names_the_snapshot() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(sorted(&["s:a"]), (None, "s:a".to_owned(), None));
        assert_eq!(sorted(&["s:a", "b"]), (None, "s:a".to_owned(), some("b")));
        assert_eq!(sorted(&["s:a", "b:c"]), (None, "s:a".to_owned(), some("b:c")));
        assert_eq!(sorted(&["/", "s:a"]), (some("/"), "s:a".to_owned(), None));
        assert_eq!(sorted(&["/none", "s:a"]), (some("/none"), "s:a".to_owned(), None));
        assert_eq!(sorted(&["v", "s:a", "b"]), (some("v"), "s:a".to_owned(), some("b")));
        assert_eq!(sorted(&["v"]), (None, "v".to_owned(), None));
    }
}
