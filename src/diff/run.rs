//! One comparison: inodes that changed where they are, then spots.

use std::collections::{HashMap, HashSet};

use super::content::facets;
use super::side::Side;
use super::{Change, Depth, Difference, Each, Facets};
use crate::error::Result;
use crate::meta::{Committed, Place, Span};
use crate::types::{At, Dirent, FileKind, Ino, Inode};

/// Keys fetched at once. Each epoch between the states is asked once for each page.
const PAGE: usize = 32_768;
/// Spots kept until the others are seen; more of them are told as removed and added.
const LINKED_MAX: usize = 65_536;
/// Inodes whose names are looked for in one pass over all names.
const NAMELESS_MAX: usize = 65_536;
/// Corresponding directories kept.
const COUNTERPARTS_MAX: usize = 65_536;

/// What became of what was at a spot, or where what is there comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Only this side has the inode.
    Alone,
    /// The other side has it elsewhere.
    Moved,
    /// The other side has it, and one of them knows several names.
    Linked,
}

/// One end of a spot.
#[derive(Clone, Copy, Debug)]
struct End {
    dir: Ino,
    entry: Dirent,
    fate: Fate,
}

/// A place whose entry changed.
#[derive(Clone, Debug)]
struct Spot {
    name: Box<[u8]>,
    old: Option<End>,
    new: Option<End>,
}

/// Which of the two states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Which {
    From,
    To,
}

impl Which {
    fn other(self) -> Self {
        match self {
            Self::From => Self::To,
            Self::To => Self::From,
        }
    }
}

/// An inode that both states have.
struct Both {
    ino: Ino,
    old: Inode,
    new: Inode,
}

impl Both {
    /// True if it has one name in both states.
    fn is_single(&self) -> bool {
        is_single(&self.old) && is_single(&self.new)
    }
}

fn is_single(inode: &Inode) -> bool {
    inode.kind == FileKind::Directory || inode.nlink == 1
}

