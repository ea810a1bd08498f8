//! What has to go: directories in a file's place, and with `delete` what the snapshot has not.

use super::{LISTED_AT_ONCE, What, Work};
use crate::error::Result;
use crate::types::{At, Changed, Cookie, FileKind, Ino};

impl Work<'_> {
    /// Removes a directory that has a file's name, if it is empty or may be deleted; false if it
    /// stays.
    pub(super) fn make_way(&mut self, parent: Ino, name: &[u8], dir: Ino) -> Result<bool> {
        let empty = self.volume.list(At::Live, dir, Cookie(0), 1)?.is_empty();
        if !empty && !self.options.delete {
            self.report.note(What::InTheWay, &self.path);
            return Ok(false);
        }
        if !self.options.dry_run {
            self.remove_tree(parent, name, dir)?;
        }
        Ok(true)
    }

    /// Removes the entries of the live directory that it did not have then.
    pub(super) fn remove_others(&mut self, then: Ino, live: Ino) -> Result<()> {
        let mut after = Cookie(0);
        loop {
            let page = self.volume.list(At::Live, live, after, LISTED_AT_ONCE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.cookie;
            for item in &page {
                if self.volume.lookup(self.at(), then, &item.name)?.is_some() {
                    continue;
                }
                let path_len = self.path.len();
                if path_len > 0 {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(&item.name);
                self.report.note(What::Deleted, &self.path);
                self.path.truncate(path_len);
                if self.options.dry_run {
                    continue;
                }
                match item.kind {
                    FileKind::Directory => self.remove_tree(live, &item.name, item.ino)?,
                    _ => self.remove_file(live, &item.name, item.ino)?,
                }
                self.tell()?;
            }
        }
    }

    fn remove_file(&self, parent: Ino, name: &[u8], ino: Ino) -> Result<()> {
        self.volume.remove_name(parent, name)?;
        (self.host.changed)(Changed::Name(parent, name));
        (self.host.changed)(Changed::Inode(ino));
        Ok(())
    }

    /// Removes a directory with all that is in it, from below.
    fn remove_tree(&mut self, parent: Ino, name: &[u8], dir: Ino) -> Result<()> {
        let (volume, changed) = (self.volume, self.host.changed);
        volume.remove_tree(parent, name, dir, &mut |what| {
            changed(what);
            self.tell()
        })
    }
}
