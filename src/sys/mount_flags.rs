//! The mount options that every filesystem has, as mount(2) knows them.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{
    MS_DIRSYNC, MS_LAZYTIME, MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_RDONLY,
    MS_RELATIME, MS_REMOUNT, MS_STRICTATIME, MS_SYNCHRONOUS, c_ulong,
};

/// Follow no symbolic links; not in every libc.
const MS_NOSYMFOLLOW: c_ulong = 256;
const ATIMES: c_ulong = MS_NOATIME | MS_RELATIME | MS_STRICTATIME;

/// Option, what it sets, what it takes away.
const OPTIONS: [(&str, c_ulong, c_ulong); 25] = [
    ("ro", MS_RDONLY, 0),
    ("rw", 0, MS_RDONLY),
    ("nosuid", MS_NOSUID, 0),
    ("suid", 0, MS_NOSUID),
    ("nodev", MS_NODEV, 0),
    ("dev", 0, MS_NODEV),
    ("noexec", MS_NOEXEC, 0),
    ("exec", 0, MS_NOEXEC),
    ("sync", MS_SYNCHRONOUS, 0),
    ("async", 0, MS_SYNCHRONOUS),
    ("dirsync", MS_DIRSYNC, 0),
    ("noatime", MS_NOATIME, ATIMES),
    ("atime", 0, MS_NOATIME),
    ("nodiratime", MS_NODIRATIME, 0),
    ("diratime", 0, MS_NODIRATIME),
    ("relatime", MS_RELATIME, ATIMES),
    ("norelatime", 0, MS_RELATIME),
    ("strictatime", MS_STRICTATIME, ATIMES),
    ("nostrictatime", 0, MS_STRICTATIME),
    ("lazytime", MS_LAZYTIME, 0),
    ("nolazytime", 0, MS_LAZYTIME),
    ("nosymfollow", MS_NOSYMFOLLOW, 0),
    ("symfollow", 0, MS_NOSYMFOLLOW),
    ("silent", 0, 0),
    ("loud", 0, 0),
];

/// A set of generic mount options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountFlags(c_ulong);

impl MountFlags {
    /// Set-user-id bits and device nodes mean nothing, as users get it.
    pub const FOR_USERS: Self = Self(MS_NOSUID | MS_NODEV);

    /// Applies an option; false if it is no generic one.
    pub fn apply(&mut self, option: &str) -> bool {
        let Some((_, set, clear)) = OPTIONS.iter().find(|(name, ..)| *name == option) else {
            return false;
        };
        self.0 = self.0 & !clear | set;
        true
    }

    /// `option` is in force.
    #[must_use]
    pub fn has(self, option: &str) -> bool {
        let mut with = self;
        with.apply(option) && with == self
    }

    /// The bits of mount(2).
    pub(super) fn bits(self) -> c_ulong {
        self.0
    }
}

/// Gives what is mounted at `mountpoint` other generic options: the mountpoint and, for read-only
/// and `sync`, the whole filesystem.
///
/// # Errors
/// What mount(2) says; `EBUSY` when it is to become read-only and files are open for writing.
pub fn remount(mountpoint: &Path, flags: MountFlags) -> io::Result<()> {
    let target = CString::new(mountpoint.as_os_str().as_bytes())?;
    let none = std::ptr::null();
    // SAFETY: the target is a NUL-terminated string that outlives the call; mount(2) reads the
    // other three only when something new is mounted.
    let done =
        unsafe { libc::mount(none, target.as_ptr(), none, flags.bits() | MS_REMOUNT, none.cast()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(options: &[&str]) -> MountFlags {
        let mut flags = MountFlags::default();
        assert!(options.iter().all(|option| flags.apply(option)), "{options:?}");
        flags
    }

    #[test]
    fn the_last_option_counts() {
        assert_eq!(flags(&["ro", "noexec", "rw"]), flags(&["noexec"]));
        assert_eq!(flags(&["noatime", "strictatime", "relatime"]).bits(), MS_RELATIME);
        assert_eq!(flags(&["nodev", "nosuid", "dev", "suid"]), MountFlags::default());
        assert_eq!(flags(&["nosuid", "nodev"]), MountFlags::FOR_USERS);
    }

    #[test]
    fn a_set_knows_its_options() {
        let set = flags(&["ro", "sync"]);
        assert!(set.has("ro") && set.has("sync") && set.has("exec"));
        assert!(!set.has("rw") && !set.has("noexec") && !set.has("bogus"));
    }
}
