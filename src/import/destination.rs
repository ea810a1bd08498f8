//! The directory that everything goes into.

use crate::error::{Error, Result};
use crate::types::{At, Changed, FileKind, Ino, SNAPSHOTS_NAME, shown_path};
use crate::volume::{Arrival, Spot, Volume};

/// Opens the directory, or makes it if only its last name is missing. `None` in a dry run when it
/// would have to be made.
///
/// # Errors
/// `NotFound` for a missing directory on the way, `Invalid` if something else has its name,
/// `ReadOnly` for a snapshot; what making it says.
pub(super) fn open(
    volume: &Volume,
    path: &[u8],
    dry_run: bool,
    changed: &dyn Fn(Changed<'_>),
) -> Result<Option<Ino>> {
    let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
    let parts: Vec<_> = parts.collect();
    if parts.contains(&&b".."[..]) {
        let path = shown_path(path);
        return Err(Error::invalid(format!("{path} must not contain \"..\"")));
    }
    if parts.contains(&SNAPSHOTS_NAME) {
        return Err(Error::ReadOnly { what: "a snapshot; import into the live tree".to_owned() });
    }
    let mut here = Ino::ROOT;
    for (at, part) in parts.iter().enumerate() {
        let shown = || shown_path(&parts[..=at].join(&b'/'));
        here = match volume.lookup(At::Live, here, part)? {
            Some(stat) if stat.inode.kind == FileKind::Directory => stat.ino,
            Some(_) => {
                return Err(Error::invalid(format!("{} is not a directory", shown())));
            }
            None if at + 1 < parts.len() => {
                let what = format!("directory {} in the volume; make it first", shown());
                return Err(Error::not_found(what));
            }
            None if dry_run => return Ok(None),
            None => {
                let spot = Spot { parent: here, name: (*part).into() };
                let made = volume.import_directory(&spot, &plain(volume))?;
                changed(Changed::Name(here, part));
                changed(Changed::Inode(here));
                made
            }
        };
    }
    Ok(Some(here))
}

/// A directory as `mkdir` makes it.
fn plain(volume: &Volume) -> Arrival {
    let (uid, gid) = crate::sys::mount::effective_ids();
    let now = volume.now();
    Arrival {
        kind: FileKind::Directory,
        perm: 0o755,
        uid,
        gid,
        rdev: 0,
        size: 0,
        atime: now,
        mtime: now,
        target: Box::default(),
        xattrs: Vec::new(),
        mark: None,
    }
}
