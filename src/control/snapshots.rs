//! Requests about snapshots, and what they carry.

use serde::{Deserialize, Serialize};

use super::protocol::{Name, Request, Response, SnapshotInfo};
use crate::classify::NameGlob;
use crate::error::{Error, Result};
use crate::retain::{Calendar, Candidate, Policy, judge};
use crate::types::Snapshot;
use crate::volume::{Amount, Volume};

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSpace {
    /// Raw bytes that its files map, duplicates counted each time.
    pub referenced_bytes: u64,
    /// What it alone holds: what deleting just this one would free.
    pub alone: Amount,
}

/// What `prune` is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneRequest {
    /// What is kept.
    pub policy: Policy,
    /// Only snapshots with such names are looked at.
    pub names: Option<String>,
    /// Whose hours and days count; `None` for the zone of the process that carries it out.
    pub zone: Option<String>,
    /// Only say what would happen.
    pub dry_run: bool,
}

/// What `prune` did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneReport {
    /// Nothing was deleted.
    pub dry_run: bool,
    /// Those that stay, oldest first.
    pub keep: Vec<KeptSnapshot>,
    /// Those that go.
    pub remove: Vec<SnapshotInfo>,
    /// What only those that go hold; not counted when they went at once.
    pub would_free: Option<Amount>,
}

/// A snapshot that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptSnapshot {
    /// Which.
    pub snapshot: SnapshotInfo,
    /// Why: rules of the policy, or what protects it.
    pub reasons: Vec<String>,
}

/// Volumes with more chunks than this are counted for seconds: people want to know why they wait.
const QUICK_CHUNKS: u64 = 4_000_000;

/// Carries out a request about snapshots.
pub(super) fn serve(
    volume: &Volume,
    request: Request,
    progress: &mut dyn FnMut(&str),
) -> Result<Response> {
    Ok(match request {
        Request::SnapshotCreate { name } => {
            Response::Snapshot((&volume.snapshot_create(&name.0)?).into())
        }
        Request::SnapshotList { space } => Response::Snapshots(list(volume, space, progress)?),
        Request::SnapshotWouldFree { names } => {
            let chosen = all_named(volume, &names)?;
            announce(volume, progress);
            let ids: Vec<_> = chosen.iter().map(|snapshot| snapshot.id).collect();
            Response::WouldFree(volume.would_free(&ids)?)
        }
        Request::SnapshotDelete { names } => {
            all_named(volume, &names)?;
            let bytes: Vec<&[u8]> = names.iter().map(|name| &*name.0).collect();
            volume.snapshots_delete(&bytes)?;
            Response::Deleted(names.len())
        }
        Request::SnapshotRename { old, new } => {
            volume.snapshot_rename(&old.0, &new.0)?;
            Response::Snapshot((&named(volume, &new)?).into())
        }
        Request::SnapshotHold { name, held } => {
            volume.snapshot_hold(&name.0, held)?;
            Response::Snapshot((&named(volume, &name)?).into())
        }
        Request::SnapshotLock { name, until } => {
            volume.snapshot_lock(&name.0, until)?;
            Response::Snapshot((&named(volume, &name)?).into())
        }
        Request::Prune(request) => Response::Prune(Box::new(prune(volume, &request, progress)?)),
        _ => unreachable!("others are served elsewhere"),
    })
}

fn announce(volume: &Volume, progress: &mut dyn FnMut(&str)) {
    let chunks = volume.store_for_check().next_ids().chunk.0;
    if chunks > QUICK_CHUNKS {
        progress(&format!("Counting who needs each of {chunks} chunks"));
    }
}

/// The snapshot with this name.
pub(super) fn named(volume: &Volume, name: &Name) -> Result<Snapshot> {
    volume
        .snapshot_named(&name.0)
        .ok_or_else(|| Error::not_found(format!("snapshot {name} in {}", volume.dir().display())))
}

fn all_named(volume: &Volume, names: &[Name]) -> Result<Vec<Snapshot>> {
    let mut found = Vec::with_capacity(names.len());
    for (at, name) in names.iter().enumerate() {
        found.push(named(volume, name)?);
        if names[..at].contains(name) {
            return Err(Error::invalid(format!("Snapshot {name} is named twice")));
        }
    }
    Ok(found)
}

fn list(volume: &Volume, space: bool, progress: &mut dyn FnMut(&str)) -> Result<Vec<SnapshotInfo>> {
    let mut list: Vec<SnapshotInfo> = volume.snapshots().iter().map(SnapshotInfo::from).collect();
    if space && !list.is_empty() {
        announce(volume, progress);
        let usage = volume.snapshot_usage()?;
        for info in &mut list {
            // One that was taken or deleted meanwhile has no numbers.
            let found = usage.iter().find(|usage| usage.id.0 == info.id);
            info.space = found.map(|usage| SnapshotSpace {
                referenced_bytes: usage.referenced_bytes,
                alone: usage.alone,
            });
        }
    }
    Ok(list)
}

fn prune(
    volume: &Volume,
    request: &PruneRequest,
    progress: &mut dyn FnMut(&str),
) -> Result<PruneReport> {
    let calendar = match &request.zone {
        Some(zone) => Calendar::of(zone)?,
        None => Calendar::local(),
    };
    let glob = request.names.as_deref().map(NameGlob::new).transpose()?;
    let mut snapshots = volume.snapshots();
    snapshots.retain(|snapshot| glob.as_ref().is_none_or(|glob| glob.matches(&snapshot.name)));
    let candidates: Vec<Candidate> = snapshots
        .iter()
        .map(|snapshot| Candidate {
            time: snapshot.time,
            protection: volume.snapshot_protection(snapshot),
        })
        .collect();
    let verdicts = judge(&candidates, &request.policy, &calendar, volume.now())?;
    let mut report =
        PruneReport { dry_run: request.dry_run, keep: vec![], remove: vec![], would_free: None };
    let mut gone: Vec<&Snapshot> = Vec::new();
    for (snapshot, reasons) in snapshots.iter().zip(verdicts) {
        if reasons.is_empty() {
            report.remove.push(snapshot.into());
            gone.push(snapshot);
        } else {
            report.keep.push(KeptSnapshot { snapshot: snapshot.into(), reasons });
        }
    }
    if request.dry_run {
        announce(volume, progress);
        let ids: Vec<_> = gone.iter().map(|snapshot| snapshot.id).collect();
        report.would_free = Some(volume.would_free(&ids)?);
    } else if !gone.is_empty() {
        let names: Vec<&[u8]> = gone.iter().map(|snapshot| &*snapshot.name).collect();
        volume.snapshots_delete(&names)?;
    }
    Ok(report)
}
