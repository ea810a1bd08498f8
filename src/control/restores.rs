//! Requests to restore: which snapshot, which path, and where it goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::{MountedInfo, Name, Response, below};
use crate::error::{Error, Result};
use crate::restore::{self, Host, RestoreOptions, Target};
use crate::types::{At, Changed, FileKind, Ino, SNAPSHOTS_NAME, Snapshot};
use crate::volume::{Stat, Volume};

/// What is to be put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// `SNAPSHOT:PATH`.
    pub from: Name,
    /// A path in the volume, or below its mountpoint; where it was if not given.
    pub to: Option<Name>,
    /// Only say what would change.
    pub dry_run: bool,
    /// Remove what the snapshot does not have.
    pub delete: bool,
}

pub(super) fn serve(
    volume: &Arc<Volume>,
    mounted: Option<&MountedInfo>,
    request: &RestoreRequest,
    progress: &mut dyn FnMut(&str),
    gone: &AtomicBool,
) -> Result<Response> {
    let (snapshot, path) = split(volume, &request.from)?;
    let path = inside(mounted, path);
    let found = found_in(volume, mounted, &snapshot, path)?;
    let to = request.to.as_ref().map_or(path, |to| inside(mounted, &to.0));
    let target = target(volume, to, path, found.inode.kind)?;
    let ending = || mounted.is_some_and(|m| m.ending.begun());
    let host = Host {
        changed: &|what: Changed<'_>| {
            if let Some(mounted) = mounted {
                (mounted.forget)(what);
            }
        },
        progress,
        stop: &|| gone.load(Ordering::Relaxed) || ending(),
    };
    let options = RestoreOptions { dry_run: request.dry_run, delete: request.delete };
    let report = restore::run(volume, (snapshot.epoch, found.ino), &target, options, host)?;
    Ok(Response::Restored(Box::new(report)))
}

/// What a path is in a snapshot.
pub(super) fn found_in(
    volume: &Volume,
    mounted: Option<&MountedInfo>,
    snapshot: &Snapshot,
    path: &[u8],
) -> Result<Stat> {
    let path = inside(mounted, path);
    volume.resolve(At::Epoch(snapshot.epoch), path).map_err(|e| match e {
        Error::NotFound { .. } | Error::NotDirectory => Error::not_found(format!(
            "path {} in snapshot {}; paths begin at the volume's root",
            shown(path),
            Name(snapshot.name.to_vec())
        )),
        e => e,
    })
}

/// The snapshot and the path that `SNAPSHOT:PATH` means. Names of snapshots may have colons, as in
/// a time of day: the longest that exists counts.
pub(super) fn split<'a>(volume: &Volume, from: &'a Name) -> Result<(Snapshot, &'a [u8])> {
    let bytes = &*from.0;
    let colons = (0..bytes.len()).rev().filter(|at| bytes[*at] == b':');
    for at in colons {
        let (name, path) = (&bytes[..at], &bytes[at + 1..]);
        let found = volume.snapshot_named(name).or_else(|| match name {
            b".latest" => volume.newest_snapshot_with(Ino::ROOT).ok().flatten(),
            _ => None,
        });
        if let Some(snapshot) = found {
            return Ok((snapshot, path));
        }
    }
    match bytes.iter().position(|b| *b == b':') {
        Some(at) => Err(Error::not_found(format!("snapshot {}", shown(&bytes[..at])))),
        None => Err(Error::invalid(format!(
            "{from} names no snapshot; say SNAPSHOT:PATH, as in monday:home/ann/letter.odt"
        ))),
    }
}

/// A path without the mountpoint it may begin with.
pub(super) fn inside<'a>(mounted: Option<&MountedInfo>, path: &'a [u8]) -> &'a [u8] {
    use std::os::unix::ffi::OsStrExt;
    mounted.and_then(|m| below(path, m.mountpoint.as_os_str().as_bytes())).unwrap_or(path)
}

/// Where `to` is. One that ends with `/` is a directory that gets what `from` ends with.
fn target(volume: &Volume, to: &[u8], from: &[u8], kind: FileKind) -> Result<Target> {
    let mut parts = parts_of(to);
    if to.ends_with(b"/") && to != from {
        parts.extend(parts_of(from).last());
    }
    if parts.iter().any(|part| *part == b"..") {
        return Err(Error::invalid(format!("{} must not contain \"..\"", shown(to))));
    }
    if parts.contains(&SNAPSHOTS_NAME) {
        return Err(Error::ReadOnly { what: "a snapshot; restore to the live tree".to_owned() });
    }
    let is_directory = kind == FileKind::Directory;
    let Some((name, above)) = parts.split_last() else {
        return if is_directory { Ok(Target::Root) } else { Err(is_a_directory(to)) };
    };
    let above = above.join(&b'/');
    let parent = volume.resolve(At::Live, &above).map_err(|e| match e {
        Error::NotFound { .. } | Error::NotDirectory => no_parent(&above),
        e => e,
    })?;
    if parent.inode.kind != FileKind::Directory {
        return Err(no_parent(&above));
    }
    let existing = volume.lookup(At::Live, parent.ino, name)?;
    if !is_directory && existing.is_some_and(|stat| stat.inode.kind == FileKind::Directory) {
        return Err(is_a_directory(to));
    }
    Ok(Target::Entry { parent: parent.ino, name: (*name).into() })
}

fn parts_of(path: &[u8]) -> Vec<&[u8]> {
    path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").collect()
}

fn no_parent(above: &[u8]) -> Error {
    Error::not_found(format!(
        "directory {} in the volume; restore that one, or make it first",
        shown(above)
    ))
}

fn is_a_directory(to: &[u8]) -> Error {
    let to = String::from_utf8_lossy(to);
    let to = to.trim_end_matches('/');
    Error::invalid(format!("{to}/ is a directory; end it with / to restore into it"))
}

fn shown(path: &[u8]) -> Name {
    Name(path.to_vec())
}
