//! The words of the command line. Help texts are the manual: keep them short, true and by example.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use super::progress::Mode;
use crate::retain::{Keep, Within};

const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  failed for another reason: the sentence on stderr says which
   2  wrong usage
   3  not a volume, or the directory is not usable as one
   4  format version or feature flag that this program does not know
   5  damaged metadata or data
   6  busy: mounted, used by another process, files open below the mountpoint, snapshot held
   7  cannot mount: the mountpoint or FUSE is not usable
   8  configuration file does not load
   9  shard missing, foreign or unknown
  10  no space left, or read-only
  11  check or scrub found problems; import or export left something out

First steps:
  stratafs init /backup/vol
  stratafs mount /backup/vol /mnt
  rsync -aHAXS /home/ /mnt/home/
  stratafs snapshot create /mnt monday      (or: mkdir /mnt/.snapshots/monday)
  stratafs stats /mnt
  stratafs umount /mnt

VOLUME is the volume directory, or the mountpoint of a mounted volume.
STRATAFS_VOLUME names the volume where VOLUME is left out; so may a profile (-P).
STRATAFS_LOG sets what is logged, as in STRATAFS_LOG=debug or STRATAFS_LOG=stratafs::fuse=trace.";

/// A writable filesystem that stores every distinct piece of data once, with instant snapshots.
#[derive(Debug, Parser)]
#[command(name = "stratafs", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Global {
    /// Print one JSON document instead of text; errors as JSON on stderr
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Say more on stderr (-vv: say all)
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(super) verbose: u8,
    /// Say nothing on stderr but errors
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
    /// How to say on stderr how far a long command has come
    #[arg(long, global = true, value_name = "HOW", env = "STRATAFS_PROGRESS")]
    #[arg(hide_env_values = true, default_value = "auto", value_enum)]
    pub(super) progress: Mode,
    /// Never use colors; so does NO_COLOR in the environment
    #[arg(long, global = true)]
    pub(super) no_color: bool,
    /// Take what the command line leaves out from this profile
    #[arg(short = 'P', long, global = true, value_name = "NAME", env = "STRATAFS_PROFILE")]
    #[arg(hide_env_values = true)]
    pub(super) profile: Option<String>,
    /// Set by `mount` for the process it starts: report readiness on stdout, then detach.
    #[arg(long, hide = true)]
    pub(super) in_background: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a new volume in a missing or empty directory
    #[command(after_help = "Example:\n  stratafs init /backup/vol")]
    Init {
        /// The directory of the new volume
        volume: PathBuf,
    },
    /// Mount a volume; returns when the mount is ready
    #[command(after_help = MOUNT_HELP)]
    Mount(MountArgs),
    /// Unmount; returns when everything is durable and the volume is closed
    #[command(
        after_help = "Examples:\n  stratafs umount /mnt\n  stratafs umount /backup/vol --lazy"
    )]
    Umount {
        /// The mountpoint or the volume directory
        #[arg(value_name = "MOUNTPOINT|VOLUME")]
        target: PathBuf,
        /// Detach at once even if files are open; the volume closes when the last one is closed
        #[arg(short, long)]
        lazy: bool,
    },
    /// Take, list, delete, rename, hold and lock snapshots
    #[command(subcommand, after_help = SNAPSHOT_HELP)]
    Snapshot(SnapshotCommand),
    /// Find names in all snapshots and in the tree as it is
    #[command(after_help = super::find::HELP)]
    Find(super::find::FindArgs),
    /// Show what the volume is, where it is mounted and whether it is well
    Status(VolumeArg),
    /// Show what was written, what is stored and what was saved, by class and shard
    #[command(after_help = super::stats::HELP)]
    Stats(super::stats::StatsArgs),
    /// List file classes, and explain which one a file has
    #[command(subcommand)]
    Class(ClassCommand),
    /// List and add shards, the places where data lies
    #[command(subcommand)]
    Shard(ShardCommand),
    /// Check that the metadata is consistent and every reference resolves
    #[command(after_help = "Exits with 11 when problems were found. Works while mounted.")]
    Check {
        #[command(flatten)]
        volume: VolumeArg,
        /// Read and verify every chunk, too
        #[arg(long)]
        read_data: bool,
    },
    /// Delete the snapshots that a retention policy does not keep
    Prune(PruneArgs),
    /// Free the space of data that no file and no snapshot needs any more
    #[command(after_help = GC_HELP)]
    Gc {
        #[command(flatten)]
        volume: VolumeArg,
        /// Say what would be freed, and change nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Repack containers of which at least so much is unused [default: min_dead_percent of the
        /// configuration, 50]
        #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
        min_dead: Option<u8>,
    },
    /// Restore the index of chunks from the containers; the volume must not be mounted
    #[command(
        name = "rebuild-index",
        after_help = "For a volume whose tables of chunks are damaged. Names and snapshots are not \
                      touched. Exits with 11 when something could not be restored.\n\
                      Examples:\n  stratafs rebuild-index /backup/vol --dry-run\n  \
                      stratafs rebuild-index /backup/vol"
    )]
    RebuildIndex {
        #[command(flatten)]
        volume: VolumeArg,
        /// Say what would be found; change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Put a file or tree of a snapshot back, without copying bytes
    #[command(after_help = super::restore::HELP)]
    Restore(super::restore::RestoreArgs),
    /// Write files and trees of a snapshot to a directory: faster than through the mount
    #[command(after_help = super::export::HELP)]
    Export(super::export::ExportArgs),
    /// Import files and trees from outside: faster than through the mount
    #[command(after_help = super::import::HELP)]
    Import(super::import::ImportArgs),
    /// Verify what is stored, name what is damaged, and repair it from good copies
    #[command(after_help = super::scrub::HELP)]
    Scrub(super::scrub::ScrubArgs),
    /// Show and check what is configured, and print values of a profile
    #[command(subcommand, after_help = super::config::HELP)]
    Config(super::config::ConfigCommand),
    /// Print a script that lets a shell complete command lines
    #[command(after_help = super::completions::HELP)]
    Completions(super::completions::CompletionsArgs),
    /// Print a manual page, or write all of them
    #[command(after_help = super::man::HELP)]
    Man(super::man::ManArgs),
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
pub(super) struct VolumeArg {
    /// The volume directory, or the mountpoint of a mounted volume
    pub(super) volume: PathBuf,
}

const MOUNT_HELP: &str = "\
Mount options (-o, separated by commas; the last one counts):
  ro, rw                        read-only or not
  allow_other                   let all users in (default as root)
  default_permissions           the kernel checks permissions (default)
  dev, nodev, suid, nosuid      device nodes, set-user-id bits (default as root: dev,suid)
  exec, noexec                  programs on it can be started, or not
  sync, dirsync                 what returns is durable: all changes, those of names
  snapdir=visible|hidden        show .snapshots in listings (default: hidden)
  history=on|off                show .history beside names of the live tree (default: on)
  nonempty                      allow a mountpoint that is not empty
  metrics=[ADDRESS:]PORT|off    for Prometheus, on a loopback address (default: as configured)
  threads=N                     threads that serve the kernel, 1 to 64
  fsname=NAME                   what mount(8) and df show as source (default: the volume)
  remount                       change generic options, as ro, of what is mounted; others stay
Options of fstab that need nothing from a filesystem (noauto, nofail, user, _netdev, noatime,
x-* and the like) are accepted; unknown ones are refused.

Without -f the messages of the mounted process go to stratafs.log in the volume directory.
With -f they go to stderr, and Ctrl-C unmounts.

Examples:
  stratafs mount /backup/vol /mnt
  stratafs mount /backup/vol /mnt -o ro,snapdir=visible
  stratafs mount /backup/vol /mnt -o remount,ro
  stratafs mount -f -v /backup/vol /mnt";

#[derive(Debug, Args)]
pub(super) struct MountArgs {
    /// The volume directory
    pub(super) volume: PathBuf,
    /// An empty directory
    pub(super) mountpoint: PathBuf,
    /// Stay in the foreground
    #[arg(short, long)]
    pub(super) foreground: bool,
    /// Mount options
    #[arg(short, value_name = "OPTIONS")]
    pub(super) options: Vec<OsString>,
    /// Change nothing; the same as -o ro
    #[arg(long)]
    pub(super) read_only: bool,
    /// `mount -s`: unknown options are told and ignored.
    #[arg(long, hide = true)]
    pub(super) sloppy: bool,
    /// `mount -f`: all but the mount itself.
    #[arg(long, hide = true)]
    pub(super) fake: bool,
}

const GC_HELP: &str = "\
Works while mounted and in use; a mounted volume also does it by itself (section [gc] of the
configuration). Ctrl-C ends it; what was freed stays free. Live data of mostly unused containers
is stored anew to free them. With --min-dead below 50 more may be copied than is freed.

