//! Opening, reading and writing files.

use std::sync::Arc;

use super::attrs::SET_ID_BITS;
use super::handles::Handle;
use super::names::{What, live};
use super::{Caller, Entry, NewMode, Node, SetAttr, Vfs};
use crate::classify::is_rsync_temp;
use crate::error::{Error, Result};
use crate::types::{At, FileKind};
use crate::volume::Seek;

/// Most bytes one copy request moves: it is one change of metadata, and copiers ask again.
const COPY_BYTES_MAX: u64 = 1 << 30;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenHow {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// To lose its content first.
    pub truncate: bool,
}

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its number.
    pub handle: u64,
    /// The kernel is to pass reads and writes on as they come, past its page cache.
    pub direct: bool,
    /// The kernel may keep the pages it has.
    pub keep_cache: bool,
}

/// The fallocate modes we have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Room for the range.
    Reserve {
        /// The file does not grow.
        keep_size: bool,
    },
    /// The range becomes a hole; the file does not grow.
    Punch,
    /// The range becomes zero.
    Zero {
        /// The file does not grow.
        keep_size: bool,
    },
}

impl Vfs {
    /// Opens a file.
    ///
    /// # Errors
    /// `ReadOnly`, `IsDirectory`, `NotFound`, `Stale`; faults.
    pub fn open(&self, node: Node, how: OpenHow, caller: Caller) -> Result<Opened> {
        if how.write || how.truncate {
            self.writable(node)?;
        }
        let (at, ino) = self.place(node)?;
        // Says so if it is no regular file.
        let file = self.volume.open_file(at, ino)?;
        if how.truncate {
            self.setattr(node, &SetAttr { size: Some(0), ..SetAttr::default() }, caller)?;
        }
        let wants_direct = how.write && !how.read;
        let (handle, direct) = self.handles.insert(file, how.write, wants_direct);
        if how.write {
            // What is written past its pages makes the kernel drop them. Only now: a giver that was
            // under way has been waited for.
            self.given.forget(node);
        }
        Ok(Opened { handle, direct, keep_cache: !how.truncate })
    }

    /// Makes a file and opens it.
    ///
    /// # Errors
    /// As [`Vfs::mknod`].
    pub fn create(
        &self,
        parent: Node,
        name: &[u8],
        perm_and_umask: (u16, u16),
        how: OpenHow,
        caller: Caller,
    ) -> Result<(Entry, Opened)> {
        let (perm, umask) = perm_and_umask;
        let new = NewMode { kind: FileKind::Regular, perm, umask };
        let stat = self.make(parent, name, new, caller, What::Device(0))?;
        let file = self.volume.open_file(At::Live, stat.ino)?;
        // rsync opens its temporary files for reading too but never reads them.
        let wants_direct = how.write && (!how.read || is_rsync_temp(name));
        let (handle, direct) = self.handles.insert(file, how.write, wants_direct);
        if stat.inode.perm & SET_ID_BITS == 0 {
            self.handles.set_no_privileges(stat.ino);
        }
        Ok((live(&stat), Opened { handle, direct, keep_cache: true }))
    }

    /// Reads up to `len` bytes; less only at the end of the file.
    ///
    /// # Errors
    /// `Corrupt` for damaged bytes; faults.
    pub fn read(&self, handle: u64, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.handle(handle)?.file.read(offset, len)
    }

    /// Writes all of `data`, `by` somebody who may not leave set-user-id and set-group-id bits
    /// behind. True if the file's set-id bits or capabilities went: the kernel
    /// must then forget its attributes.
    ///
    /// # Errors
    /// `FileTooLarge`, `NoSpace`, `Poisoned`; faults.
    pub fn write(&self, handle: u64, offset: u64, data: &[u8], by: Option<Caller>) -> Result<bool> {
        let handle = self.handle(handle)?;
        let dropped = self.drop_privileges(&handle.file, by)?;
        handle.file.write(offset, data)?;
        Ok(dropped)
    }

    /// A descriptor was closed. Nothing waits for that: the data is in the volume's hands already.
    ///
    /// # Errors
    /// `Stale` for a handle that is not open.
    pub fn flush(&self, handle: u64) -> Result<()> {
        self.handle(handle).map(drop)
    }

    /// The last descriptor was closed. The last writer of a file leaves its data to be stored.
    ///
    /// # Errors
    /// What storing said; nobody waits for it, so it is for the log.
    pub fn release(&self, handle: u64) -> Result<()> {
        match self.handles.remove(handle) {
            Some((handle, true)) => handle.file.finish(),
            Some((_, false)) => Ok(()),
            None => Err(Error::Stale),
        }
    }

    /// fallocate(2).
    ///
    /// # Errors
    /// `FileTooLarge`, `NoSpace`; faults.
    pub fn allocate(&self, handle: u64, offset: u64, len: u64, what: Allocate) -> Result<()> {
        let file = &self.handle(handle)?.file;
        match what {
            Allocate::Reserve { keep_size } => file.allocate(offset, len, keep_size),
            Allocate::Punch => file.punch(offset, len, true),
            Allocate::Zero { keep_size } => file.punch(offset, len, keep_size),
        }
    }

    /// The next data or hole from `offset`; `None` behind the last.
    ///
    /// # Errors
    /// Faults.
    pub fn seek(&self, handle: u64, offset: u64, what: Seek) -> Result<Option<u64>> {
        self.handle(handle)?.file.seek(offset, what)
    }

    /// Copies by reference; returns how many bytes, which may be less than asked for.
    ///
    /// # Errors
    /// `ReadOnly`, `FileTooLarge`, `NoSpace`; faults.
    pub fn copy(&self, from: (u64, u64), to: (u64, u64), len: u64) -> Result<u64> {
        let source = self.handle(from.0)?;
        let target = self.handle(to.0)?;
        target.file.copy_from(to.1, &source.file, from.1, len.min(COPY_BYTES_MAX))
    }

    fn handle(&self, number: u64) -> Result<Arc<Handle>> {
        self.handles.get(number).ok_or(Error::Stale)
    }
}
