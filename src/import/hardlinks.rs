//! Hard links: which inode here stands for which one outside.

use std::collections::HashMap;

use crate::types::Ino;

/// Most hard-linked inodes remembered; further ones become files of their own.
const LINKS_REMEMBERED: usize = 1_000_000;

/// Device and inode number outside.
pub(super) type Outside = (u64, u64);

#[derive(Default)]
pub(super) struct HardLinks {
    /// Inodes outside with several names, and what they became.
    became: HashMap<Outside, Ino>,
    /// Inodes here with several names, and what they were taken for.
    claimed: HashMap<Ino, Outside>,
}

impl HardLinks {
    /// What an inode outside has become.
    pub(super) fn became(&self, outside: Outside) -> Option<Ino> {
        self.became.get(&outside).copied()
    }

    /// True if an inode here was taken for another one outside.
    pub(super) fn is_of_another(&self, ino: Ino, outside: Outside) -> bool {
        self.claimed.get(&ino).is_some_and(|by| *by != outside)
    }

    /// Notes that `ino` stands for what has so many links outside.
    pub(super) fn note(&mut self, outside: Outside, links: u64, ino: Ino, links_here: u32) {
        if self.became.len() >= LINKS_REMEMBERED || self.claimed.len() >= LINKS_REMEMBERED {
            return;
        }
        if links > 1 {
            self.became.insert(outside, ino);
        }
        if links > 1 || links_here > 1 {
            self.claimed.insert(ino, outside);
        }
    }
}