Examples:
  stratafs gc /mnt --dry-run
  stratafs gc /backup/vol --min-dead 20";

const SNAPSHOT_HELP: &str = "\
Examples:
  stratafs snapshot create /mnt before-upgrade
  stratafs snapshot list /backup/vol
  stratafs snapshot list /backup/vol --no-space
  stratafs snapshot diff /mnt monday tuesday
  stratafs snapshot delete /mnt monday tuesday --dry-run
  stratafs snapshot delete /mnt monday tuesday
  stratafs snapshot rename /mnt monday week-12
  stratafs snapshot hold /mnt week-12
  stratafs snapshot lock /mnt week-12 --until 2027-01-31
On the mount the same is done by mkdir, ls, rmdir and mv in .snapshots.";

#[derive(Debug, Subcommand)]
pub(super) enum SnapshotCommand {
    /// Take a snapshot of the whole volume, at once
    Create {
        #[command(flatten)]
        volume: VolumeArg,
        /// Its name: 1 to 255 bytes without a slash
        name: OsString,
    },
    /// List the snapshots, oldest first, and what each of them alone holds
    List {
        #[command(flatten)]
        volume: VolumeArg,
        /// Do not count what they hold: at once, however large the volume is
        #[arg(long)]
        no_space: bool,
    },
    /// Say what differs between two snapshots, or between one and the live tree
    #[command(after_help = super::diff::HELP)]
    Diff(super::diff::DiffArgs),
    /// Delete snapshots, all of them or none; their space comes back with gc
    Delete {
        #[command(flatten)]
        volume: VolumeArg,
        /// Only say what deleting them together would free
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<OsString>,
    },
    /// Give a snapshot another name
    Rename {
        #[command(flatten)]
        volume: VolumeArg,
        /// Its name
        old: OsString,
        /// Its name from now on
        new: OsString,
    },
    /// Keep a snapshot from being deleted until it is released
    Hold {
        #[command(flatten)]
        volume: VolumeArg,
        /// Its name
        name: OsString,
    },
    /// Let a held snapshot go
    Release {
        #[command(flatten)]
        volume: VolumeArg,
        /// Its name
        name: OsString,
    },
    /// Keep everybody from deleting or renaming a snapshot up to a date; this cannot be taken back
    Lock {
        #[command(flatten)]
        volume: VolumeArg,
        /// Its name
        name: OsString,
        /// The date: 2027-01-31 (its midnight), 2027-01-31T18:00, 2027-01-31T18:00:00Z
        #[arg(long, value_name = "DATE")]
        until: String,
    },
}

