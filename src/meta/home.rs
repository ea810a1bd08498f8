//! From an inode back to its name: every inode says where one of its names is.
//!
//! Guarantees: a name that is returned is the inode's at that state of the tree. Does not: find a
//! name in vain hints; `reverse` then looks at all names.

use super::layers::Layers;
use super::versions::Versions;
use super::{damaged, key, record};
use crate::error::Result;
use crate::kv::{KeyRange, Table};
use crate::types::{At, Ino, Inode};

/// The directory and the name that `inode`, as it is at `at`, has there; `None` if it does not know
/// or the name is gone. A directory without a home is looked for in its parent.
pub(super) fn name_of(
    layers: Layers<'_>,
    at: At,
    ino: Ino,
    inode: &Inode,
) -> Result<Option<(Ino, Box<[u8]>)>> {
    let range = match inode.home {
        _ if inode.parent == Ino(0) => return Ok(None),
        0 => key::range_of(inode.parent),
        home => KeyRange::prefix(&key::dirents_home(inode.parent, home)),
    };
    for row in Versions::scan(layers, at, Table::Dirent, &range) {
        let (key, payload) = row?;
        let why = |why| damaged(Table::Dirent, &key, why);
        if record::dirent(&payload).map_err(why)?.ino == ino {
            let (parent, _, name) = key::read_dirent(&key).map_err(why)?;
            return Ok(Some((parent, name.into())));
        }
    }
    Ok(None)
}
