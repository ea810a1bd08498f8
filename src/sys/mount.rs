//! Mounting, unmounting and what is mounted where.

use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::mount_flags::MountFlags;

/// The FUSE device.
pub const FUSE_DEVICE: &str = "/dev/fuse";

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// `major:minor` of the mounted file system.
    pub device: String,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Type, as in `fuse.stratafs`.
    pub fs_type: String,
    /// Source, as given when mounting.
    pub source: String,
    /// Options of this mountpoint and of the file system, separated by commas.
    pub options: String,
}

/// What a direct FUSE mount asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct FuseFlags {
    /// Users other than the mounting one may use it.
    pub allow_other: bool,
    /// The kernel checks permissions.
    pub default_permissions: bool,
    /// What every file system has.
    pub generic: MountFlags,
}

/// All mounts of this process's namespace, in mount order.
///
/// # Errors
/// When `/proc` is not readable.
pub fn mounts() -> io::Result<Vec<MountEntry>> {
    let text = fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|b| *b == b'\n').filter_map(parse_line).collect())
}

/// The topmost mount at exactly `path` (absolute, without symlinks).
///
/// # Errors
/// When `/proc` is not readable.
pub fn mounted_at(path: &Path) -> io::Result<Option<MountEntry>> {
    Ok(mounts()?.into_iter().rfind(|entry| entry.mountpoint == path))
}

/// `id parent major:minor root mountpoint options [optional…] - type source super-options`
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let dash = fields.iter().position(|f| *f == b"-")?;
    let text = |at: usize| Some(unescape(fields.get(at)?));
    Some(MountEntry {
        device: text(2)?.into_string().ok()?,
        mountpoint: text(4)?.into(),
        fs_type: text(dash + 1)?.into_string().ok()?,
        source: text(dash + 2)?.to_string_lossy().into_owned(),
        options: [5, dash + 3]
            .map(|at| fields.get(at).map_or_else(Vec::new, |f| f.to_vec()))
            .map(|options| String::from_utf8_lossy(&options).into_owned())
            .join(","),
    })
}

/// Undoes the kernel's `\040` for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        let code = code.and_then(|d| u8::from_str_radix(d, 8).ok());
        match (byte, code) {
            (b'\\', Some(code)) => {
                out.push(code);
                rest = &tail[3..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

/// Mounts a FUSE file system with mount(2) and returns the descriptor its requests come from.
/// `mountpoint` is an existing directory; its mount shows `source` and the type `fuse.SUBTYPE`.
///
/// # Errors
/// What open(2) and mount(2) say; `EPERM` when the caller has to go through `fusermount3`.
pub fn mount_fuse(
    source: &str,
    subtype: &str,
    mountpoint: &Path,
    flags: FuseFlags,
) -> io::Result<OwnedFd> {
    let device: File = OpenOptions::new().read(true).write(true).open(FUSE_DEVICE)?;
    let (uid, gid) = effective_ids();
    let mut data = format!("fd={},rootmode=40000,user_id={uid},group_id={gid}", device.as_raw_fd());
    for (wanted, option) in
        [(flags.allow_other, ",allow_other"), (flags.default_permissions, ",default_permissions")]
    {
        if wanted {
            data.push_str(option);
        }
    }
    let source = CString::new(source)?;
    let target = CString::new(mountpoint.as_os_str().as_bytes())?;
    let fs_type = CString::new(format!("fuse.{subtype}"))?;
    let data = CString::new(data)?;
    // SAFETY: the four pointers are NUL-terminated strings that outlive the call.
    let done = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            fs_type.as_ptr(),
            flags.generic.bits(),
            data.as_ptr().cast::<libc::c_void>(),
        )
    };
    if done == 0 { Ok(device.into()) } else { Err(io::Error::last_os_error()) }
}

/// Unmounts what is mounted at `mountpoint`; `lazy` detaches it even while it is in use.
///
/// # Errors
/// What umount2(2) says; `EBUSY` while files are open.
pub fn unmount(mountpoint: &Path, lazy: bool) -> io::Result<()> {
    let target = CString::new(mountpoint.as_os_str().as_bytes())?;
    let flags = libc::UMOUNT_NOFOLLOW | if lazy { libc::MNT_DETACH } else { 0 };
    // SAFETY: `target` is a NUL-terminated string that outlives the call.
    let done = unsafe { libc::umount2(target.as_ptr(), flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// User and group this process acts as.
#[must_use]
pub fn effective_ids() -> (u32, u32) {
    // SAFETY: both calls take nothing and cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mountinfo_line_is_read_with_its_escapes() {
        let line = b"36 35 0:98 / /mnt/with\\040space rw,noatime shared:1 - fuse.x /a\\134b rw";
        let entry = parse_line(line).unwrap();
        assert_eq!(entry.device, "0:98");
        assert_eq!(entry.mountpoint, Path::new("/mnt/with space"));
        assert_eq!(entry.fs_type, "fuse.x");
        assert_eq!(entry.source, "/a\\b");
        assert_eq!(entry.options, "rw,noatime,rw");
    }

    #[test]
    fn broken_lines_are_no_mounts() {
        for line in [&b""[..], b"36 35 0:98 / /mnt rw", b"- x", b"1 2 3 4 5 - "] {
            assert_eq!(parse_line(line), None, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn proc_is_mounted_at_proc() {
        assert_eq!(mounted_at(Path::new("/proc")).unwrap().unwrap().fs_type, "proc");
        assert_eq!(mounted_at(Path::new("/proc/self")).unwrap(), None);
    }
}