const PRUNE_HELP: &str = "\
A snapshot stays if any option keeps it. The newest of each of the last N hours, days, weeks,
months or years that have one stays; weeks begin on Monday, all in local time. While an option
has not found its N, the oldest snapshot stays, too. N may be \"unlimited\". --keep-within counts
from the newest snapshot, in years, months, days and hours as in 1y5m7d2h. Snapshots that are
held or locked stay. The words mean what they mean to `restic forget`.

Examples:
  stratafs prune /mnt --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
  stratafs prune /mnt --name 'auto-*' --keep-within 2d --keep-daily 14
  stratafs gc /mnt              gives the space back";

#[derive(Debug, Args)]
#[command(after_help = PRUNE_HELP)]
#[command(group = clap::ArgGroup::new("keep").required(true).multiple(true))]
pub(super) struct PruneArgs {
    #[command(flatten)]
    pub(super) volume: VolumeArg,
    /// Keep the newest N
    #[arg(long, value_name = "N", group = "keep")]
    pub(super) keep_last: Option<Keep>,
    /// Keep the newest of each of the last N hours that have one
    #[arg(long, value_name = "N", group = "keep")]
    pub(super) keep_hourly: Option<Keep>,
    /// Keep the newest of each of the last N days that have one
    #[arg(long, value_name = "N", group = "keep")]
    pub(super) keep_daily: Option<Keep>,
    /// Keep the newest of each of the last N weeks that have one
    #[arg(long, value_name = "N", group = "keep")]
    pub(super) keep_weekly: Option<Keep>,
    /// Keep the newest of each of the last N months that have one
    #[arg(long, value_name = "N", group = "keep")]
    pub(super) keep_monthly: Option<Keep>,
    /// Keep the newest of each of the last N years that have one
    #[arg(long, value_name = "N", group = "keep")]
    pub(super) keep_yearly: Option<Keep>,
    /// Keep all that are not older than this, seen from the newest
    #[arg(long, value_name = "DURATION", group = "keep")]
    pub(super) keep_within: Option<Within>,
    /// Look only at snapshots with such names, as in 'daily-*'
    #[arg(long, value_name = "GLOB")]
    pub(super) name: Option<String>,
    /// Only say what would go, and what that would free
    #[arg(short = 'n', long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ClassCommand {
    /// List the file classes, how they are cut and compressed and where they go
    List(VolumeArg),
    /// Say which rule decided on a file's class, and where its bytes lie
    #[command(after_help = "Examples:\n  stratafs class explain /mnt/home/a/mail.mbox\n  \
                            stratafs class explain /backup/vol home/a/mail.mbox --snapshot monday")]
    #[command(override_usage = "stratafs class explain [OPTIONS] [VOLUME] <PATH>")]
    Explain {
        /// The volume directory, or the mountpoint; not needed for a path below a mountpoint
        #[arg(value_name = "VOLUME")]
        first: PathBuf,
        /// Path inside the volume, or below the mountpoint
        #[arg(value_name = "PATH")]
        second: Option<OsString>,
        /// Look into this snapshot
        #[arg(long, value_name = "NAME")]
        snapshot: Option<OsString>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ShardCommand {
    /// List the shards and how full they are
    List(VolumeArg),
    /// Add a directory, for example on another disk, as a shard
    #[command(after_help = "Example:\n  stratafs shard add /mnt /disk2/strata --name bulk \
                            --weight 4\nNew data of every class without a shard list of \
                            its own is spread over all shards by weight.")]
    Add {
        #[command(flatten)]
        volume: VolumeArg,
        /// A missing or empty directory
        dir: PathBuf,
        /// The shard's name
        #[arg(long)]
        name: String,
        /// Its share of new data beside other shards
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        weight: u32,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_work_behind_the_command() {
        let cli = Cli::try_parse_from(["stratafs", "snapshot", "list", "/v", "--json", "-vv"]);
        let cli = cli.unwrap();
        assert!(cli.global.json && cli.global.verbose == 2);
        assert!(Cli::try_parse_from(["stratafs", "gc", "/v", "-q", "-v"]).is_err());
    }

    #[test]
    fn help_names_every_exit_code_and_command_has_help() {
        let mut command = Cli::command();
        let help = command.render_long_help().to_string();
        for code in 0..=11 {
            assert!(
                help.lines().any(|l| l.trim_start().starts_with(&format!("{code}  "))),
                "{code}"
            );
        }
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
        }
    }
}
