//! Commands about snapshots, as requests.

use super::args::{PruneArgs, SnapshotCommand, VolumeArg};
use super::bytes;
use crate::control::{PruneRequest, Request};
use crate::error::Result;
use crate::retain::{Calendar, Policy};

/// What `stratafs snapshot …` asks for.
///
/// # Errors
/// `Invalid` for a date that is none.
pub(super) fn request(command: SnapshotCommand) -> Result<(VolumeArg, Request)> {
    Ok(match command {
        SnapshotCommand::Create { volume, name } => {
            (volume, Request::SnapshotCreate { name: bytes(name) })
        }
        SnapshotCommand::List { volume, no_space } => {
            (volume, Request::SnapshotList { space: !no_space })
        }
        SnapshotCommand::Diff(_) => unreachable!("it is answered in parts"),
        SnapshotCommand::Delete { volume, names, dry_run } => {
            let names = names.into_iter().map(bytes).collect();
            if dry_run {
                (volume, Request::SnapshotWouldFree { names })
            } else {
                (volume, Request::SnapshotDelete { names })
            }
        }
        SnapshotCommand::Rename { volume, old, new } => {
            (volume, Request::SnapshotRename { old: bytes(old), new: bytes(new) })
        }
        SnapshotCommand::Hold { volume, name } => {
            (volume, Request::SnapshotHold { name: bytes(name), held: true })
        }
        SnapshotCommand::Release { volume, name } => {
            (volume, Request::SnapshotHold { name: bytes(name), held: false })
        }
        SnapshotCommand::Lock { volume, name, until } => {
            let until = Calendar::local().parse(&until)?;
            (volume, Request::SnapshotLock { name: bytes(name), until })
        }
    })
}

/// What `stratafs prune` asks for. Hours and days are those of who asks, not of who serves.
pub(super) fn prune(args: PruneArgs) -> (VolumeArg, Request) {
    let policy = Policy {
        last: args.keep_last.unwrap_or_default(),
        hourly: args.keep_hourly.unwrap_or_default(),
        daily: args.keep_daily.unwrap_or_default(),
        weekly: args.keep_weekly.unwrap_or_default(),
        monthly: args.keep_monthly.unwrap_or_default(),
        yearly: args.keep_yearly.unwrap_or_default(),
        within: args.keep_within,
    };
    let zone = Calendar::local().name().map(str::to_owned);
    let request = PruneRequest { policy, names: args.name, zone, dry_run: args.dry_run };
    (args.volume, Request::Prune(request))
}
