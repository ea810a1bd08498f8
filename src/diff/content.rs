//! In what two versions of a file differ.

use super::{Attribute, Facets};
use crate::error::Result;
use crate::meta::{Committed, View};
use crate::types::{At, Extent, FileKind, Ino, Inode};

/// Extents fetched at once.
const BATCH: usize = 512;

/// In what `b` differs from `a`; both are of one kind.
pub(super) fn facets(
    state: &Committed<'_>,
    a: (At, Ino, &Inode),
    b: (At, Ino, &Inode),
) -> Result<Facets> {
    let (old, new) = (a.2, b.2);
    let same_inode = a.1 == b.1;
    // Every change of content or of an xattr changes this time.
    if same_inode && old == new {
        return Ok(Facets::default());
    }
    let view = state.view();
    let content = match old.kind {
        FileKind::Regular => old.size != new.size || !same_bytes(&view, a, b)?,
        FileKind::Symlink => old.target != new.target,
        FileKind::CharDevice | FileKind::BlockDevice => old.rdev != new.rdev,
        _ => false,
    };
    let differs = |attribute: &Attribute| -> Result<bool> {
        Ok(match attribute {
            Attribute::Mode => old.perm != new.perm,
            Attribute::Owner => old.uid != new.uid,
            Attribute::Group => old.gid != new.gid,
            Attribute::Mtime => old.kind != FileKind::Directory && old.mtime != new.mtime,
            Attribute::Xattrs => !same_xattrs(&view, (a.0, a.1), (b.0, b.1))?,
        })
    };
    let mut attributes = Vec::new();
    for attribute in Attribute::ALL {
        if differs(&attribute)? {
            attributes.push(attribute);
        }
    }
    Ok(Facets { content, attributes })
}

fn same_xattrs(view: &View<'_>, a: (At, Ino), b: (At, Ino)) -> Result<bool> {
    let names = view.xattr_names(a.0, a.1)?;
    if names != view.xattr_names(b.0, b.1)? {
        return Ok(false);
    }
    for name in names {
        if view.xattr(a.0, a.1, &name)? != view.xattr(b.0, b.1, &name)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// True if both files, of one size, refer to the same bytes of the same chunks everywhere, however
/// their extents are cut.
fn same_bytes(view: &View<'_>, a: (At, Ino, &Inode), b: (At, Ino, &Inode)) -> Result<bool> {
    let mut a = Pieces::new(view, a);
    let mut b = Pieces::new(view, b);
    loop {
        match (a.front()?, b.front()?) {
            (None, None) => return Ok(true),
            (Some(x), Some(y)) => {
                let same =
                    (x.offset, x.chunk, x.chunk_offset) == (y.offset, y.chunk, y.chunk_offset);
                if !same {
                    return Ok(false);
                }
                let len = x.len.min(y.len);
                a.advance(len);
                b.advance(len);
            }
            _ => return Ok(false),
        }
    }
}

/// The extents of a file up to its size, in order.
struct Pieces<'a> {
    view: &'a View<'a>,
    at: At,
    ino: Ino,
    size: u64,
    batch: std::vec::IntoIter<Extent>,
    front: Option<Extent>,
    /// From where the next batch is fetched; `None` after the last one.
    next: Option<u64>,
}

impl<'a> Pieces<'a> {
    fn new(view: &'a View<'a>, (at, ino, inode): (At, Ino, &Inode)) -> Self {
        let batch = Vec::new().into_iter();
        Self { view, at, ino, size: inode.size, batch, front: None, next: Some(0) }
    }

    fn front(&mut self) -> Result<Option<Extent>> {
        while self.front.is_none() {
            let Some(extent) = self.batch.next() else {
                let Some(from) = self.next else { return Ok(None) };
                let batch = self.view.extents(self.at, self.ino, from..self.size, BATCH)?;
                let full = batch.len() == BATCH;
                self.next = batch.last().filter(|_| full).map(Extent::end);
                self.batch = batch.into_iter();
                continue;
            };
            let room = self.size.saturating_sub(extent.offset);
            let len = u32::try_from(room).unwrap_or(u32::MAX).min(extent.len);
            self.front = Some(Extent { len, ..extent }).filter(|_| len > 0);
        }
        Ok(self.front)
    }

    /// Steps over `len` bytes of the front.
    fn advance(&mut self, len: u32) {
        self.front = self.front.filter(|front| front.len > len).map(|front| Extent {
            offset: front.offset + u64::from(len),
            len: front.len - len,
            chunk: front.chunk,
            chunk_offset: front.chunk_offset + len,
        });
    }
}
