//! Commands on a volume, whether it is mounted by another process or not.
//!
//! Guarantees: a request does the same and fails with the same sentence and exit code on both ways
//! ([`serve_request`] is the only one that carries it out); an unmount is answered after the last
//! commit is durable. Relies on: the volume's lock, which decides which way it is.
//! Does not: parse command lines or print (cli), mount (the cli hands in how to unmount).

mod client;
mod diffs;
mod ending;
mod exports;
mod finds;
mod imports;
mod parts;
mod protocol;
mod remount;
mod restores;
mod scrubs;
mod server;
mod snapshots;

pub use client::{Client, SOCKET_NAME};
pub use diffs::{ChangeName, DiffRequest, DiffSums, DifferenceInfo, LIVE, Tally};
pub use ending::Ending;
pub use exports::ExportRequest;
pub use finds::{FindRequest, FindSums, FoundInfo, VersionInfo};
pub use imports::{ImportRequest, RuleRequest};
pub use parts::{EachPart, Part, call_in_parts, serve_parts};
pub use protocol::{
    ClassInfo, Name, PROTOCOL_VERSION, REQUEST_BYTES_MAX, Reply, Request, Response, SnapshotInfo,
    decode_reply, decode_request, encode_reply, encode_request,
};
pub use remount::{RemountModes, RemountState, RemountStep};
pub use restores::RestoreRequest;
pub use scrubs::{ScrubAnswer, ScrubRequest};
pub use server::{CONNECTIONS_MAX, Serve, Server};
pub use snapshots::{KeptSnapshot, PruneReport, PruneRequest, SnapshotSpace};

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use crate::check::{self, CheckOptions};
use crate::config::{Chunking, ClassSpec, CodecSetting};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::gc::{self, GcOptions};
use crate::types::{At, Changed};
use crate::volume::{OpenOptions, Volume};

/// How long a command waits for a volume that is locked but does not listen: between taking the
/// lock and listening, and in the last commit, a mount does not.
pub const LOCKED_WAIT: Duration = Duration::from_secs(3);
/// How long a lazy unmount waits for the session to end before it answers that files are open.
const LAZY_WAIT: Duration = Duration::from_millis(500);

/// What the mounted process knows beyond its volume.
pub struct MountedInfo {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Unmounts, lazily or not.
    pub unmount: Box<dyn Fn(bool) -> Result<()> + Send + Sync>,
    /// Makes the kernel forget what is not as it may remember it.
    pub forget: Box<dyn Fn(Changed<'_>) + Send + Sync>,
    /// How far the end has come.
    pub ending: Arc<Ending>,
    /// Whether it takes changes.
    pub remount: RemountState,
}

/// Serves a mounted volume's requests.
pub struct MountedVolume {
    /// The volume.
    pub volume: Arc<Volume>,
    /// Its mount.
    pub mounted: MountedInfo,
}

impl Serve for MountedVolume {
    fn serve(
        &self,
        request: Request,
        progress: &mut dyn FnMut(&str),
        gone: &AtomicBool,
    ) -> Result<Response> {
        serve_request(&self.volume, Some(&self.mounted), request, progress, gone)
    }

    fn serve_parts(&self, request: &Request, part: &mut EachPart<'_>) -> Result<Response> {
        serve_parts(&self.volume, Some(&self.mounted), request, part)
    }

