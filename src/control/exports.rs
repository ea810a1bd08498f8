//! Requests to export: which snapshot, which path, and the directory outside.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::imports::own_places;
use super::restores::{found_in, split};
use super::{MountedInfo, Name, Response};
use crate::error::{Error, Result};
use crate::export::{self, Host, Origin};
use crate::types::FileKind;
use crate::volume::Volume;

/// What is to be exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportRequest {
    /// `SNAPSHOT` or `SNAPSHOT:PATH`; of a path that ends with `/` only what is in it.
    pub from: Name,
    /// An absolute path of a directory outside.
    pub dest: Name,
    /// Only say what would change.
    pub dry_run: bool,
}

pub(super) fn serve(
    volume: &Arc<Volume>,
    mounted: Option<&MountedInfo>,
    request: &ExportRequest,
    progress: &mut dyn FnMut(&str),
    gone: &AtomicBool,
) -> Result<Response> {
    let whole = Name([&request.from.0[..], b":"].concat());
    let (snapshot, path) = match split(volume, &whole) {
        // All of it is the name of a snapshot.
        Ok((snapshot, path)) if path.is_empty() => (snapshot, path),
        _ if request.from.0.contains(&b':') => split(volume, &request.from)?,
        other => other?,
    };
    let found = found_in(volume, mounted, &snapshot, path)?;
    let mut parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
    let is_directory = found.inode.kind == FileKind::Directory;
    if path.ends_with(b"/") && !is_directory {
        let path = Name(path.to_vec());
        return Err(Error::invalid(format!("{path} is not a directory in the snapshot")));
    }
    let name = parts.next_back().filter(|_| !path.ends_with(b"/"));
    let origin = Origin { epoch: snapshot.epoch, ino: found.ino, name: name.map(Into::into) };
    let dest = Path::new(OsStr::from_bytes(&request.dest.0));
    if !dest.is_absolute() {
        return Err(Error::invalid(format!("{} is not an absolute path", request.dest)));
    }
    refuse_own(dest, &own_places(volume, mounted)?)?;
    let ending = || mounted.is_some_and(|m| m.ending.begun());
    let stop = || gone.load(Ordering::Relaxed) || ending();
    let host = Host { progress, stop: &stop };
    let report = export::run(volume, &origin, dest, request.dry_run, host)?;
    Ok(Response::Exported(Box::new(report)))
}

/// What is exported must not go to where it comes from.
fn refuse_own(dest: &Path, own: &[PathBuf]) -> Result<()> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let above = || Some(real(dest.parent()?)?.join(dest.file_name()?));
    let dest = real(dest).or_else(above).unwrap_or_else(|| dest.to_owned());
    let real_place = |place: &PathBuf| real(place).unwrap_or_else(|| place.clone());
    let found = own.iter().find(|place| dest.starts_with(real_place(place)));
    match found {
        None => Ok(()),
        Some(place) => Err(Error::invalid(format!(
            "{} lies in {}, which is of this volume",
            dest.display(),
            place.display()
        ))),
    }
}
