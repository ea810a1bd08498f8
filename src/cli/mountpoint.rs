//! Mountpoints: which volume lies behind one, and who uses it. Whether one is usable, `fuse` says.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fuse::{is_mount_named, is_mount_of};
use crate::sys::mount::{MountEntry, mounted_at, mounts};
use crate::sys::process::{extended_attribute, is_not_connected};
use crate::volume::Volume;

/// The attribute of a mounted root that names its volume directory.
const VOLUME_ATTRIBUTE: &str = "user.stratafs.volume";
/// Most users of a busy mountpoint that a message names.
const HOLDERS_MAX: usize = 5;

/// What a VOLUME argument means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A directory, most likely a volume's; as absolute as it can be made.
    Directory(PathBuf),
    /// The mountpoint of the volume in the directory.
    Mounted(PathBuf),
    /// A mountpoint whose process is gone.
    Dead(PathBuf),
}

/// Finds out what `path` names.
///
/// # Errors
/// `Io` when a mountpoint does not tell its volume.
pub(super) fn place(path: &Path) -> Result<Place> {
    let path = absolute(path);
    let mount = mounted_at(&path).map_err(|e| Error::io("read mounts for", &path, e))?;
    if !mount.is_some_and(|m| m.fs_type == "fuse" || m.fs_type.starts_with("fuse.")) {
        return Ok(Place::Directory(path));
    }
    match extended_attribute(&path, VOLUME_ATTRIBUTE) {
        Ok(Some(dir)) => Ok(Place::Mounted(PathBuf::from(OsString::from_vec(dir)))),
        Ok(None) => Ok(Place::Directory(path)),
        Err(e) if is_not_connected(&e) => Ok(Place::Dead(path)),
        Err(e) => Err(Error::io("read attributes of", &path, e)),
    }
}

/// What the lock of a volume says while it is mounted on `mountpoint`, and after a kill.
pub(super) fn purpose(mountpoint: &Path) -> String {
    format!("mounted on {}", mountpoint.display())
}

/// True if `entry` is a mount of the volume in `dir`, alive or dead. One with a source of its own
/// is known by the volume's lock, until something else has opened the volume.
fn is_of(entry: &MountEntry, dir: &Path) -> bool {
    is_mount_of(entry, dir)
        || is_mount_named(entry, None)
            && Volume::last_purpose(dir).is_some_and(|last| last == purpose(&entry.mountpoint))
}

/// True if what is mounted on `mountpoint` is the volume in the directory `dir`, alive or dead, or
/// one that is called `fs_name`, too.
///
/// # Errors
/// `Io` when `/proc` is not readable.
pub(super) fn is_mounted_there(
    dir: &Path,
    mountpoint: &Path,
    fs_name: Option<&str>,
) -> Result<bool> {
    let entry = mounted_at(mountpoint).map_err(|e| Error::io("read mounts for", mountpoint, e))?;
    let dir = absolute(dir);
    Ok(entry.is_some_and(|entry| {
        is_of(&entry, &dir) || fs_name.is_some_and(|name| is_mount_named(&entry, Some(name)))
    }))
}

/// Where the volume in the directory `dir` is still mounted although its process is gone.
///
/// # Errors
/// `Io` when `/proc` is not readable.
pub(super) fn dead_mount_of(dir: &Path) -> Result<Option<PathBuf>> {
    let all = mounts().map_err(|e| Error::io("read mounts for", dir, e))?;
    for entry in all.into_iter().filter(|entry| is_of(entry, dir)) {
        if let Place::Dead(mountpoint) = place(&entry.mountpoint)? {
            return Ok(Some(mountpoint));
        }
    }
    Ok(None)
}

/// The volume directory that `path`, a volume directory or a mountpoint, stands for.
///
/// # Errors
/// `Mount` when it is a mountpoint whose process is gone.
pub(super) fn volume_dir(path: &Path) -> Result<PathBuf> {
    match place(path)? {
        Place::Directory(dir) | Place::Mounted(dir) => Ok(dir),
        Place::Dead(path) => Err(dead(&path)),
    }
}

/// The mountpoint of a volume that `path` lies below.
///
/// # Errors
/// `Invalid` when there is none; `Mount` when its process is gone.
pub(super) fn above(path: &Path) -> Result<PathBuf> {
    let absolute = absolute(path);
    for dir in absolute.ancestors() {
        match place(dir)? {
            Place::Mounted(_) => return Ok(dir.to_owned()),
            Place::Dead(path) => return Err(dead(&path)),
            Place::Directory(_) => {}
        }
    }
    Err(Error::invalid(format!(
        "{} does not lie below the mountpoint of a volume; name the volume before the path",
        path.display()
    )))
}

