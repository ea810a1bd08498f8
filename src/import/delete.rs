//! What has to go: things in the way of others, and with `delete` what the source has not.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::report::ImportWhat;
use super::walk::Walk;
use crate::error::Result;
use crate::types::{At, Changed, Cookie, FileKind, Ino};

/// Entries listed at a time.
const LISTED_AT_ONCE: usize = 256;

impl Walk<'_, '_> {
    /// Removes a directory that has a file's name, if it is empty or may be deleted; false if it
    /// stays. The name of the file is pushed.
    pub(super) fn make_way(&mut self, parent: Ino, name: &[u8], dir: Ino) -> Result<bool> {
        let empty = self.volume().list(At::Live, dir, Cookie(0), 1)?.is_empty();
        if !empty && !self.options.delete {
            self.shared.report.lock().note(ImportWhat::InTheWay, &self.path);
            return Ok(false);
        }
        if !self.options.dry_run {
            self.remove_tree(parent, name, dir)?;
        }
        Ok(true)
    }

    /// Removes what has a directory's name and is none. The name is pushed.
    pub(super) fn make_way_for_directory(&mut self, dir: Option<Ino>, name: &OsStr) -> Result<()> {
        let Some(dir) = dir else { return Ok(()) };
        let name = name.as_bytes();
        let existing = self.volume().lookup(At::Live, dir, name)?;
        let Some(stat) = existing.filter(|stat| stat.inode.kind != FileKind::Directory) else {
            return Ok(());
        };
        self.shared.report.lock().note(ImportWhat::Replaced, &self.path);
        if self.options.dry_run {
            return Ok(());
        }
        self.volume().unlink(dir, name)?;
        (self.shared.changed)(Changed::Name(dir, name));
        (self.shared.changed)(Changed::Inode(stat.ino));
        Ok(())
    }

    /// Removes the entries that the directory `source` does not have, but for those that the rules
    /// leave out: they are none of the import's business.
    pub(super) fn delete_others(&mut self, source: &Path, dest: Ino) -> Result<()> {
        let mut after = Cookie(0);
        loop {
            let page = self.volume().list(At::Live, dest, after, LISTED_AT_ONCE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.cookie;
            for item in &page {
                let name = OsStr::from_bytes(&item.name);
                match std::fs::symlink_metadata(source.join(name)) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    // It is there, or nobody can say.
                    _ => continue,
                }
                let path_len = self.push(name);
                let is_directory = item.kind == FileKind::Directory;
                if !self.options.rules.exclude(&self.path, is_directory) {
                    self.shared.report.lock().note(ImportWhat::Deleted, &self.path);
                    if !self.options.dry_run && is_directory {
                        self.remove_tree(dest, &item.name, item.ino)?;
                    } else if !self.options.dry_run {
                        self.remove_file(dest, &item.name, item.ino)?;
                    }
                }
                self.path.truncate(path_len);
                self.tell()?;
            }
        }
    }

    fn remove_file(&self, parent: Ino, name: &[u8], ino: Ino) -> Result<()> {
        self.volume().remove_name(parent, name)?;
        (self.shared.changed)(Changed::Name(parent, name));
        (self.shared.changed)(Changed::Inode(ino));
        Ok(())
    }

    fn remove_tree(&mut self, parent: Ino, name: &[u8], dir: Ino) -> Result<()> {
        let (volume, changed) = (self.volume(), self.shared.changed);
        volume.remove_tree(parent, name, dir, &mut |what| {
            changed(what);
            self.tell()
        })
    }
}
