//! Which states of the tree have a name.
//!
//! Guarantees: one pass over the names, whatever the number of snapshots: a name, an inode and the
//! way to a directory are looked at once for all states in which they were the same. Relies on:
//! one committed state of the tables. Does not: know patterns.
//!
//! Memory: ways to directories, bounded; and the versions of one name.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use crate::error::{Error, Result};
use crate::kv::Kv;
use crate::limits::EPOCH_MAX;
use crate::meta::{Committed, Place, Version};
use crate::types::{At, Dirent, Epoch, FileKind, Ino, Inode, Timestamp};

/// The epoch that stands for the live tree: all live rows see it, no snapshot has it.
pub const LIVE_EPOCH: Epoch = Epoch(EPOCH_MAX - 1);
/// Deeper paths are not resolved; a damaged table may hold a circle.
const DEPTH_MAX: usize = 4096;
/// Bytes of ways that are kept.
const WAYS_BYTES_MAX: usize = 8 << 20;
/// What a way takes beside its bytes.
const WAY_OVERHEAD: usize = 96;

/// What is looked for.
pub struct Query<'a> {
    /// Epochs of the states, rising.
    pub states: &'a [Epoch],
    /// Names that may be meant.
    pub name: &'a dyn Fn(&[u8]) -> bool,
    /// Paths that are meant.
    pub path: &'a dyn Fn(&[u8]) -> bool,
    /// Versions that are meant.
    pub inode: &'a dyn Fn(&Inode) -> bool,
}

/// A version of what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundVersion {
    /// Its inode.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Its bytes.
    pub size: u64,
    /// When its content changed.
    pub mtime: Timestamp,
    /// The states that have it: places in the list of the query.
    pub states: Vec<usize>,
}

/// A path and what was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// From the root, without a slash in front.
    pub path: Vec<u8>,
    /// Oldest first.
    pub versions: Vec<FoundVersion>,
}

/// Takes what was found; an error ends the search.
pub type Each<'a> = dyn FnMut(Found) -> Result<()> + 'a;

/// Hands every path that was found to `each`. One path may come twice, if its directory was another
/// one for a time.
///
/// # Errors
/// What `each` returns; `Corrupt`, `Kv`.
pub fn search(kv: &dyn Kv, query: &Query<'_>, each: &mut Each<'_>) -> Result<()> {
    let state = Committed::load(kv)?;
    let mut ways = Ways { state: &state, states: query.states, known: HashMap::new(), bytes: 0 };
    state.each_name(query.name, &mut |dir, name, versions| {
        let mut seen = versions.iter().filter(|v| !seen_by(query.states, &life(v)).is_empty());
        if seen.next().is_none() {
            return Ok(());
        }
        for (range, way) in &*ways.to(dir)? {
            let path = [way, name].concat();
            if !(query.path)(&path) {
                continue;
            }
            let versions = versions_in(&state, query, range, versions)?;
            if !versions.is_empty() {
                each(Found { path, versions })?;
            }
        }
        Ok(())
    })
}

fn life<T>(version: &Version<T>) -> Range<Epoch> {
    version.birth..version.end
}

fn both(a: &Range<Epoch>, b: &Range<Epoch>) -> Range<Epoch> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// The states, as places, that lie in a range.
fn seen_by(states: &[Epoch], range: &Range<Epoch>) -> Range<usize> {
    let start = states.partition_point(|epoch| *epoch < range.start);
    let end = states.partition_point(|epoch| *epoch < range.end);
    start..end.max(start)
}

/// The versions of what an entry named within `range`.
fn versions_in(
    state: &Committed<'_>,
    query: &Query<'_>,
    range: &Range<Epoch>,
    entries: &[Version<Dirent>],
) -> Result<Vec<FoundVersion>> {
    let mut found: Vec<FoundVersion> = Vec::new();
    for entry in entries {
        let entry_life = both(range, &life(entry));
        if seen_by(query.states, &entry_life).is_empty() {
            continue;
        }
        for version in state.view().inode_versions(entry.value.ino)? {
            let states = seen_by(query.states, &both(&entry_life, &life(&version)));
            let inode = version.value;
            if states.is_empty() || !(query.inode)(&inode) {
                continue;
            }
            let same = found.last_mut().filter(|last| {
                last.ino == entry.value.ino && (last.size, last.mtime) == (inode.size, inode.mtime)
            });
            match same {
                Some(last) => last.states.extend(states),
                None => found.push(FoundVersion {
                    ino: entry.value.ino,
                    kind: inode.kind,
                    size: inode.size,
                    mtime: inode.mtime,
                    states: states.collect(),
                }),
            }
        }
    }
    Ok(found)
}