    fn abandoned(&self, verb: &str) {
        if verb == "gc" {
            self.volume.stop_gc();
        }
    }
}

/// Carries out `request` on the volume in `dir`: through the process that has it mounted, or else
/// by opening it here for the time of the request.
///
/// # Errors
/// What the request fails with; `Busy` when another process has the volume and does not listen.
pub fn call(dir: &Path, request: &Request, progress: &mut dyn FnMut(&str)) -> Result<Response> {
    call_until(dir, request, progress, &AtomicBool::new(false))
}

/// As [`call`]; when `gone` becomes true, a long request that is carried out here ends early.
///
/// # Errors
/// As [`call`].
pub fn call_until(
    dir: &Path,
    request: &Request,
    progress: &mut dyn FnMut(&str),
    gone: &AtomicBool,
) -> Result<Response> {
    // Only one of the two ways is taken.
    let progress = std::cell::RefCell::new(progress);
    reach(
        dir,
        request,
        &mut |client: Client| client.call(request, &mut |text| (progress.borrow_mut())(text)),
        &mut |volume| {
            let mut progress = progress.borrow_mut();
            serve_request(volume, None, request.clone(), &mut **progress, gone)
        },
    )
}

/// Hands a connection to the process that has the volume mounted to `client`, or else the volume,
/// opened for the time of the request, to `here`.
fn reach(
    dir: &Path,
    request: &Request,
    client: &mut dyn FnMut(Client) -> Result<Response>,
    here: &mut dyn FnMut(&Arc<Volume>) -> Result<Response>,
) -> Result<Response> {
    let deadline = Instant::now() + LOCKED_WAIT;
    loop {
        if let Some(connected) = Client::connect(dir)? {
            return client(connected);
        }
        let options = OpenOptions {
            env: Env::system(),
            purpose: request.verb().to_owned(),
            read_only: !request.changes_volume(),
        };
        match Volume::open(dir, options) {
            Ok(volume) => {
                let outcome = here(&volume);
                let closed = volume.shutdown();
                let response = outcome?;
                closed?;
                return Ok(response);
            }
            Err(Error::Busy { .. }) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Carries out `request` on an open volume.
///
/// # Errors
/// What the request fails with; `Busy` when the mount is ending.
pub fn serve_request(
    volume: &Arc<Volume>,
    mounted: Option<&MountedInfo>,
    request: Request,
    progress: &mut dyn FnMut(&str),
    gone: &AtomicBool,
) -> Result<Response> {
    if let Request::Umount { lazy } = request {
        return unmount(volume, mounted, lazy);
    }
    refuse_ending(volume, mounted)?;
    let _admitted = mounted.map(|m| m.remount.admit(&request)).transpose()?;
    Ok(match request {
        request @ (Request::SnapshotCreate { .. }
        | Request::SnapshotList { .. }
        | Request::SnapshotWouldFree { .. }
        | Request::SnapshotDelete { .. }
        | Request::SnapshotRename { .. }
        | Request::SnapshotHold { .. }
        | Request::SnapshotLock { .. }
        | Request::Prune(_)) => snapshots::serve(volume, request, progress)?,
        Request::Status => {
            volume.look_after_shards();
            let mut status = volume.status()?;
            status.read_only |= mounted.is_some_and(|m| m.remount.is_read_only());
            status.mounted_on = mounted.map(|m| m.mountpoint.to_string_lossy().into_owned());
            Response::Status(Box::new(status))
        }
        Request::Stats => Response::Stats(Box::new(volume.stats_report()?)),
        Request::ClassList => {
            Response::Classes(volume.config().classes.iter().map(class_info).collect())
        }
        Request::ClassExplain { path, snapshot } => {
            let (at, path) = place(volume, mounted, &path.0, snapshot.as_ref())?;
            Response::Explanation(Box::new(volume.explain(at, path)?))
        }
        Request::ShardList => {
            volume.look_after_shards();
            Response::Shards(volume.shard_list()?)
        }
        Request::ShardAdd { path, name, weight } => {
            let path = Path::new(OsStr::from_bytes(&path.0));
            Response::Shard(volume.shard_add(path, &name, weight)?)
        }
        Request::Check { read_data } => {
            let report = check::run(volume, CheckOptions { read_data }, progress)?;
            Response::Check(Box::new(report))
        }
        Request::Gc { dry_run, min_dead_percent } => {
            let options = GcOptions { dry_run, min_dead_percent, automatic: false };
            Response::Gc(Box::new(gc::run_with(volume, options, progress)?))
        }
        Request::Restore(request) => restores::serve(volume, mounted, &request, progress, gone)?,
        Request::Export(request) => exports::serve(volume, mounted, &request, progress, gone)?,
        Request::Import(request) => imports::serve(volume, mounted, &request, progress, gone)?,
        Request::Scrub(request) => scrubs::serve(volume, mounted, request, progress, gone)?,
        Request::Remount(step) => remount::serve(volume, mounted, step)?,
        request @ (Request::SnapshotDiff(_) | Request::Find(_)) => {
            serve_parts(volume, mounted, &request, &mut |_| Ok(()))?
        }
        Request::Umount { .. } => unreachable!("answered above"),
    })
}

fn refuse_ending(volume: &Volume, mounted: Option<&MountedInfo>) -> Result<()> {
    if mounted.is_some_and(|m| m.ending.begun()) {
        let dir = volume.dir().display();
        return Err(Error::Busy {
            what: format!("Volume {dir} is being unmounted by process {}", std::process::id()),
        });
    }
    Ok(())
}

fn unmount(volume: &Arc<Volume>, mounted: Option<&MountedInfo>, lazy: bool) -> Result<Response> {
    let Some(mounted) = mounted else {
        return Err(Error::invalid(format!("Volume {} is not mounted", volume.dir().display())));
    };
    if !mounted.ending.begun()
        && let Err(error) = (mounted.unmount)(lazy)
    {
        // Somebody else may have unmounted meanwhile: then there is only the end to wait for.
        if matches!(error, Error::Busy { .. }) || !mounted.ending.begins_within(LAZY_WAIT) {
            return Err(error);
        }
    }
    if lazy && !mounted.ending.begins_within(LAZY_WAIT) {
        volume.commit()?;
        return Ok(Response::Detached);
    }
    mounted.ending.wait().map(|()| Response::Unmounted)
}

/// The state and the path inside the volume that a command line means: a path below the mountpoint
/// loses it, and `.snapshots/NAME/` at its beginning names a snapshot.
fn place<'a>(
    volume: &Volume,
    mounted: Option<&MountedInfo>,
    path: &'a [u8],
    snapshot: Option<&Name>,
) -> Result<(At, &'a [u8])> {
    let below = mounted.and_then(|m| below(path, m.mountpoint.as_os_str().as_bytes()));
    let path = below.unwrap_or(path);
    if let Some(name) = snapshot {
        return Ok((At::Epoch(snapshots::named(volume, name)?.epoch), path));
    }
    match in_snapshot(path) {
        Some((name, rest)) => {
            Ok((At::Epoch(snapshots::named(volume, &Name(name.to_vec()))?.epoch), rest))
        }
        None => Ok((At::Live, path)),
    }
}

/// What of `path` lies below `mountpoint`; `None` when it does not lie there.
fn below<'a>(path: &'a [u8], mountpoint: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(mountpoint)?;
    (rest.is_empty() || rest[0] == b'/').then_some(rest)
}

/// Name and rest of `.snapshots/NAME/rest`.
fn in_snapshot(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = path.iter().position(|b| *b != b'/')?;
    let path = path[start..].strip_prefix(b".snapshots/")?;
    let end = path.iter().position(|b| *b == b'/').unwrap_or(path.len());
    (end > 0).then(|| path.split_at(end))
}

fn class_info(class: &ClassSpec) -> ClassInfo {
    let is_listed = |shard: &&String| class.shards.iter().any(|(name, _)| name == *shard);
    let fallback = class.fallback.iter().filter(|shard| !is_listed(shard));
    let fallback = fallback.map(|shard| format!("{shard} (fallback)"));
    let shards = match class.shards.as_slice() {
        [(only, _)] => vec![only.clone()],
        several => several.iter().map(|(name, weight)| format!("{name}:{weight}")).collect(),
    };
    ClassInfo {
        id: class.id.0,
        name: class.name.clone(),
        chunking: match class.chunking {
            Chunking::Cdc { avg, .. } => format!("content {} KiB", avg / 1024),
            Chunking::MinCdc { avg, .. } => format!("smallest hash {} KiB", avg / 1024),
            Chunking::Fixed { bytes } => format!("fixed {} KiB", bytes / 1024),
        },
        codec: match class.codec {
            CodecSetting::None => "none".to_owned(),
            CodecSetting::Auto => "zstd 3 or 1".to_owned(),
            CodecSetting::Zstd { level } => format!("zstd {level}"),
        },
        shards: shards.into_iter().chain(fallback).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_the_mountpoint_lose_it() {
        assert_eq!(below(b"/mnt/a/b", b"/mnt"), Some(&b"/a/b"[..]));
        assert_eq!(below(b"/mnt", b"/mnt"), Some(&b""[..]));
        assert_eq!(below(b"/mnt2/a", b"/mnt"), None);
        assert_eq!(below(b"a/b", b"/mnt"), None);
    }

    #[test]
    fn a_path_may_name_its_snapshot() {
        assert_eq!(in_snapshot(b"/.snapshots/s1/a/b"), Some((&b"s1"[..], &b"/a/b"[..])));
        assert_eq!(in_snapshot(b".snapshots/\xff"), Some((&b"\xff"[..], &b""[..])));
        assert_eq!(in_snapshot(b"/.snapshots/"), None);
        assert_eq!(in_snapshot(b"/.snapshots"), None);
        assert_eq!(in_snapshot(b"/a/.snapshots/x"), None);
        assert_eq!(in_snapshot(b""), None);
    }
}
