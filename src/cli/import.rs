//! `import`: its words, and its answer as text.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{ArgAction, ArgMatches, Args, FromArgMatches};

use super::format::{count, size};
use super::output::Output;
use super::profile::{VOLUME_VARIABLE, set};
use super::{EXIT_PROBLEMS, mountpoint, print, scrub};
use crate::control::{Client, ImportRequest, Name, Request, Response, RuleRequest, call_until};
use crate::error::{Error, Result};
use crate::import::{ImportReport, ImportWhat};

pub(super) const HELP: &str = "\
Each SOURCE goes into the directory DEST, under its own name; of one that ends with / only what is
in it. DEST is a directory below the mountpoint or, with --volume, in the volume; its last part is
made if it is missing. Kept as by rsync -aHAXS: modes, owners, times, links, hard links among all
sources, devices, attributes, ACLs, holes. The process that has the volume mounted reads the
sources itself, all at once; when import returns, all is durable.

What an import left and nobody changed since, here or there, is not read again: size, mtime, ctime
and inode number tell. So an import that was cut off goes on when it is run again. Each file is
there whole, or as it was before.

Rules are tried in order, the first that matches decides. PATTERN is one of rsync: with / at its
beginning it begins where the transfer does, with / elsewhere or ** it is compared with the end of
the path, else with the name; / at its end: only directories; * and ? do not cross a /, ** does;
DIR/*** is DIR and all in it. A file of --exclude-file has one in a line, maybe behind \"+ \" or
\"- \"; lines that begin with # or ; are comments. What is left out is not deleted either.

Exits with 11 when something could not be read, changed while it was read, or had a directory with
entries in its way; everything else is imported then.

Examples:
  stratafs import /home /mnt
  stratafs import /home/ /mnt/home --delete --exclude '*.o' --exclude-caches
  stratafs import / /mnt/host --one-file-system --exclude /tmp/*
  stratafs import --volume /backup/vol /srv/www www --dry-run";

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Files and directories outside
    #[arg(required = true, value_name = "SOURCE", num_args = 1..)]
    sources: Vec<OsString>,
    /// The directory they go into
    #[arg(required = true, value_name = "DEST")]
    dest: OsString,
    /// The volume directory, or the mountpoint; not needed when DEST lies below one
    #[arg(long = "volume", id = "of_volume", value_name = "VOLUME")]
    volume: Option<PathBuf>,
    /// Change nothing; say what would be created, replaced and removed
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Remove from imported directories what their sources do not have
    #[arg(long)]
    delete: bool,
    /// Do not enter other file systems
    #[arg(short = 'x', long)]
    one_file_system: bool,
    #[command(flatten)]
    rules: Rules,
    /// Of directories that hold a file NAME, take only that
    #[arg(long, value_name = "NAME")]
    exclude_if_present: Vec<OsString>,
    /// Of directories with a CACHEDIR.TAG, take only that
    #[arg(long)]
    exclude_caches: bool,
}

/// Rules in the order in which they are given.
#[derive(Debug, Default)]
struct Rules(Vec<(usize, Word)>);

#[derive(Debug)]
enum Word {
    Exclude(String),
    Include(String),
    File(PathBuf),
}

impl Args for Rules {
    fn augment_args(command: clap::Command) -> clap::Command {
        let list = |name: &'static str, value: &'static str, help: &'static str| {
            let arg = clap::Arg::new(name).long(name).value_name(value).help(help);
            arg.action(ArgAction::Append)
        };
        let path = clap::value_parser!(PathBuf);
        command
            .arg(list("exclude", "PATTERN", "Leave out what matches"))
            .arg(list("include", "PATTERN", "Take what matches, whatever later rules say"))
            .arg(list("exclude-file", "FILE", "Read rules from a file").value_parser(path))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Rules {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut rules = Vec::new();
        let mut texts = |name: &str, make: fn(String) -> Word| {
            let values = matches.get_many::<String>(name).into_iter().flatten();
            let places = matches.indices_of(name).into_iter().flatten();
            rules.extend(places.zip(values).map(|(at, text)| (at, make(text.clone()))));
        };
        texts("exclude", Word::Exclude);
        texts("include", Word::Include);
        let files = matches.get_many::<PathBuf>("exclude-file").into_iter().flatten();
        let places = matches.indices_of("exclude-file").into_iter().flatten();
        rules.extend(places.zip(files).map(|(at, file)| (at, Word::File(file.clone()))));
        rules.sort_by_key(|(at, _)| *at);
        Ok(Self(rules))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Carries the command out.
///
/// # Errors
/// What the request fails with.
pub(super) fn run(args: ImportArgs, output: Output) -> Result<u8> {
    let volume = volume_of(args.volume.as_deref(), Some(&args.dest))?;
    let dir = mountpoint::volume_dir(&volume)?;
    let request = Request::Import(request(args)?);
    let response = ask(&dir, &request, output, "Interrupted; run it again to go on")?;
    print(&response, output)?;
    let partial = matches!(&response, Response::Imported(report) if report.is_partial());
    Ok(if partial { EXIT_PROBLEMS } else { 0 })
}

/// The volume that is named, or the one below whose mountpoint `path` or we ourselves are.
///
/// # Errors
/// `Invalid` when there is none.
pub(super) fn volume_of(named: Option<&Path>, path: Option<&OsStr>) -> Result<PathBuf> {
    if let Some(volume) = named {
        return Ok(volume.to_owned());
    }
    let below = mountpoint::above(Path::new(path.unwrap_or(OsStr::new("."))));
    below
        .or_else(|error| set(VOLUME_VARIABLE).map(PathBuf::from).ok_or(error))
        .map_err(|_| Error::invalid("No volume is mounted there; name it with --volume VOLUME"))
}

/// Carries a long request out; Ctrl-C ends it between two files.
///
/// # Errors
/// What the request fails with.
pub(super) fn ask(
    dir: &Path,
    request: &Request,
    output: Output,
    said: &'static str,
) -> Result<Response> {
    let gone = Arc::new(AtomicBool::new(false));
    let mounted = Client::connect(dir)?.is_some();
    scrub::stop_on_signal(Arc::clone(&gone), mounted, output, said)?;
    let _running = output.begin(request.verb());
    call_until(dir, request, &mut |text| output.progress(text), &gone)
}

fn request(args: ImportArgs) -> Result<ImportRequest> {
    let mut rules = Vec::new();
    for (_, word) in args.rules.0 {
        match word {
            Word::Exclude(pattern) => rules.push(RuleRequest { include: false, pattern }),
            Word::Include(pattern) => rules.push(RuleRequest { include: true, pattern }),
            Word::File(file) => {
                let text = std::fs::read_to_string(&file);
                let text = text.map_err(|e| Error::io("read rules from", &file, e))?;
                rules.extend(text.lines().filter_map(rule_of_line));
            }
        }
    }
    // With --volume a relative path is one in the volume.
    let dest = match (&args.volume, mountpoint::above(Path::new(&args.dest))) {
        (None, Ok(_)) => mountpoint::absolute(Path::new(&args.dest)).into_os_string(),
        _ => args.dest,
    };
    let tags = args.exclude_if_present.into_iter();
    Ok(ImportRequest {
        sources: args.sources.iter().map(|source| Name(outside(source))).collect(),
        dest: Name(dest.into_vec()),
        dry_run: args.dry_run,
        delete: args.delete,
        one_file_system: args.one_file_system,
        exclude_caches: args.exclude_caches,
        exclude_if_present: tags.map(|tag| Name(tag.into_vec())).collect(),
        rules,
    })
}

fn rule_of_line(line: &str) -> Option<RuleRequest> {
    if line.trim().is_empty() || line.starts_with(['#', ';']) {
        return None;
    }
    let (include, pattern) = match line.strip_prefix("+ ") {
        Some(pattern) => (true, pattern),
        None => (false, line.strip_prefix("- ").unwrap_or(line)),
    };
    Some(RuleRequest { include, pattern: pattern.to_owned() })
}

/// An absolute path, without links on the way to its last part, which may be one. With the slash
/// at its end that says "what is in it".
pub(super) fn outside(path: &OsStr) -> Vec<u8> {
    let bytes = path.as_bytes();
    let ends = |end: &[u8]| bytes.ends_with(end);
    let dots = bytes == b"." || bytes == b".." || ends(b"/.") || ends(b"/..");
    if ends(b"/") || dots {
        let mut real = mountpoint::absolute(Path::new(path)).into_os_string().into_vec();
        if !real.ends_with(b"/") {
            real.push(b'/');
        }
        return real;
    }
    let given = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let path = match (given.parent().map(std::fs::canonicalize), given.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => given,
    };
    path.into_os_string().into_vec()
}

/// The answer as text.
pub(super) fn text(report: &ImportReport) -> String {
    let mut out = String::new();
    for change in &report.changes {
        let sign = match change.what {
            ImportWhat::Created => "+",
            ImportWhat::Replaced => "M",
            ImportWhat::Attributes => "a",
            ImportWhat::Deleted => "-",
            ImportWhat::InTheWay => "!",
        };
        if report.dry_run || change.what == ImportWhat::InTheWay {
            let _ = writeln!(out, "{sign} {}", change.path);
        }
    }
    for problem in &report.problems {
        let _ = writeln!(out, "! {}: {}", problem.path, problem.why);
    }
    let verb = if report.dry_run { "Would import" } else { "Imported" };
    let _ = writeln!(
        out,
        "{verb}: {} created, {} replaced, {} with new attributes, {} removed, {} unchanged, {} \
         left out by rules; {} read",
        count(report.created),
        count(report.replaced),
        count(report.attributes),
        count(report.deleted),
        count(report.unchanged),
        count(report.excluded),
        size(report.read_bytes),
    );
    if report.failed > 0 {
        let _ = writeln!(out, "{} could not be imported as they are (!)", count(report.failed));
    }
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
    use clap::Parser;

    use super::super::args::{Cli, Command};
    use super::*;

    fn parsed(words: &[&str]) -> ImportArgs {
        let line = ["stratafs", "import"].iter().chain(words);
        let Command::Import(args) = Cli::try_parse_from(line).unwrap().command else {
            panic!("not an import")
        };
        args
    }

    #[test]
    fn rules_keep_their_order() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "# comment\n\n*.tmp\n+ /keep\n- x\n").unwrap();
        let file = file.path().to_str().unwrap();
        let args = parsed(&[
            "--include",
            "a",
            "--exclude",
            "*",
            "--exclude-file",
            file,
            "--include=b",
            "/s",
            "d",
        ]);
        let request = request(args).unwrap();
        let rules: Vec<_> =
            request.rules.iter().map(|rule| (rule.include, rule.pattern.as_str())).collect();
        let expected = [
            (true, "a"),
            (false, "*"),
            (false, "*.tmp"),
            (true, "/keep"),
            (false, "x"),
            (true, "b"),
        ];
        assert_eq!(rules, expected);
    }

    #[test]
    fn the_last_word_is_where_it_goes() {
        let args = parsed(&["/a", "/b/", "c"]);
        assert_eq!((args.sources.len(), args.dest.to_str()), (2, Some("c")));
        let request = request(args).unwrap();
        assert_eq!(request.sources, [Name(b"/a".to_vec()), Name(b"/b/".to_vec())]);
    }
}
