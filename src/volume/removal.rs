//! Removing trees of the live tree, from below, one name per change.

use super::Volume;
use crate::error::{Error, Result};
use crate::types::{At, Changed, Cookie, FileKind, Ino};

/// Entries listed at a time.
const LISTED_AT_ONCE: usize = 256;

impl Volume {
    /// Removes a directory with all that is in it. `told` is called after each removal, and may end
    /// the work.
    ///
    /// # Errors
    /// What `told` returns; `Poisoned`, `ReadOnly`; faults.
    pub fn remove_tree(
        &self,
        parent: Ino,
        name: &[u8],
        dir: Ino,
        told: &mut dyn FnMut(Changed<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut stack = vec![(parent, Box::<[u8]>::from(name), dir)];
        while let Some((parent, name, dir)) = stack.last() {
            let page = self.list(At::Live, *dir, Cookie(0), LISTED_AT_ONCE)?;
            if page.is_empty() {
                gone_is_fine(self.rmdir(*parent, name).map(drop))?;
                told(Changed::Name(*parent, name))?;
                stack.pop();
                continue;
            }
            let dir = *dir;
            for item in page {
                if item.kind == FileKind::Directory {
                    stack.push((dir, item.name, item.ino));
                    break;
                }
                self.remove_name(dir, &item.name)?;
                told(Changed::Name(dir, &item.name))?;
                told(Changed::Inode(item.ino))?;
            }
        }
        Ok(())
    }

    /// As [`Volume::unlink`]; what is gone already is fine.
    ///
    /// # Errors
    /// `IsDirectory`, `Poisoned`, `ReadOnly`; faults.
    pub fn remove_name(&self, parent: Ino, name: &[u8]) -> Result<()> {
        gone_is_fine(self.unlink(parent, name))
    }
}

/// Somebody else may have removed it meanwhile.
fn gone_is_fine(done: Result<()>) -> Result<()> {
    match done {
        Err(Error::NotFound { .. }) => Ok(()),
        done => done,
    }
}
