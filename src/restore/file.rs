//! One file, link or special file: left alone, given its attributes, linked, or copied.

use super::{What, Work};
use crate::error::Result;
use crate::types::{Changed, FileKind, Ino};
use crate::volume::{AttrChange, Stat};

/// Most hard-linked inodes remembered; further ones become files of their own.
const LINKS_REMEMBERED: usize = 1_000_000;
const SET_ID_BITS: u16 = 0o6000;
const CAPABILITY: &[u8] = b"security.capability";

impl Work<'_> {
    pub(super) fn file(&mut self, then: Ino, dir: Option<Ino>, name: &[u8]) -> Result<()> {
        let inode = self.volume.stat(self.at(), then)?.inode;
        let existing = self.existing(dir, name)?;
        if let (Some(dir), Some(stat)) = (dir, &existing)
            && stat.inode.kind == FileKind::Directory
            && !self.make_way(dir, name, stat.ino)?
        {
            return Ok(());
        }
        let existing = existing.filter(|stat| stat.inode.kind != FileKind::Directory);
        let what = if existing.is_some() { What::Replaced } else { What::Created };
        if let Some(known) = self.links.get(&then).copied() {
            return self.link(known, dir, name, existing.as_ref(), what);
        }
        if let Some(stat) = &existing
            && self.is_right(then, stat)?
        {
            self.remember(then, inode.nlink, stat.ino, stat.inode.nlink);
            return Ok(());
        }
        self.report.note(what, &self.path);
        if inode.kind == FileKind::Regular {
            self.report.file_bytes += inode.size;
        }
        let Some(dir) = dir.filter(|_| !self.options.dry_run) else {
            // In a dry run another name of it would be a link to what is not there yet.
            self.remember(then, inode.nlink, Ino(0), 1);
            return Ok(());
        };
        let copy = self.volume.copy_nameless(self.epoch, then)?;
        let ino = copy.ino();
        let replaced = self.volume.name_copy(copy, dir, name)?;
        self.changed_name(dir, name, replaced);
        self.remember(then, inode.nlink, ino, 1);
        Ok(())
    }

    /// One more name of an inode that is right already.
    fn link(
        &mut self,
        known: Ino,
        dir: Option<Ino>,
        name: &[u8],
        existing: Option<&Stat>,
        what: What,
    ) -> Result<()> {
        if existing.is_some_and(|stat| stat.ino == known) {
            self.report.unchanged += 1;
            return Ok(());
        }
        self.report.note(what, &self.path);
        let Some(dir) = dir.filter(|_| !self.options.dry_run) else { return Ok(()) };
        let replaced = self.volume.link_over(known, dir, name)?;
        self.changed_name(dir, name, replaced);
        (self.host.changed)(Changed::Inode(known));
        Ok(())
    }

    /// True if what is there has the content of then, and now its attributes, too. What has more
    /// than one name is not touched: another name of it may lie elsewhere.
    fn is_right(&mut self, then: Ino, stat: &Stat) -> Result<bool> {
        let taken = self.claimed.get(&stat.ino).is_some_and(|by| *by != then);
        if taken || !self.volume.has_content_of(self.epoch, then, stat.ino)? {
            return Ok(false);
        }
        let Some(change) = self.volume.attributes_back(self.epoch, then, stat.ino)? else {
            self.report.unchanged += 1;
            return Ok(true);
        };
        if stat.inode.nlink > 1 || gives_rights(&change) {
            return Ok(false);
        }
        self.report.note(What::Attributes, &self.path);
        if !self.options.dry_run {
            self.volume.set_attributes(stat.ino, &change)?;
            (self.host.changed)(Changed::Inode(stat.ino));
        }
        Ok(true)
    }

    fn changed_name(&self, dir: Ino, name: &[u8], replaced: Option<Ino>) {
        (self.host.changed)(Changed::Name(dir, name));
        if let Some(replaced) = replaced {
            // Its other names, if there are any, show one link less.
            (self.host.changed)(Changed::Inode(replaced));
        }
    }

    fn remember(&mut self, then: Ino, links_then: u32, live: Ino, links_now: u32) {
        if self.links.len() >= LINKS_REMEMBERED || self.claimed.len() >= LINKS_REMEMBERED {
            return;
        }
        if links_then > 1 {
            self.links.insert(then, live);
        }
        if links_now > 1 || links_then > 1 {
            self.claimed.insert(live, then);
        }
    }
}

/// Whoever has the file open writes without a look at such bits: it needs another inode.
fn gives_rights(change: &AttrChange) -> bool {
    change.perm.is_some_and(|perm| perm & SET_ID_BITS != 0)
        || change.xattrs.iter().any(|(name, value)| name == CAPABILITY && value.is_some())
}
