//! Where listings of directories came to their end.
//!
//! Whoever lists a directory asks once more after the last entry, and is told that there is
//! nothing: for small directories that is half of the scans. It is remembered instead, for as long
//! as nothing at all changes.

use parking_lot::Mutex;

use crate::types::{At, Cookie, Ino};

/// Ends kept, one per slot of inode numbers: as many listings as go on at the same time.
const ENDS: usize = 64;

/// Nothing followed `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    at: At,
    dir: Ino,
    last: Cookie,
    /// How many changes there had been.
    changes: u64,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Ends(Mutex<[Option<End>; ENDS]>);

impl Default for Ends {
    fn default() -> Self {
        Self(Mutex::new([None; ENDS]))
    }
}

fn place(dir: Ino) -> usize {
    (dir.0 % ENDS as u64) as usize
}

impl Ends {
    /// After `last` there is no entry, after so many changes of the metadata.
    pub(super) fn note(&self, at: At, dir: Ino, last: Cookie, changes: u64) {
        self.0.lock()[place(dir)] = Some(End { at, dir, last, changes });
    }

    /// True if that is known of `after`.
    pub(super) fn is_end(&self, at: At, dir: Ino, after: Cookie, changes: u64) -> bool {
        self.0.lock()[place(dir)] == Some(End { at, dir, last: after, changes })
    }

    /// A listing of this directory met damage: its end says so.
    pub(super) fn forget(&self, dir: Ino) {
        self.0.lock()[place(dir)] = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;

    #[test]
    fn an_end_holds_for_one_state_of_one_directory() {
        let (ends, dir, last) = (Ends::default(), Ino(7), Cookie(100));
        assert!(!ends.is_end(At::Live, dir, last, 5));
        ends.note(At::Live, dir, last, 5);
        assert!(ends.is_end(At::Live, dir, last, 5));
        assert!(!ends.is_end(At::Live, dir, last, 6), "something changed");
        assert!(!ends.is_end(At::Live, dir, Cookie(99), 5), "from further ahead");
        assert!(!ends.is_end(At::Epoch(Epoch(1)), dir, last, 5), "as it was");
        assert!(!ends.is_end(At::Live, Ino(7 + ENDS as u64), last, 5), "the same slot");
        ends.forget(dir);
        assert!(!ends.is_end(At::Live, dir, last, 5));
    }
}
