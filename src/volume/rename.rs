//! Renaming: one edit of the open txg, whatever it replaces, exchanges or leaves behind.

use super::names::{check_name, directory, entry, new_inode, settle, target, touch_directory};
use super::{NewInode, RenameMode, Stat, Volume};
use crate::error::{Error, Result};
use crate::meta::{Edit, View};
use crate::types::{At, Dirent, FileKind, Ino, Inode, Timestamp};

impl Volume {
    /// Moves an entry, over what is there or in exchange for it.
    ///
    /// # Errors
    /// `NotFound`, `Exists` (`NoReplace`), `NotEmpty`, `IsDirectory`, `NotDirectory`, `Invalid` for
    /// a directory that would go below itself, `Poisoned`.
    pub fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> Result<()> {
        self.rename_leaving(from, to, mode, None).map(drop)
    }

    /// As [`Volume::rename`]; `left` is made under the old name, in the same change. Returns the
    /// directory that was replaced, if one was.
    ///
    /// # Errors
    /// As [`Volume::rename`]; `Invalid` for leaving something in an exchange.
    pub fn rename_leaving(
        &self,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        mode: RenameMode,
        left: Option<&NewInode<'_>>,
    ) -> Result<Option<Stat>> {
        check_name(from.1)?;
        check_name(to.1)?;
        if left.is_some() && mode == RenameMode::Exchange {
            return Err(Error::invalid("An exchange leaves nothing behind"));
        }
        self.admit_change()?;
        let _gate = self.gate.read();
        let now = self.env.now();
        let done = self.stage(|edit| {
            let Some((source, replaced)) = sides(&edit.view(), from, to, mode)? else {
                return Ok(None);
            };
            let moved = source.0.ino;
            let mut gone = None;
            match (mode, replaced) {
                (RenameMode::Exchange, Some(other)) => {
                    exchange(edit, from, source, to, other, now)?;
                }
                (_, replaced) => {
                    let was_dir = replaced.as_ref().filter(|r| r.0.kind == FileKind::Directory);
                    gone = was_dir.cloned();
                    self.replace(edit, from, source, to, replaced)?;
                }
            }
            if let Some(left) = left {
                let ino = self.next_ino()?;
                edit.put_inode(ino, &new_inode(left, from.0, from.1, now))?;
                edit.put_dirent(from.0, from.1, Dirent { ino, kind: left.kind })?;
            }
            Ok(Some((moved, gone)))
        })?;
        let Some((moved, gone)) = done else { return Ok(None) };
        self.names.note(moved, to.0, to.1);
        Ok(gone.map(|(entry, inode)| self.stat_of(At::Live, entry.ino, inode)))
    }

    fn replace(
        &self,
        edit: &mut Edit<'_>,
        from: (Ino, &[u8]),
        source: (Dirent, Inode),
        to: (Ino, &[u8]),
        replaced: Option<(Dirent, Inode)>,
    ) -> Result<()> {
        let now = self.env.now();
        let gone_dir = replaced.as_ref().is_some_and(|(e, _)| e.kind == FileKind::Directory);
        if let Some((found, inode)) = replaced {
            self.drop_link(edit, found.ino, inode, now)?;
        }
        let is_dir = source.0.kind == FileKind::Directory;
        edit.delete_dirent(from.0, from.1)?;
        place(edit, source, to, now)?;
        touch_directory(edit, from.0, now, -i32::from(is_dir))?;
        touch_directory(edit, to.0, now, i32::from(is_dir) - i32::from(gone_dir))
    }
}

type Named = (Dirent, Inode);

/// What is moved, and what is in its place; `None` when both are one inode and nothing is to do.
fn sides(
    view: &View<'_>,
    from: (Ino, &[u8]),
    to: (Ino, &[u8]),
    mode: RenameMode,
) -> Result<Option<(Named, Option<Named>)>> {
    directory(view, from.0)?;
    directory(view, to.0)?;
    let source = entry(view, from.0, from.1)?;
    let replaced = match view.dirent(At::Live, to.0, to.1)? {
        Some(found) => Some((found, target(view, found.ino)?)),
        None => None,
    };
    refuse_loop(view, &source.0, to.0)?;
    match (mode, &replaced) {
        (RenameMode::NoReplace, Some(_)) => {
            return Err(Error::Exists { what: "entry".to_owned() });
        }
        (RenameMode::Exchange, None) => return Err(Error::not_found("entry")),
        (_, Some((found, _))) if found.ino == source.0.ino => return Ok(None),
        (RenameMode::Exchange, Some((found, _))) => refuse_loop(view, found, from.0)?,
        (_, Some((found, _))) => check_replace(view, &source.0, found)?,
        (_, None) => {}
    }
    Ok(Some((source, replaced)))
}

/// A directory must not move below itself.
fn refuse_loop(view: &View<'_>, moved: &Dirent, to: Ino) -> Result<()> {
    if moved.kind != FileKind::Directory {
        return Ok(());
    }
    let mut here = to;
    loop {
        if here == moved.ino {
            return Err(Error::invalid("A directory cannot move below itself"));
        }
        if here == Ino::ROOT {
            return Ok(());
        }
        here = directory(view, here)?.parent;
    }
}

/// What may take the place of what.
fn check_replace(view: &View<'_>, source: &Dirent, replaced: &Dirent) -> Result<()> {
    match (source.kind == FileKind::Directory, replaced.kind == FileKind::Directory) {
        (true, false) => Err(Error::NotDirectory),
        (false, true) => Err(Error::IsDirectory),
        (true, true) if view.has_dirents(At::Live, replaced.ino)? => Err(Error::NotEmpty),
        _ => Ok(()),
    }
}

/// Enters `what` under a new name.
fn place(
    edit: &mut Edit<'_>,
    what: (Dirent, Inode),
    to: (Ino, &[u8]),
    now: Timestamp,
) -> Result<()> {
    let (entry, mut inode) = what;
    inode.ctime = now;
    settle(&mut inode, to.0, to.1);
    edit.put_inode(entry.ino, &inode)?;
    edit.put_dirent(to.0, to.1, entry)
}

fn exchange(
    edit: &mut Edit<'_>,
    from: (Ino, &[u8]),
    source: (Dirent, Inode),
    to: (Ino, &[u8]),
    other: (Dirent, Inode),
    now: Timestamp,
) -> Result<()> {
    let dirs = |entry: &Dirent| i32::from(entry.kind == FileKind::Directory);
    let shift = dirs(&other.0) - dirs(&source.0);
    place(edit, source, to, now)?;
    place(edit, other, from, now)?;
    touch_directory(edit, from.0, now, shift)?;
    touch_directory(edit, to.0, now, -shift)
}
