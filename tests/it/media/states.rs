//! States in which a crash may leave a disk.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::log::{ByteChange, Disk, Id, NameChange, Node, apply, rename};
use crate::testkit::splitmix64;

/// SplitMix64: every choice of a state comes from its seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        splitmix64(&mut self.0)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// What becomes of everything unsynced of one file or directory.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Kept,
    Lost,
    /// The first changes are kept.
    Front,
    /// Any of them are.
    Some,
    /// Any sectors of this many bytes are.
    Torn(usize),
    /// As torn, and what is lost was never empty: other bytes stand there.
    Garbage(usize),
    /// The length says more than the bytes that came: zeros.
    Long,
}

/// How a whole state is made: alike for all files, or mixed.
#[derive(Clone, Copy, Debug)]
pub struct Style(Option<Fate>);

impl Style {
    /// Every file with a fate of its own, or one for all.
    pub fn roll(dice: &mut Dice) -> Self {
        Self(if dice.below(3) == 0 { Some(Fate::roll(dice)) } else { None })
    }

    /// As if the last call had been a sync of everything.
    pub const EVERYTHING: Self = Self(Some(Fate::Kept));

    fn fate(self, dice: &mut Dice) -> Fate {
        self.0.unwrap_or_else(|| Fate::roll(dice))
    }
}

impl Fate {
    fn roll(dice: &mut Dice) -> Self {
        match dice.below(9) {
            0 => Self::Kept,
            1 => Self::Lost,
            2 => Self::Front,
            3 => Self::Some,
            4 => Self::Torn(512),
            5 => Self::Torn(4096),
            6 => Self::Garbage(512),
            7 => Self::Garbage(4096),
            _ => Self::Long,
        }
    }
}

/// Makes the state as a real directory `to`.
pub fn build(disk: &Disk, to: &Path, style: Style, dice: &mut Dice) {
    build_dir(disk, 0, to, style, dice);
}

fn build_dir(disk: &Disk, id: Id, to: &Path, style: Style, dice: &mut Dice) {
    let Node::Dir { names, unsynced } = &disk.nodes[id] else { panic!("a directory") };
    std::fs::create_dir(to).unwrap();
    for (name, id) in survivors(names, unsynced, style, dice) {
        let path = to.join(name);
        match &disk.nodes[id] {
            Node::Dir { .. } => build_dir(disk, id, &path, style, dice),
            Node::File { bytes, unsynced } => {
                std::fs::write(path, content(bytes, unsynced, style.fate(dice), dice)).unwrap();
            }
        }
    }
}

/// Names after a crash. A change that is lost takes later ones of the same name with it.
fn survivors(
    names: &BTreeMap<String, Id>,
    unsynced: &[NameChange],
    style: Style,
    dice: &mut Dice,
) -> BTreeMap<String, Id> {
    let mut names = names.clone();
    let mut stuck = HashSet::new();
    let fate = style.fate(dice);
    let front = dice.below(unsynced.len() + 1);
    for (number, change) in unsynced.iter().enumerate() {
        let touched = match change {
            NameChange::Put(name, _) | NameChange::Gone(name) => vec![name],
            NameChange::Move(from, to) => vec![from, to],
        };
        let happens = match fate {
            Fate::Kept => true,
            Fate::Lost => false,
            Fate::Front => number < front,
            _ => dice.coin(),
        };
        if happens && !touched.iter().any(|name| stuck.contains(*name)) {
            rename(&mut names, change);
        } else {
            stuck.extend(touched.into_iter().cloned());
        }
    }
    names
}

fn content(safe: &[u8], unsynced: &[ByteChange], fate: Fate, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = safe.to_vec();
    let front = dice.below(unsynced.len() + 1);
    let mut longest = safe.len();
    for (number, change) in unsynced.iter().enumerate() {
        if let ByteChange::Write(at, data) = change {
            longest = longest.max(*at as usize + data.len());
        }
        let happens = match fate {
            Fate::Kept => true,
            Fate::Lost | Fate::Long => false,
            Fate::Front => number < front,
            _ => dice.coin(),
        };
        match (fate, change) {
            (Fate::Torn(sector), ByteChange::Write(at, data)) => {
                tear(&mut bytes, *at as usize, data, (sector, false), dice);
            }
            (Fate::Garbage(sector), ByteChange::Write(at, data)) => {
                tear(&mut bytes, *at as usize, data, (sector, true), dice);
            }
            _ if happens => apply(&mut bytes, change),
            _ => {}
        }
    }
    if matches!(fate, Fate::Long) && bytes.len() < longest {
        let len = bytes.len() + dice.below(longest - bytes.len() + 1);
        bytes.resize(len, 0);
    }
    bytes
}

/// Keeps any sectors of a write. The length may say that more came, or less.
fn tear(bytes: &mut Vec<u8>, at: usize, data: &[u8], how: (usize, bool), dice: &mut Dice) {
    let (sector, garbage) = how;
    let (mut from, end) = (at, at + data.len());
    let was = bytes.len();
    if was < end && dice.coin() {
        bytes.resize(end, 0);
    }
    while from < end {
        let to = ((from / sector + 1) * sector).min(end);
        let piece = if dice.coin() {
            data[from - at..to - at].to_vec()
        } else if garbage && dice.coin() {
            (from..to).map(|_| dice.next() as u8).collect()
        } else if garbage {
            vec![0; to - from]
        } else {
            Vec::new()
        };
        if !piece.is_empty() {
            apply(bytes, &ByteChange::Write(from as u64, piece));
        }
        from = to;
    }
}
