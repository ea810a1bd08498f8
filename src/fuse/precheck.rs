//! What can be wrong before mounting, each with one clear sentence.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::MountOptions;
use crate::error::{Error, Result};
use crate::sys::mount::{FUSE_DEVICE, mounted_at};

/// The mountpoint, absolute and without symlinks, if it can be mounted on.
pub(super) fn mountpoint(options: &MountOptions, volume: &Path) -> Result<PathBuf> {
    let given = options.mountpoint.display();
    let path = fs::canonicalize(&options.mountpoint).map_err(|e| unreachable(options, &e))?;
    let at =
        mounted_at(&path).map_err(|e| Error::io("read", "/proc/self/mountinfo".as_ref(), e))?;
    if at.is_some_and(|entry| entry.fs_type == "fuse.stratafs") {
        return Err(Error::Busy { what: format!("A volume is mounted on {given} already") });
    }
    let metadata = fs::metadata(&path).map_err(|e| unreachable(options, &e))?;
    if !metadata.is_dir() {
        return Err(refuse(format!("Mountpoint {given} is not a directory")));
    }
    let volume = fs::canonicalize(volume).unwrap_or_else(|_| volume.to_owned());
    if path.starts_with(&volume) || volume.starts_with(&path) {
        return Err(refuse(format!(
            "Mountpoint {given} and volume directory {} lie inside each other",
            volume.display()
        )));
    }
    let mut entries = fs::read_dir(&path).map_err(|e| unreachable(options, &e))?;
    if !options.nonempty && entries.next().is_some() {
        return Err(refuse(format!(
            "Mountpoint {given} is not empty; mount on an empty directory, or with -o nonempty"
        )));
    }
    Ok(path)
}

/// Checks that the kernel has FUSE and lets us use it.
pub(super) fn fuse_device() -> Result<()> {
    match OpenOptions::new().read(true).write(true).open(FUSE_DEVICE) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(refuse(format!(
            "FUSE is not available: {FUSE_DEVICE} is missing; load it with `modprobe fuse`"
        ))),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(refuse(format!(
            "FUSE is not available: {FUSE_DEVICE} may not be opened; in a container, pass it with \
             `--device {FUSE_DEVICE} --cap-add SYS_ADMIN`"
        ))),
        Err(e) => Err(refuse(format!("FUSE is not available: {FUSE_DEVICE} does not open: {e}"))),
    }
}

/// Checks that somebody can mount for us.
pub(super) fn helper_is_there() -> Result<()> {
    match helper() {
        Some(_) => Ok(()),
        None => Err(refuse(
            "Only root may mount here: fusermount3 is missing; install the package fuse3"
                .to_owned(),
        )),
    }
}

/// The set-user-id program that mounts for users.
pub(super) fn helper() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).chain(usual).collect();
    let candidates = ["fusermount3", "fusermount"];
    candidates.iter().flat_map(|name| dirs.iter().map(move |d| d.join(name))).find(|p| p.is_file())
}

fn unreachable(options: &MountOptions, cause: &io::Error) -> Error {
    let given = options.mountpoint.display();
    refuse(match cause.kind() {
        io::ErrorKind::NotFound => {
            format!("Mountpoint {given} does not exist; make it with `mkdir -p {given}`")
        }
        io::ErrorKind::NotConnected | io::ErrorKind::ConnectionAborted => format!(
            "Mountpoint {given} holds a mount whose program died; remove it with \
             `stratafs umount {given}`"
        ),
        _ => format!("Mountpoint {given} is not usable: {cause}"),
    })
}

fn refuse(what: String) -> Error {
    Error::Mount { what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mountpoint_path: &Path, volume: &Path, nonempty: bool) -> Result<PathBuf> {
        let mut options = MountOptions::new(mountpoint_path, "test");
        options.nonempty = nonempty;
        mountpoint(&options, volume)
    }

    fn refusal(done: Result<PathBuf>) -> String {
        match done {
            Err(Error::Mount { what }) => what,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    #[test]
    fn only_an_empty_directory_outside_the_volume_is_a_mountpoint() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (volume, empty, full) = (root.join("v"), root.join("empty"), root.join("full"));
        for path in [&volume, &volume.join("inside"), &empty, &full] {
            fs::create_dir(path).unwrap();
        }
        fs::write(full.join("file"), "x").unwrap();

        assert_eq!(check(&empty, &volume, false).unwrap(), empty);
        assert_eq!(check(&full, &volume, true).unwrap(), full);
        assert!(refusal(check(&full, &volume, false)).contains("is not empty"));
        assert!(refusal(check(&full.join("file"), &volume, false)).contains("not a directory"));
        assert!(refusal(check(&root.join("none"), &volume, false)).contains("does not exist"));
        for path in [&volume, &volume.join("inside"), &root] {
            assert!(refusal(check(path, &volume, true)).contains("inside each other"));
        }
    }
}
