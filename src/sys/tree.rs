//! Trees of files as the kernel shows them: what `std` has no call for.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Name and value of an extended attribute.
pub type Attribute = (Vec<u8>, Vec<u8>);

/// The kernel's bounds of a list of names and of a value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_BYTES_MAX: usize = 64 * 1024;
/// Most lists and values are shorter: then one call is enough.
const XATTR_BYTES_FIRST: usize = 256;

/// All extended attributes of `path` itself, ACLs with them. What disappears meanwhile is left
/// out; a file system without any has none.
///
/// # Errors
/// What `llistxattr` and `lgetxattr` say.
pub fn attributes(path: &Path) -> io::Result<Vec<Attribute>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let list = grown(|buffer| {
        // SAFETY: the path ends with NUL; the buffer has the length that is passed.
        unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    });
    let mut found = Vec::new();
    for name in list?.unwrap_or_default().split_inclusive(|b| *b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let value = grown(|buffer| {
            // SAFETY: both strings end with NUL; the buffer has the length that is passed.
            unsafe {
                let value = buffer.as_mut_ptr().cast();
                libc::lgetxattr(path.as_ptr(), name.as_ptr(), value, buffer.len())
            }
        });
        if let Some(value) = value? {
            found.push((name.to_bytes().to_vec(), value));
        }
    }
    Ok(found)
}

/// What `call` puts into a buffer, which grows if it does not fit; `None` if there is nothing.
fn grown(mut call: impl FnMut(&mut [u8]) -> isize) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; XATTR_BYTES_FIRST];
    loop {
        if let Ok(len) = usize::try_from(call(&mut buffer)) {
            buffer.truncate(len);
            return Ok(Some(buffer));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ERANGE) if buffer.len() < XATTR_BYTES_MAX => {
                buffer.resize(XATTR_BYTES_MAX, 0);
            }
            Some(libc::ENODATA | libc::ENOTSUP) => return Ok(None),
            _ => return Err(error),
        }
    }
}

/// Sets an extended attribute of `path` itself.
///
/// # Errors
/// What `lsetxattr` says.
pub fn set_attribute(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    let (path, name) = (CString::new(path.as_os_str().as_bytes())?, CString::new(name)?);
    // SAFETY: both strings end with NUL; the value has the length that is passed.
    checked(unsafe {
        libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    })
}

/// Removes an extended attribute of `path` itself.
///
/// # Errors
/// What `lremovexattr` says.
pub fn remove_attribute(path: &Path, name: &[u8]) -> io::Result<()> {
    let (path, name) = (CString::new(path.as_os_str().as_bytes())?, CString::new(name)?);
    // SAFETY: both strings end with NUL.
    checked(unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) })
}

/// Makes a pipe, socket or device node; `mode` has its kind, too.
///
/// # Errors
/// What `mknod` says.
pub fn make_node(path: &Path, mode: u32, device: u32) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends with NUL.
    checked(unsafe { libc::mknod(path.as_ptr(), mode, wide_device(device)) })
}

/// Sets the times of `path` itself: last access and last change, in seconds and nanoseconds.
///
/// # Errors
/// What `utimensat` says.
pub fn set_times(path: &Path, times: [(i64, u32); 2]) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let spec = |(secs, nanos): (i64, u32)| libc::timespec {
        tv_sec: secs,
        tv_nsec: libc::c_long::from(nanos),
    };
    let times = times.map(spec);
    // SAFETY: the path ends with NUL; `times` has the two entries that are read.
    checked(unsafe {
        libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW)
    })
}

/// Where the next bytes of `file` that are no hole lie, from `offset` on; `None` if none do.
/// A file system that does not tell shows everything as bytes.
///
/// # Errors
/// What `lseek` says.
pub fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    seek(file, offset, libc::SEEK_DATA)
}

/// Where the next hole of `file` begins, from `offset` on; its end counts as one.
///
/// # Errors
/// What `lseek` says.
pub fn next_hole(file: &File, offset: u64) -> io::Result<Option<u64>> {
    seek(file, offset, libc::SEEK_HOLE)
}

fn seek(file: &File, offset: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    let from = i64::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
    let found = unsafe { libc::lseek(file.as_raw_fd(), from, whence) };
    if let Ok(found) = u64::try_from(found) {
        return Ok(Some(found));
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENXIO) { Ok(None) } else { Err(error) }
}

/// A device number as file systems store it, in 32 bits, from what `stat` says.
#[must_use]
pub fn narrow_device(device: u64) -> u32 {
    let (major, minor) = (libc::major(device), libc::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// What `stat` says of a device number as file systems store it.
#[must_use]
pub fn wide_device(device: u32) -> u64 {
    libc::makedev(device >> 8 & 0xfff, (device & 0xff) | (device >> 12 & 0xf_ff00))
}

fn checked(answer: libc::c_int) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_come_back() {
        for (major, minor) in [(1, 3), (8, 17), (259, 70_000), (4095, 0xf_ffff)] {
            let wide = libc::makedev(major, minor);
            assert_eq!(wide_device(narrow_device(wide)), wide);
        }
        assert_eq!(narrow_device(libc::makedev(8, 17)), 0x811);
    }

    #[test]
    fn attributes_of_any_length_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "x").unwrap();
        assert_eq!(attributes(&path).unwrap(), []);
        let long = vec![7; 2000];
        set_attribute(&path, b"user.a", b"").unwrap();
        set_attribute(&path, b"user.long", &long).unwrap();
        let mut found = attributes(&path).unwrap();
        found.sort();
        assert_eq!(found, [(b"user.a".to_vec(), vec![]), (b"user.long".to_vec(), long)]);
        remove_attribute(&path, b"user.a").unwrap();
        assert_eq!(attributes(&path).unwrap().len(), 1);
        assert!(attributes(&dir.path().join("none")).is_err());
    }
}
