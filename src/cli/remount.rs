//! `mount -o remount,…`: other options for what is mounted.
//!
//! Guarantees: what is not asked for stays; when it has become read-only, everything is durable; on
//! a failure the mount is as it was. Relies on: the kernel, which refuses to make a filesystem
//! read-only while files are open for writing. Does not: change options that are not generic.

use std::io;
use std::path::Path;

use serde_json::json;

use super::args::MountArgs;
use super::mount_options::remounted;
use super::mountpoint::{Place, absolute, dead, place};
use super::output::Output;
use crate::control::{Client, RemountModes, RemountStep, Request};
use crate::error::{Error, Result};
use crate::fuse::is_mount_of;
use crate::sys::mount::{MountEntry, mounted_at};
use crate::sys::mount_flags::{MountFlags, remount};

/// Carries out `mount VOLUME DIR -o remount,…`.
///
/// # Errors
/// `Mount` when the volume is not mounted there; `Busy` while files are open for writing;
/// `ReadOnly` when it cannot be written; what the last commit before failed with.
pub(super) fn run(args: &MountArgs, output: Output) -> Result<()> {
    let mountpoint = absolute(&args.mountpoint);
    let (entry, dir) = mounted(&args.volume, &mountpoint)?;
    let mut flags = remounted(&entry.options, &args.options);
    if args.read_only {
        flags.apply("ro");
    }
    let modes = RemountModes {
        read_only: flags.has("ro"),
        sync: flags.has("sync") || flags.has("dirsync"),
    };
    let ask = |step| match Client::connect(&dir)? {
        Some(client) => client.call(&Request::Remount(step), &mut |text| output.progress(text)),
        None => Err(Error::Busy {
            what: format!(
                "The process that has {} mounted on {} does not listen",
                dir.display(),
                mountpoint.display()
            ),
        }),
    };
    ask(RemountStep::Prepare(modes))?;
    remount(&mountpoint, flags).map_err(|e| refused(&mountpoint, flags, &e))?;
    if let Err(error) = ask(RemountStep::Done(modes)) {
        let before = remounted(&entry.options, &[]);
        // Only a command that changes the volume is a reason to take it back.
        if matches!(error, Error::Remote { code: 6, .. }) {
            remount(&mountpoint, before).map_err(|e| refused(&mountpoint, before, &e))?;
        }
        return Err(error);
    }
    told(&mountpoint, modes, output)
}

/// The mount at `mountpoint` and its volume directory, if it is what `volume` names: the volume
/// directory, or the source that the kernel shows.
fn mounted(volume: &Path, mountpoint: &Path) -> Result<(MountEntry, std::path::PathBuf)> {
    let at = mounted_at(mountpoint).map_err(|e| Error::io("read mounts for", mountpoint, e))?;
    let (Some(entry), Place::Mounted(dir)) = (at, place(mountpoint)?) else {
        if let Place::Dead(path) = place(mountpoint)? {
            return Err(dead(&path));
        }
        let place = mountpoint.display();
        return Err(Error::Mount {
            what: format!("Nothing to remount: no volume is mounted on {place}"),
        });
    };
    let named = absolute(volume);
    if named == dir || is_mount_of(&entry, &named) || Path::new(&entry.source) == volume {
        return Ok((entry, dir));
    }
    let (place, dir, named) = (mountpoint.display(), dir.display(), volume.display());
    Err(Error::Mount { what: format!("On {place} volume {dir} is mounted, not {named}") })
}

fn refused(mountpoint: &Path, flags: MountFlags, cause: &io::Error) -> Error {
    let place = mountpoint.display();
    match cause.kind() {
        io::ErrorKind::ResourceBusy if flags.has("ro") => Error::Busy {
            what: format!(
                "{place} cannot become read-only: files on it are open for writing, or were \
                 deleted while open; `fuser -vm {place}` names who has them"
            ),
        },
        io::ErrorKind::PermissionDenied => {
            Error::NotPermitted { what: format!("Only root may remount {place}") }
        }
        _ => Error::Mount { what: format!("Cannot remount {place}: {cause}") },
    }
}

fn told(mountpoint: &Path, modes: RemountModes, output: Output) -> Result<()> {
    let place = mountpoint.display().to_string();
    if output.json() {
        output.document(&json!({ "mountpoint": place, "read_only": modes.read_only }))?;
    }
    let how = if modes.read_only { "read-only" } else { "read-write" };
    output.detail(&format!("{place} is mounted {how} now"));
    Ok(())
}
