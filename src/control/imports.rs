//! Requests to import: which paths outside, and where they go.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::restores::inside;
use super::{MountedInfo, Name, Response};
use crate::error::{Error, Result};
use crate::import::{self, Host, ImportOptions, Rule, Rules, Source};
use crate::types::Changed;
use crate::volume::Volume;

/// What is to be imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// Absolute paths; of one that ends with `/` only what is in it.
    pub sources: Vec<Name>,
    /// A directory in the volume, or below its mountpoint.
    pub dest: Name,
    /// Only say what would change.
    pub dry_run: bool,
    /// Remove what the sources do not have.
    pub delete: bool,
    /// Stay on the file systems of the sources.
    pub one_file_system: bool,
    /// Of directories with a CACHEDIR.TAG take only that.
    pub exclude_caches: bool,
    /// Of directories with such a file take only that.
    pub exclude_if_present: Vec<Name>,
    /// What is left out, in order.
    pub rules: Vec<RuleRequest>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleRequest {
    /// Take what matches, instead of leaving it out.
    pub include: bool,
    /// The pattern.
    pub pattern: String,
}

pub(super) fn serve(
    volume: &Arc<Volume>,
    mounted: Option<&MountedInfo>,
    request: &ImportRequest,
    progress: &mut dyn FnMut(&str),
    gone: &AtomicBool,
) -> Result<Response> {
    let sources = request.sources.iter().map(source).collect::<Result<Vec<_>>>()?;
    let rules = request
        .rules
        .iter()
        .map(|rule| Rule { include: rule.include, pattern: rule.pattern.clone() });
    let options = ImportOptions {
        dry_run: request.dry_run,
        delete: request.delete,
        one_file_system: request.one_file_system,
        exclude_caches: request.exclude_caches,
        exclude_if_present: request.exclude_if_present.iter().map(|tag| tag.0.clone()).collect(),
        rules: Rules::new(&rules.collect::<Vec<_>>())?,
    };
    let own = own_places(volume, mounted)?;
    let ending = || mounted.is_some_and(|m| m.ending.begun());
    let host = Host {
        changed: &|what: Changed<'_>| {
            if let Some(mounted) = mounted {
                (mounted.forget)(what);
            }
        },
        progress,
        stop: &|| gone.load(Ordering::Relaxed) || ending(),
        own: &own,
    };
    let dest = inside(mounted, &request.dest.0);
    let report = import::run(volume, &sources, dest, &options, host)?;
    Ok(Response::Imported(Box::new(report)))
}

fn source(path: &Name) -> Result<Source> {
    let bytes = &*path.0;
    if !bytes.starts_with(b"/") {
        return Err(Error::invalid(format!("Source {path} is not an absolute path")));
    }
    let contents = bytes.ends_with(b"/");
    Ok(Source { path: PathBuf::from(OsStr::from_bytes(bytes)), contents })
}

/// Where the volume lies, and where it is seen: nothing there is imported or exported to.
pub(super) fn own_places(volume: &Volume, mounted: Option<&MountedInfo>) -> Result<Vec<PathBuf>> {
    let shards = volume.shard_list()?.into_iter().map(|shard| PathBuf::from(shard.path));
    let mut places: Vec<PathBuf> = shards.filter(|path| path.is_absolute()).collect();
    places.push(Path::new(volume.dir()).to_owned());
    places.extend(mounted.map(|m| m.mountpoint.clone()));
    Ok(places)
}