/// The answer when `path` is mounted but nobody serves it.
pub(super) fn dead(path: &Path) -> Error {
    mount_error(path, "is mounted, but its process is gone; run stratafs umount on it first")
}

fn mount_error(path: &Path, what: &str) -> Error {
    Error::Mount { what: format!("Mountpoint {} {what}", path.display()) }
}

/// `path` without symlinks, as far as it exists. Does not touch what is mounted on it if avoidable.
pub(super) fn absolute(path: &Path) -> PathBuf {
    if let Ok(path) = fs::canonicalize(path) {
        return path;
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (path.parent().map(fs::canonicalize), path.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => path,
    }
}

/// Checks that a mount on `mountpoint` would neither lie in `dir` nor hide it.
///
/// # Errors
/// `Mount` that names `what` is in the way.
pub(super) fn apart(mountpoint: &Path, dir: &Path, what: &str) -> Result<()> {
    if mountpoint.starts_with(dir) {
        return Err(mount_error(mountpoint, &format!("is inside {what} {}", dir.display())));
    }
    if dir.starts_with(mountpoint) {
        return Err(mount_error(mountpoint, &format!("would hide {what} {}", dir.display())));
    }
    Ok(())
}

/// The answer when `mountpoint` is in use: by whom, and what to do.
pub(super) fn busy(mountpoint: &Path) -> Error {
    let mut holders = holders(Path::new("/proc"), mountpoint);
    let more = if holders.len() > HOLDERS_MAX { " and others" } else { "" };
    holders.truncate(HOLDERS_MAX);
    let by = if holders.is_empty() {
        String::new()
    } else {
        format!(" by {}{more}", holders.join(", "))
    };
    Error::Busy {
        what: format!(
            "Mountpoint {} is in use{by}; end that, or detach it with stratafs umount --lazy",
            mountpoint.display()
        ),
    }
}

/// Names and numbers of processes that are in, or have open, something below `mountpoint`: as far
/// as `proc` lets us see, and one more than a message names at most.
fn holders(proc: &Path, mountpoint: &Path) -> Vec<String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(proc) else { return found };
    for entry in entries.flatten() {
        let pid = entry.file_name();
        let is_pid = pid.as_bytes().iter().all(u8::is_ascii_digit);
        if is_pid && pid != OsStr::new(&own) && holds(&entry.path(), mountpoint) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push(format!("{} (process {})", name.trim_end(), pid.display()));
            if found.len() > HOLDERS_MAX {
                break;
            }
        }
    }
    found
}

fn holds(process: &Path, mountpoint: &Path) -> bool {
    let below = |link: &Path| fs::read_link(link).is_ok_and(|path| path.starts_with(mountpoint));
    ["cwd", "root", "exe"].iter().any(|link| below(&process.join(link)))
        || fs::read_dir(process.join("fd"))
            .is_ok_and(|links| links.flatten().any(|link| below(&link.path())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_directory_is_itself_and_links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap();
        symlink(&real, real.join("link")).unwrap();
        assert_eq!(place(&real.join("link")).unwrap(), Place::Directory(real.clone()));
        assert_eq!(absolute(&real.join("link/missing")), real.join("missing"));
        assert!(absolute(Path::new("missing/too")).is_absolute());
    }

    #[test]
    fn a_mountpoint_and_a_shard_lie_apart() {
        let apart = |dir| apart(Path::new("/mnt/a"), Path::new(dir), "the shard directory");
        assert!(apart("/mnt/ab").is_ok() && apart("/srv").is_ok());
        assert!(apart("/mnt").unwrap_err().to_string().contains("is inside"));
        assert!(apart("/mnt/a").unwrap_err().to_string().contains("is inside"));
        let error = apart("/mnt/a/b").unwrap_err();
        assert!(error.to_string().contains("would hide") && error.exit_code() == 7);
    }

    #[test]
    fn holders_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for pid in 1..=9 {
            let process = dir.path().join(pid.to_string());
            fs::create_dir_all(process.join("fd")).unwrap();
            fs::write(process.join("comm"), "vim\n").unwrap();
            let target = if pid == 1 { "/mnt2/f" } else { "/mnt/f" };
            let link = if pid == 2 { "cwd" } else { "fd/3" };
            symlink(target, process.join(link)).unwrap();
        }
        let found = holders(dir.path(), Path::new("/mnt"));
        assert_eq!(found.len(), HOLDERS_MAX + 1);
        assert!(found.iter().all(|h| h.starts_with("vim (process ") && !h.contains(" 1)")));
        assert!(holders(dir.path(), Path::new("/other")).is_empty());
    }
}