/// Paths of a directory with a slash at the end, each with the epochs in which it was that.
type Way = Rc<Vec<(Range<Epoch>, Vec<u8>)>>;

struct Ways<'a> {
    state: &'a Committed<'a>,
    states: &'a [Epoch],
    known: HashMap<Ino, Way>,
    bytes: usize,
}

impl Ways<'_> {
    /// The ways to a directory in all states.
    fn to(&mut self, dir: Ino) -> Result<Way> {
        let mut todo = vec![(dir, None)];
        let mut last: Way = Rc::new(vec![(Epoch(0)..Epoch(EPOCH_MAX), Vec::new())]);
        // What this path needs must stay until it is done.
        if self.bytes > WAYS_BYTES_MAX {
            self.known.clear();
            self.bytes = 0;
        }
        while let Some((dir, places)) = todo.pop() {
            if let Some(known) = self.known.get(&dir) {
                last = Rc::clone(known);
                continue;
            }
            if dir == Ino::ROOT {
                self.keep(dir, &last_root());
                last = last_root();
                continue;
            }
            let places = places.map_or_else(|| self.places(dir), Ok)?;
            let unknown = |place: &(Range<Epoch>, Place)| !self.known.contains_key(&place.1.0);
            let missing = places.iter().find(|place| unknown(place)).map(|place| place.1.0);
            if let Some(parent) = missing {
                if todo.len() > DEPTH_MAX {
                    let what = format!("directory {dir}");
                    return Err(Error::corrupt(what, "no path leads to it"));
                }
                todo.push((dir, Some(places)));
                todo.push((parent, None));
                continue;
            }
            let mut way = Vec::new();
            for (range, (parent, name)) in places {
                for (within, path) in self.known.get(&parent).into_iter().flat_map(|way| &**way) {
                    let range = both(&range, within);
                    if range.start < range.end {
                        way.push((range, [path, &*name, b"/"].concat()));
                    }
                }
            }
            last = Rc::new(way);
            self.keep(dir, &last);
        }
        Ok(last)
    }

    fn keep(&mut self, dir: Ino, way: &Way) {
        self.bytes += way.iter().map(|(_, path)| path.len() + WAY_OVERHEAD).sum::<usize>();
        self.known.insert(dir, Rc::clone(way));
    }

    /// Where a directory was, and when.
    fn places(&self, dir: Ino) -> Result<Vec<(Range<Epoch>, Place)>> {
        let mut places: Vec<(Range<Epoch>, Place)> = Vec::new();
        let mut before: Option<(Ino, u32)> = None;
        for version in self.state.view().inode_versions(dir)? {
            let range = life(&version);
            let seen = seen_by(self.states, &range);
            let inode = version.value;
            let Some(state) = self.states.get(seen).and_then(<[Epoch]>::first) else { continue };
            if inode.nlink == 0 {
                continue;
            }
            let home = (inode.parent, inode.home);
            // A directory that stayed where it was need not be looked for again.
            if before == Some(home)
                && home.1 != 0
                && let Some((last, _)) = places.last_mut()
            {
                last.end = range.end;
                continue;
            }
            let at = if *state == LIVE_EPOCH { At::Live } else { At::Epoch(*state) };
            if let Some(place) = self.state.name_of(at, dir, &inode)? {
                before = Some(home);
                places.push((range, place));
            }
        }
        Ok(places)
    }
}

fn last_root() -> Way {
    Rc::new(vec![(Epoch(0)..Epoch(EPOCH_MAX), Vec::new())])
}
