//! The command line: words in, text or JSON and an exit code out.
//!
//! Guarantees: data on stdout, everything else on stderr; one sentence and the documented exit code
//! for every failure; a closed stdout is no failure. Does not: touch a volume itself; `control`
//! does, `mounted` mounts.

mod args;
mod completions;
mod config;
mod diff;
mod export;
mod find;
mod format;
mod gc;
mod helper;
mod import;
mod listing;
mod logging;
mod man;
mod mount;
mod mount_options;
mod mounted;
mod mountpoint;
mod notify;
mod output;
mod profile;
mod progress;
mod rebuild;
mod remount;
mod restore;
mod scrub;
mod show;
mod snapshots;
mod stats;

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{ColorChoice, CommandFactory, FromArgMatches};
use serde_json::json;

use self::args::{ClassCommand, Cli, Command, Global, MountArgs, ShardCommand};
use self::helper::Role;
use self::logging::Talk;
use self::mountpoint::Place;
use self::output::Output;
use crate::control::{Client, Name, Request, Response, call};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::fuse::detach_dead;
use crate::sys::process::is_running;
use crate::volume::{InitOptions, Volume};

/// Exit code of a `check` that found problems, of a `scrub` that knows damage, and of an import or
/// export that left something out.
const EXIT_PROBLEMS: u8 = 11;
/// Exit code of wrong usage, clap's own.
const EXIT_USAGE: u8 = 2;
/// Longest wait for a process that is about to end; nothing depends on it any more.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let (role, line) = helper::words(env::args_os());
    let expanded = match (role, line) {
        (Role::Program, Ok(line)) => {
            let json = line.iter().any(|word| word == "--json");
            let output = Output::new(&Global { json, ..Global::default() });
            profile::expand(line).map_err(|error| {
                let code = error.exit_code();
                (error, output, code)
            })
        }
        (_, line) => line.map_err(|error| (error, Output::new(&Global::default()), EXIT_USAGE)),
    };
    let line = match expanded {
        Ok(line) => line,
        Err((error, output, code)) => {
            output.error(&error.to_string(), code);
            return ExitCode::from(role.code(code));
        }
    };
    let cli = match parse(&line) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(role.code(usage(&error, &line))),
    };
    let output = Output::new(&cli.global);
    let code = run(cli, &line).unwrap_or_else(|error| {
        output.error(&error.to_string(), error.exit_code());
        error.exit_code()
    });
    ExitCode::from(role.code(code))
}

