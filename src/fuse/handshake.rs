//! What kernel and file system agree on when a mount begins.

use std::io;

use fuser::{InitFlags, KernelConfig};
use log::info;

/// Bytes per write request: more was slower, and 256 pages is what the kernel allows by default.
pub(super) const WRITE_BYTES_MAX: u32 = 1024 * 1024;

/// What we ask the kernel for, where it can.
///
/// `EXPLICIT_INVAL_DATA`: only this kernel changes files, so pages never go stale behind its back,
/// and `vfs` keeps cached and direct handles apart. `HANDLE_KILLPRIV_V2`: `vfs` clears set-id bits
/// itself, or the kernel would ask for `security.capability` before every write. `DONT_MASK`: a
/// default ACL takes the umask's place. `EXPORT_SUPPORT`: file handles that NFS servers keep name a
/// node by its number, which `vfs` finds without a table, after a remount too. Not
/// `WRITEBACK_CACHE` (slower for small files, and data would be older than a commit says), not
/// `SETXATTR_EXT` (fuser panics).
const WANTED: [InitFlags; 13] = [
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    InitFlags::FUSE_BIG_WRITES,
    InitFlags::FUSE_EXPORT_SUPPORT,
];

/// Asks for all of that.
pub(super) fn negotiate(config: &mut KernelConfig) -> io::Result<()> {
    for flag in WANTED {
        if config.add_capabilities(flag).is_err() {
            info!("Kernel lacks a FUSE feature flag={flag:?}");
        }
    }
    match config.set_max_write(WRITE_BYTES_MAX) {
        Ok(_) => Ok(()),
        Err(nearest) => Err(io::Error::other(format!("write requests are bound to {nearest}"))),
    }
}
