//! File systems below us: room, durability of names, locks.

use std::ffi::CString;
use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Room in a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Capacity.
    pub total_bytes: u64,
    /// What an unprivileged process may still write.
    pub free_bytes: u64,
    /// What nobody uses, reserved or not.
    pub unused_bytes: u64,
    /// Tells file systems apart.
    pub device: u64,
}

/// Room in the file system that holds `path`.
///
/// # Errors
/// What `statvfs` says, as when the path does not exist.
pub fn space(path: &Path) -> io::Result<DiskSpace> {
    let device = std::fs::metadata(path)?.dev();
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a NUL-terminated string and `stat` is room for one `statvfs`; both outlive
    // the call.
    let answer = unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has filled the structure.
    let stat = unsafe { stat.assume_init() };
    let unit = stat.f_frsize;
    Ok(DiskSpace {
        total_bytes: stat.f_blocks.saturating_mul(unit),
        free_bytes: stat.f_bavail.saturating_mul(unit),
        unused_bytes: stat.f_bfree.saturating_mul(unit),
        device,
    })
}

/// Gives `file` blocks for `len` bytes from `offset`, beyond its end too, without changing its
/// length: writing there cannot meet a full disk.
///
/// # Errors
/// What `fallocate` says; `Unsupported` where the file system has none.
pub fn reserve(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let number =
        |n: u64| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (offset, len) = (number(offset)?, number(len)?);
    // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
    let answer =
        unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, offset, len) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens a file for writing past the page cache; offsets, lengths and memory must be aligned to
/// 4096 bytes from now on.
///
/// # Errors
/// What `open` says: `InvalidInput` where the file system has no O_DIRECT.
pub fn open_direct(path: &Path) -> io::Result<File> {
    File::options().write(true).custom_flags(libc::O_DIRECT).open(path)
}

/// Lets the page cache forget what it holds of `file` and is not dirty.
///
/// # Errors
/// What `posix_fadvise` says.
pub fn drop_cached(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
    let failed = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    if failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(failed)) }
}

/// Opens a file for reading: no symlink as its last name, and no waiting if it is a pipe.
///
/// # Errors
/// What `open` says.
pub fn open_no_follow(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// Makes the names in directory `dir` durable.
///
/// # Errors
/// What `open` or `fsync` say.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes everything durable in the file system that holds `path`.
///
/// # Errors
/// What `open` or `syncfs` say.
pub fn sync_all_of(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: the descriptor is open for as long as `file` lives; no memory is passed.
    let answer = unsafe { libc::syncfs(file.as_raw_fd()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes `path` a file with these bytes, whole or not at all, durable on return.
///
/// # Errors
/// What writing, syncing and renaming say; the old file, if any, is then untouched.
pub fn write_file_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = path.with_added_extension("tmp");
    let mut file = File::create(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temp, path)?;
    match path.parent() {
        Some(dir) => sync_dir(dir),
        None => Ok(()),
    }
}

/// Takes an exclusive `flock` on `file`; false if somebody else has it. The lock ends when the file
/// is closed, also by a crash.
///
/// # Errors
/// What `flock` says.
pub fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// True if the disk or the quota is used up.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_of_a_real_directory_and_of_none() {
        let dir = tempfile::tempdir().unwrap();
        let space = space(dir.path()).unwrap();
        assert!(space.total_bytes >= space.free_bytes && space.free_bytes > 0);
        assert!(super::space(&dir.path().join("none")).is_err());
        sync_dir(dir.path()).unwrap();
    }

    #[test]
    fn lock_is_exclusive_until_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = File::create(&path).unwrap();
        assert!(try_lock(&first).unwrap());
        let second = File::create(&path).unwrap();
        assert!(!try_lock(&second).unwrap());
        drop(first);
        assert!(try_lock(&second).unwrap());
    }

    #[test]
    fn full_disks_and_quotas_are_told_from_the_rest() {
        assert!(is_full(&io::Error::from_raw_os_error(libc::ENOSPC)));
        assert!(is_full(&io::Error::from_raw_os_error(libc::EDQUOT)));
        assert!(!is_full(&io::Error::from_raw_os_error(libc::EIO)));
    }
}