/// Parses our words. clap itself knows `NO_COLOR`, but not our option.
fn parse(line: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    if line.iter().any(|word| word == "--no-color") {
        command = command.color(ColorChoice::Never);
    }
    let program = OsString::from("stratafs");
    let matches = command.try_get_matches_from_mut([&program].into_iter().chain(line))?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn usage(error: &clap::Error, line: &[OsString]) -> u8 {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !asked_for && line.iter().any(|word| word == "--json") {
        let text = error.to_string();
        let sentence = text.lines().next().unwrap_or_default();
        let sentence = sentence.strip_prefix("error: ").unwrap_or(sentence);
        let output = Output::new(&Global { json: true, ..Global::default() });
        output.error(sentence, EXIT_USAGE);
    } else {
        // Help into a closed pipe is nobody's problem.
        let _ = error.print();
    }
    if asked_for { 0 } else { EXIT_USAGE }
}

fn run(cli: Cli, line: &[OsString]) -> Result<u8> {
    let output = Output::new(&cli.global);
    if let Command::Mount(args) = &cli.command {
        return mount_volume(args, &cli.global, line, output);
    }
    logging::to_stderr(&cli.global, Talk::Command);
    let (volume, request) = match cli.command {
        Command::Mount(_) => return Ok(0),
        Command::Init { volume } => return init(&volume, output).map(|()| 0),
        Command::Umount { target, lazy } => return umount(&target, lazy, output).map(|()| 0),
        Command::Version => return version(output).map(|()| 0),
        Command::Config(command) => return config::run(&command, &cli.global, output),
        Command::Completions(args) => return completions::run(&args, output).map(|()| 0),
        Command::Man(args) => return man::run(&args, output).map(|()| 0),
        Command::Stats(args) => return stats::run(&args, output).map(|()| 0),
        Command::RebuildIndex { volume, dry_run } => {
            return rebuild::run(&volume.volume, dry_run, output);
        }
        Command::Scrub(args) => {
            let response = scrub::ask(&args, output)?;
            print(&response, output)?;
            return Ok(if scrub::is_damaged(&response) { EXIT_PROBLEMS } else { 0 });
        }
        Command::Export(args) => return export::run(args, output),
        Command::Import(args) => return import::run(args, output),
        Command::Find(args) => return find::run(args, output).map(|()| 0),
        Command::Snapshot(args::SnapshotCommand::Diff(args)) => {
            return diff::run(args, output).map(|()| 0);
        }
        Command::Snapshot(command) => snapshots::request(command)?,
        Command::Prune(args) => snapshots::prune(args),
        Command::Restore(args) => restore::request(args)?,
        Command::Status(volume) => (volume, Request::Status),
        Command::Class(command) => class_request(command)?,
        Command::Shard(command) => shard_request(command),
        Command::Check { volume, read_data } => (volume, Request::Check { read_data }),
        Command::Gc { volume, dry_run, min_dead } => {
            (volume, Request::Gc { dry_run, min_dead_percent: min_dead })
        }
    };
    let response = ask(&volume.volume, &request, output)?;
    print(&response, output)?;
    match response {
        Response::Check(report) if !report.problems.is_empty() => Ok(EXIT_PROBLEMS),
        Response::Restored(report) if report.in_the_way > 0 => Ok(1),
        _ => Ok(0),
    }
}

fn bytes(name: OsString) -> Name {
    Name(name.into_vec())
}

fn class_request(command: ClassCommand) -> Result<(args::VolumeArg, Request)> {
    Ok(match command {
        ClassCommand::List(volume) => (volume, Request::ClassList),
        ClassCommand::Explain { first, second, snapshot } => {
            let (volume, path) = match second {
                Some(path) => (first, path),
                None => (mountpoint::above(&first)?, mountpoint::absolute(&first).into_os_string()),
            };
            let snapshot = snapshot.map(bytes);
            (args::VolumeArg { volume }, Request::ClassExplain { path: bytes(path), snapshot })
        }
    })
}

fn shard_request(command: ShardCommand) -> (args::VolumeArg, Request) {
    match command {
        ShardCommand::List(volume) => (volume, Request::ShardList),
        ShardCommand::Add { volume, dir, name, weight } => {
            // The mounted process stands in another directory.
            let path = Name(mountpoint::absolute(&dir).into_os_string().into_vec());
            (volume, Request::ShardAdd { path, name, weight })
        }
    }
}

/// Carries out a request on the volume that `volume` names.
fn ask(volume: &Path, request: &Request, output: Output) -> Result<Response> {
    let dir = mountpoint::volume_dir(volume)?;
    let _running = output.begin(request.verb());
    call(&dir, request, &mut |text| output.progress(text))
}

fn print(response: &Response, output: Output) -> Result<()> {
    if output.json() {
        let document = show::document(response)
            .map_err(|e| Error::invalid(format!("Answer cannot be written as JSON: {e}")))?;
        output.document(&document)
    } else {
        output.data(&show::text(response))
    }
}

fn init(volume: &Path, output: Output) -> Result<()> {
    let id = Volume::init(volume, &InitOptions { env: Env::system() })?;
    let dir = mountpoint::absolute(volume);
    let dir = dir.display();
    if output.json() {
        return output.document(&json!({ "volume_id": id.to_string(), "dir": dir.to_string() }));
    }
    output.data(&format!("Volume {id} made in {dir}\n"))
}

fn version(output: Output) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    if output.json() {
        output.document(&json!({ "version": version }))
    } else {
        output.data(&format!("stratafs {version}\n"))
    }
}