pub(super) struct Run<'a> {
    state: &'a Committed<'a>,
    from: Side<'a>,
    to: Side<'a>,
    span: Span,
    depth: Depth,
    each: &'a mut Each<'a>,
    linked: Vec<Spot>,
    /// Inodes that changed and do not know their names.
    nameless: HashSet<Ino>,
    /// Inodes that arrived and do not know where they were.
    arrived: HashSet<Ino>,
    /// The corresponding directory in the other state of one that only this state has.
    counterparts: HashMap<(Which, Ino), Option<Ino>>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        state: &'a Committed<'a>,
        from: At,
        to: At,
        depth: Depth,
        each: &'a mut Each<'a>,
    ) -> Self {
        let (a, b) = (state.epoch_of(from), state.epoch_of(to));
        Self {
            state,
            from: Side::new(state, from),
            to: Side::new(state, to),
            span: Span { after: a.min(b), upto: a.max(b) },
            depth,
            each,
            linked: Vec::new(),
            nameless: HashSet::new(),
            arrived: HashSet::new(),
            counterparts: HashMap::new(),
        }
    }

    pub(super) fn all(mut self) -> Result<()> {
        let mut after = Ino(0);
        loop {
            let page = self.state.changed_inodes(self.span, after, PAGE)?;
            for ino in &page {
                self.inode(*ino)?;
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = *last,
                _ => break,
            }
        }
        self.name_the_nameless()?;
        let mut after: Option<Place> = None;
        loop {
            let mut page = self.state.changed_entries(self.span, after.as_ref(), PAGE)?;
            for (dir, name) in &page {
                self.entry(*dir, name)?;
            }
            if page.len() < PAGE {
                break;
            }
            after = page.pop();
        }
        self.pair_links()?;
        self.name_the_arrived()
    }

    fn side(&mut self, which: Which) -> &mut Side<'a> {
        match which {
            Which::From => &mut self.from,
            Which::To => &mut self.to,
        }
    }

    fn both(&self, ino: Ino) -> Result<Option<Both>> {
        let Some(new) = self.to.inode(ino)? else { return Ok(None) };
        let old = self.from.inode(ino)?;
        Ok(old.map(|old| Both { ino, old, new }))
    }

    fn facets_of(&self, both: &Both) -> Result<Facets> {
        let old = (self.from.at(), both.ino, &both.old);
        facets(self.state, old, (self.to.at(), both.ino, &both.new))
    }

    // ---- inodes that changed where they are

    fn inode(&mut self, ino: Ino) -> Result<()> {
        let Some(both) = self.both(ino)? else { return Ok(()) };
        let facets = self.facets_of(&both)?;
        if facets.is_none() {
            return Ok(());
        }
        if ino == Ino::ROOT {
            return self.tell_changed(&both, Vec::new(), facets);
        }
        let Some(new) = self.to.place(ino, &both.new)? else {
            return self.keep_nameless(ino);
        };
        if both.is_single() {
            let Some(old) = self.from.place(ino, &both.old)? else {
                return self.keep_nameless(ino);
            };
            if !self.is_same_place(&old, &new)? {
                // It is told where it arrived.
                return Ok(());
            }
        }
        let path = self.to.path(new.0, &new.1)?;
        self.tell_changed(&both, path, facets)
    }

    fn is_same_place(&mut self, old: &Place, new: &Place) -> Result<bool> {
        if old.1 != new.1 {
            return Ok(false);
        }
        Ok(old.0 == new.0 || self.counterpart(Which::From, old.0)? == Some(new.0))
    }

    fn keep_nameless(&mut self, ino: Ino) -> Result<()> {
        self.nameless.insert(ino);
        if self.nameless.len() < NAMELESS_MAX { Ok(()) } else { self.name_the_nameless() }
    }

    /// Tells of inodes that changed where they are and have no name where they say.
    fn name_the_nameless(&mut self) -> Result<()> {
        let inos = std::mem::take(&mut self.nameless);
        for (both, old, new) in self.with_names(&inos)? {
            if both.is_single() && !self.is_same_place(&old, &new)? {
                continue;
            }
            let facets = self.facets_of(&both)?;
            let path = self.to.path(new.0, &new.1)?;
            self.tell_changed(&both, path, facets)?;
        }
        Ok(())
    }

    fn name_the_arrived(&mut self) -> Result<()> {
        let inos = std::mem::take(&mut self.arrived);
        for (both, old, new) in self.with_names(&inos)? {
            self.tell_renamed(&both, &old, &new)?;
        }
        Ok(())
    }

    /// These inodes, each with a name before and after.
    fn with_names(&self, inos: &HashSet<Ino>) -> Result<Vec<(Both, Place, Place)>> {
        if inos.is_empty() {
            return Ok(Vec::new());
        }
        let old = self.state.names_of(self.from.at(), inos)?;
        let new = self.state.names_of(self.to.at(), inos)?;
        let mut found = Vec::with_capacity(inos.len());
        let first =
            |names: Option<&Vec<Place>>| names.and_then(|names| names.iter().min().cloned());
        for ino in inos {
            let places = first(old.get(ino)).zip(first(new.get(ino)));
            if let (Some(both), Some((old, new))) = (self.both(*ino)?, places) {
                found.push((both, old, new));
            }
        }
        Ok(found)
    }

    // ---- spots

    fn entry(&mut self, dir: Ino, name: &[u8]) -> Result<()> {
        let (in_from, in_to) = (self.from.has_directory(dir)?, self.to.has_directory(dir)?);
        let (old_dir, new_dir) = match (in_from, in_to) {
            (true, true) => (Some(dir), Some(dir)),
            (false, true) => (self.counterpart(Which::To, dir)?, Some(dir)),
            (true, false) => (Some(dir), self.counterpart(Which::From, dir)?),
            (false, false) => return Ok(()),
        };
        let old = old_dir.map(|dir| self.from.entry(dir, name)).transpose()?.flatten();
        let new = new_dir.map(|dir| self.to.entry(dir, name)).transpose()?.flatten();
        if old.map(|e| e.ino) == new.map(|e| e.ino) || (!in_to && new.is_some()) {
            // The same, or told at the corresponding entry of the directory that is there now.
            return Ok(());
        }
        let old = self.end(Which::From, old_dir, old)?;
        let new = self.end(Which::To, new_dir, new)?;
        if self.depth == Depth::Tops && (old_dir.is_none() || new_dir.is_none()) {
            // Below a directory that was added or removed as a whole only arrivals are told.
            let is_alone = |end: &Option<End>| end.is_none_or(|end| end.fate == Fate::Alone);
            if is_alone(&old) && is_alone(&new) {
                return Ok(());
            }
        }
        let spot = Spot { name: name.into(), old, new };
        let linked = |end: &Option<End>| end.is_some_and(|end| end.fate == Fate::Linked);
        if (linked(&spot.old) || linked(&spot.new)) && self.linked.len() < LINKED_MAX {
            self.linked.push(spot);
            return Ok(());
        }
        self.settle(&spot, false, false)
    }

    fn end(&self, of: Which, dir: Option<Ino>, entry: Option<Dirent>) -> Result<Option<End>> {
        let (Some(dir), Some(entry)) = (dir, entry) else { return Ok(None) };
        let (here, there) = match of {
            Which::From => (&self.from, &self.to),
            Which::To => (&self.to, &self.from),
        };
        let fate = match there.inode(entry.ino)? {
            None => Fate::Alone,
            Some(_) if entry.kind == FileKind::Directory => Fate::Moved,
            Some(other) => {
                let single = is_single(&other)
                    && here.inode(entry.ino)?.is_some_and(|inode| is_single(&inode));
                if single { Fate::Moved } else { Fate::Linked }
            }
        };
        Ok(Some(End { dir, entry, fate }))
    }

    /// Tells of a spot, of whose ends some may be told with another one.
    fn settle(&mut self, spot: &Spot, old_told: bool, new_told: bool) -> Result<()> {
        let free = |end: &Option<End>, told: bool| end.filter(|e| e.fate != Fate::Moved && !told);
        let (old, new) = (free(&spot.old, old_told), free(&spot.new, new_told));
        if let Some(end) = spot.new.filter(|end| end.fate == Fate::Moved) {
            self.tell_arrival(end, &spot.name)?;
        }
        match (old, new) {
            (Some(old), Some(new)) if old.entry.kind == new.entry.kind => {
                self.tell_replaced(old, new, &spot.name)
            }
            (old, new) => {
                if let Some(old) = old {
                    self.tell_alone(Which::From, old, &spot.name)?;
                }
                new.map_or(Ok(()), |new| self.tell_alone(Which::To, new, &spot.name))
            }
        }
    }

    /// Pairs the names that inodes with several names lost and gained, and tells of their spots.
    fn pair_links(&mut self) -> Result<()> {
        let spots = std::mem::take(&mut self.linked);
        let of = |end: Option<End>| end.filter(|end| end.fate == Fate::Linked).map(|e| e.entry.ino);
        let mut lost: HashMap<Ino, Vec<usize>> = HashMap::new();
        for (at, spot) in spots.iter().enumerate().rev() {
            if let Some(ino) = of(spot.old) {
                lost.entry(ino).or_default().push(at);
            }
        }
        let mut old_told = vec![false; spots.len()];
        let mut new_told = vec![false; spots.len()];
        for (at, spot) in spots.iter().enumerate() {
            let Some(ino) = of(spot.new) else { continue };
            let Some(source) = lost.get_mut(&ino).and_then(Vec::pop) else { continue };
            (old_told[source], new_told[at]) = (true, true);
            let (Some(old), Some(new)) = (spots[source].old, spot.new) else { continue };
            let old_path = self.from.path(old.dir, &spots[source].name)?;
            let path = self.to.path(new.dir, &spot.name)?;
            let Some(both) = self.both(ino)? else { continue };
            if old_path != path {
                // Its content is told once, under one of its names.
                self.tell(Change::Renamed, &both, path, Some(old_path), Facets::default())?;
            }
        }
        for (at, spot) in spots.iter().enumerate() {
            self.settle(spot, old_told[at], new_told[at])?;
        }
        Ok(())
    }

    /// The directory of the other state that lies where this one does, which only `of` has.
    fn counterpart(&mut self, of: Which, dir: Ino) -> Result<Option<Ino>> {
        let mut below = Vec::new();
        let mut here = dir;
        let mut found = loop {
            if let Some(known) = self.counterparts.get(&(of, here)) {
                break *known;
            }
            if self.side(of.other()).has_directory(here)? {
                break Some(here);
            }
            let inode = self.side(of).inode(here)?;
            let place = inode.map(|inode| self.side(of).place(here, &inode)).transpose()?.flatten();
            let Some((parent, name)) = place else { break None };
            below.push((here, name));
            here = parent;
        };
        for (dir, name) in below.into_iter().rev() {
            found = match found {
                Some(parent) => self.twin(of.other(), parent, &name)?,
                None => None,
            };
            if self.counterparts.len() >= COUNTERPARTS_MAX {
                self.counterparts.clear();
            }
            self.counterparts.insert((of, dir), found);
        }
        Ok(found)
    }

    /// The directory `name` in `parent`, if only `of` has it.
    fn twin(&mut self, of: Which, parent: Ino, name: &[u8]) -> Result<Option<Ino>> {
        let entry = self.side(of).entry(parent, name)?;
        let entry = entry.filter(|entry| entry.kind == FileKind::Directory);
        match entry {
            Some(entry) if !self.side(of.other()).has_directory(entry.ino)? => Ok(Some(entry.ino)),
            _ => Ok(None),
        }
    }

    // ---- telling

    fn tell_arrival(&mut self, end: End, name: &[u8]) -> Result<()> {
        let ino = end.entry.ino;
        let Some(both) = self.both(ino)? else { return Ok(()) };
        let Some(old) = self.from.place(ino, &both.old)? else {
            self.arrived.insert(ino);
            let full = self.arrived.len() >= NAMELESS_MAX;
            return if full { self.name_the_arrived() } else { Ok(()) };
        };
        self.tell_renamed(&both, &old, &(end.dir, name.into()))
    }

    fn tell_renamed(&mut self, both: &Both, old: &Place, new: &Place) -> Result<()> {
        let facets = self.facets_of(both)?;
        let old_path = self.from.path(old.0, &old.1)?;
        let path = self.to.path(new.0, &new.1)?;
        if self.is_same_place(old, new)? {
            // It moved into the directory that took its directory's place: told as a change.
            return Ok(());
        }
        self.tell(Change::Renamed, both, path, Some(old_path), facets)
    }

    fn tell_changed(&mut self, both: &Both, path: Vec<u8>, facets: Facets) -> Result<()> {
        self.tell(Change::Changed, both, path, None, facets)
    }

    fn tell(
        &mut self,
        change: Change,
        both: &Both,
        path: Vec<u8>,
        old_path: Option<Vec<u8>>,
        facets: Facets,
    ) -> Result<()> {
        (self.each)(Difference {
            change,
            kind: both.new.kind.into(),
            path,
            old_path,
            ino: both.ino,
            facets,
            old_size: size_of(&both.old),
            size: size_of(&both.new),
        })
    }

    fn tell_replaced(&mut self, old: End, new: End, name: &[u8]) -> Result<()> {
        let (Some(before), Some(after)) =
            (self.from.inode(old.entry.ino)?, self.to.inode(new.entry.ino)?)
        else {
            return Ok(());
        };
        let a = (self.from.at(), old.entry.ino, &before);
        let facets = facets(self.state, a, (self.to.at(), new.entry.ino, &after))?;
        if facets.is_none() {
            return Ok(());
        }
        let path = self.to.path(new.dir, name)?;
        (self.each)(Difference {
            change: Change::Changed,
            kind: after.kind.into(),
            path,
            old_path: None,
            ino: new.entry.ino,
            facets,
            old_size: size_of(&before),
            size: size_of(&after),
        })
    }

    fn tell_alone(&mut self, of: Which, end: End, name: &[u8]) -> Result<()> {
        let side = self.side(of);
        let path = side.path(end.dir, name)?;
        let size = side.inode(end.entry.ino)?.as_ref().and_then(size_of);
        let added = of == Which::To;
        (self.each)(Difference {
            change: if added { Change::Added } else { Change::Removed },
            kind: end.entry.kind.into(),
            path,
            old_path: None,
            ino: end.entry.ino,
            facets: Facets::default(),
            old_size: size.filter(|_| !added),
            size: size.filter(|_| added),
        })
    }
}

fn size_of(inode: &Inode) -> Option<u64> {
    (inode.kind == FileKind::Regular).then_some(inode.size)
}