fn mount_volume(
    args: &MountArgs,
    global: &Global,
    line: &[OsString],
    output: Output,
) -> Result<u8> {
    if global.in_background {
        return mount::in_background(args, global);
    }
    if mount::choices(args)?.remount {
        logging::to_stderr(global, Talk::Command);
        return remount::run(args, output).map(|()| 0);
    }
    if args.fake {
        return mount::only_look(args).map(|()| 0);
    }
    if args.foreground {
        return mount::in_foreground(args, global).map(|()| 0);
    }
    let pid = mount::start_background(args, line)?;
    let mountpoint = mountpoint::absolute(&args.mountpoint);
    let mountpoint = mountpoint.display();
    if output.json() {
        output.document(&json!({ "mountpoint": mountpoint.to_string(), "pid": pid }))?;
    }
    output.detail(&format!("Volume mounted on {mountpoint} by process {pid}"));
    Ok(0)
}

fn umount(target: &Path, lazy: bool, output: Output) -> Result<()> {
    let (dir, on) = match mountpoint::place(target)? {
        Place::Mounted(dir) => (dir, true),
        Place::Directory(dir) => (dir, false),
        Place::Dead(mountpoint) => return detach(&mountpoint, output),
    };
    let Some(client) = Client::connect(&dir)? else {
        if let Some(mountpoint) = mountpoint::dead_mount_of(&dir)? {
            return detach(&mountpoint, output);
        }
        let target = target.display();
        return Err(Error::invalid(if on {
            let dir = dir.display();
            format!("The process that has {dir} mounted on {target} does not listen; use umount -i")
        } else {
            format!("Nothing to unmount: {target} is neither a mountpoint nor a mounted volume")
        }));
    };
    let pid = client.server_pid();
    let running = output.begin("umount");
    let response = client.call(&Request::Umount { lazy }, &mut |text| output.progress(text))?;
    drop(running);
    if matches!(response, Response::Detached) {
        output.notice("Detached; the volume closes when the last open file does");
    } else {
        wait_until_closed(&dir, pid);
    }
    print(&response, output)
}

/// Everything is durable, but the process has yet to close its files: until then the next command
/// would find the volume, or the disk it lies on, in use.
fn wait_until_closed(dir: &Path, pid: Option<u32>) {
    let deadline = Instant::now() + CLOSE_WAIT;
    let is_open = || Volume::is_in_use(dir) || pid.is_some_and(is_running);
    while is_open() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
}

/// Takes away a mount whose process is gone. What it had committed is safe; nothing else is left.
fn detach(mountpoint: &Path, output: Output) -> Result<()> {
    detach_dead(mountpoint)?;
    output.notice(&format!(
        "The process of {} had died; its volume is as the last commit left it",
        mountpoint.display()
    ));
    print(&Response::Unmounted, output)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use clap::Parser;

    use super::*;

    #[test]
    fn names_stay_bytes() {
        let cli = Cli::try_parse_from([
            OsStr::from_bytes(b"stratafs"),
            OsStr::from_bytes(b"snapshot"),
            OsStr::from_bytes(b"delete"),
            OsStr::from_bytes(b"/v"),
            OsStr::from_bytes(b"a\xff"),
            OsStr::from_bytes(b"b"),
        ]);
        let Command::Snapshot(command) = cli.unwrap().command else { panic!("not a snapshot") };
        let (volume, request) = snapshots::request(command).unwrap();
        let names = vec![Name(b"a\xff".to_vec()), Name(b"b".to_vec())];
        assert_eq!(request, Request::SnapshotDelete { names });
        assert_eq!(volume.volume, Path::new("/v"));
    }

    #[test]
    fn a_shard_directory_is_made_absolute() {
        let cli = Cli::try_parse_from(["stratafs", "shard", "add", "/v", "x", "--name", "n"]);
        let Command::Shard(command) = cli.unwrap().command else { panic!("not a shard") };
        let Request::ShardAdd { path, name, weight } = shard_request(command).1 else {
            panic!("not an addition")
        };
        assert!(path.0.starts_with(b"/") && path.0.ends_with(b"/x"));
        assert_eq!((name.as_str(), weight), ("n", 1));
    }
}
