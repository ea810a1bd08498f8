//! What `compare` says against two full walks of the tree, compared by other means: paths.

use std::collections::{BTreeMap, BTreeSet};

use stratafs::diff::{Attribute, Change, Depth, Difference, Facets};
use stratafs::find::Query;
use stratafs::types::{At, Cookie, FileKind, Ino, Inode};
use stratafs::volume::TreeState;

use crate::testkit::{TestVolume, read_all};

/// Everything a walk meets, by path.
type Walk = BTreeMap<Vec<u8>, Found>;

#[derive(Clone, Debug)]
struct Found {
    ino: Ino,
    inode: Inode,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    content: Vec<u8>,
    /// Directory and cookie: the order in which names of one inode are paired.
    order: (Ino, Cookie, Vec<u8>),
}

fn walk(volume: &TestVolume, at: At) -> Walk {
    let mut walked = Walk::new();
    let mut todo = vec![(Vec::new(), Ino::ROOT, (Ino(0), Cookie(0), Vec::new()))];
    while let Some((path, ino, order)) = todo.pop() {
        let inode = volume.stat(at, ino).unwrap().inode;
        let content = match inode.kind {
            FileKind::Regular => read_all(&volume.open_file(at, ino).unwrap()),
            _ => inode.target.to_vec(),
        };
        let value = |name: &[u8]| volume.xattr(at, ino, name).unwrap().unwrap();
        let names = volume.xattr_names(at, ino).unwrap();
        let xattrs = names.iter().map(|name| (name.to_vec(), value(name))).collect();
        if inode.kind == FileKind::Directory {
            for entry in volume.list_all(at, ino) {
                let path = join(&path, &entry.name);
                todo.push((path, entry.ino, (ino, entry.cookie, entry.name.to_vec())));
            }
        }
        walked.insert(path, Found { ino, inode, xattrs, content, order });
    }
    walked
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

struct Compared {
    old: Walk,
    new: Walk,
}

/// A place with what was there and what is there, as paths.
type Spot = (Option<Vec<u8>>, Option<Vec<u8>>);

impl Compared {
    fn paths(walk: &Walk, ino: Ino) -> Vec<&Vec<u8>> {
        walk.iter().filter(|(_, found)| found.ino == ino).map(|(path, _)| path).collect()
    }

    /// The path in `there` of the directory that lies where `dir` of `here` lies.
    fn twin(here: &Walk, there: &Walk, dir: &[u8]) -> Option<Vec<u8>> {
        if let Some(path) = Self::paths(there, here[dir].ino).first() {
            return Some((*path).clone());
        }
        let (parent, name) = split(dir);
        let path = join(&Self::twin(here, there, parent)?, name);
        let found = there.get(&path).filter(|f| f.inode.kind == FileKind::Directory)?;
        Self::paths(here, found.ino).is_empty().then_some(path)
    }

    fn is_single(&self, ino: Ino) -> bool {
        [&self.old, &self.new].iter().all(|walk| {
            let paths = Self::paths(walk, ino);
            walk[paths[0]].inode.kind == FileKind::Directory || walk[paths[0]].inode.nlink == 1
        })
    }

    fn spots(&self) -> Vec<Spot> {
        let mut spots = Vec::new();
        let mut met = BTreeSet::new();
        for path in self.old.keys().filter(|path| !path.is_empty()) {
            let (dir, name) = split(path);
            let there = Self::twin(&self.old, &self.new, dir).map(|dir| join(&dir, name));
            let there = there.filter(|path| self.new.contains_key(path));
            met.extend(there.clone());
            spots.push((Some(path.clone()), there));
        }
        let fresh = self.new.keys().filter(|path| !path.is_empty() && !met.contains(*path));
        spots.extend(fresh.map(|path| (None, Some(path.clone()))));
        spots
    }

    fn facets(a: &Found, b: &Found) -> Facets {
        let is_dir = a.inode.kind == FileKind::Directory;
        let differs = |attribute: &Attribute| match attribute {
            Attribute::Mode => a.inode.perm != b.inode.perm,
            Attribute::Owner => a.inode.uid != b.inode.uid,
            Attribute::Group => a.inode.gid != b.inode.gid,
            Attribute::Mtime => !is_dir && a.inode.mtime != b.inode.mtime,
            Attribute::Xattrs => a.xattrs != b.xattrs,
        };
        let attributes = Attribute::ALL.into_iter().filter(differs).collect();
        Facets { content: a.content != b.content, attributes }
    }

    fn difference(
        &self,
        change: Change,
        old: Option<&Vec<u8>>,
        new: Option<&Vec<u8>>,
        facets: Facets,
    ) -> Difference {
        let (before, after) = (old.map(|p| &self.old[p]), new.map(|p| &self.new[p]));
        let shown = after.or(before).unwrap();
        let size = |found: Option<&Found>| {
            found.filter(|f| f.inode.kind == FileKind::Regular).map(|f| f.inode.size)
        };
        Difference {
            change,
            kind: shown.inode.kind.into(),
            path: new.or(old).unwrap().clone(),
            old_path: old.filter(|_| change == Change::Renamed).cloned(),
            ino: shown.ino,
            facets,
            old_size: size(before),
            size: size(after),
        }
    }

    fn all(&self) -> Vec<Difference> {
        let mut told = self.changed_in_place();
        let spots: Vec<Spot> = self.spots();
        let (sources, targets) = self.moves(&spots, &mut told);
        for (old, new) in &spots {
            let (found, is) =
                (old.as_ref().map(|p| &self.old[p]), new.as_ref().map(|p| &self.new[p]));
            if found.zip(is).is_some_and(|(a, b)| a.ino == b.ino) {
                continue;
            }
            let old = old.as_ref().filter(|path| !sources.contains(*path));
            let new = new.as_ref().filter(|path| !targets.contains(*path));
            if let (Some(from), Some(to)) = (old, new)
                && self.old[from].inode.kind == self.new[to].inode.kind
            {
                let facets = Self::facets(&self.old[from], &self.new[to]);
                if !facets.is_none() {
                    told.push(self.difference(Change::Changed, old, new, facets));
                }
                continue;
            }
            let none = Facets::default;
            told.extend(old.map(|_| self.difference(Change::Removed, old, None, none())));
            told.extend(new.map(|_| self.difference(Change::Added, None, new, none())));
        }
        told
    }

    fn changed_in_place(&self) -> Vec<Difference> {
        let mut told = Vec::new();
        let inos: BTreeSet<Ino> = self.old.values().map(|found| found.ino).collect();
        for ino in inos {
            let (before, after) = (Self::paths(&self.old, ino), Self::paths(&self.new, ino));
            let (Some(old), Some(new)) = (before.first(), after.first()) else { continue };
            let facets = Self::facets(&self.old[*old], &self.new[*new]);
            let moved = self.is_single(ino) && !self.is_same_spot(old, new);
            if !facets.is_none() && !moved {
                told.push(self.difference(Change::Changed, Some(old), Some(new), facets));
            }
        }
        told
    }

    fn is_same_spot(&self, old: &[u8], new: &[u8]) -> bool {
        if old.is_empty() {
            return true;
        }
        let ((dir, name), (new_dir, new_name)) = (split(old), split(new));
        let twin = Self::twin(&self.old, &self.new, dir);
        name == new_name && twin.is_some_and(|dir| dir == new_dir)
    }

    /// Tells of all moves; the paths they lead from and to.
    fn moves(
        &self,
        spots: &[Spot],
        told: &mut Vec<Difference>,
    ) -> (BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>) {
        let (mut sources, mut targets) = (BTreeSet::new(), BTreeSet::new());
        let unchanged = |spot: &&Spot| match spot {
            (Some(old), Some(new)) => self.old[old].ino == self.new[new].ino,
            _ => false,
        };
        let changed: Vec<&Spot> = spots.iter().filter(|spot| !unchanged(spot)).collect();
        let mut lost: BTreeMap<Ino, Vec<&Vec<u8>>> = BTreeMap::new();
        let mut gained: BTreeMap<Ino, Vec<&Vec<u8>>> = BTreeMap::new();
        for (old, new) in &changed {
            if let Some(path) = old {
                lost.entry(self.old[path].ino).or_default().push(path);
            }
            if let Some(path) = new {
                gained.entry(self.new[path].ino).or_default().push(path);
            }
        }
        for (ino, mut from) in lost {
            let Some(mut to) = gained.remove(&ino) else { continue };
            // The order of the rows in which the engine meets them: those of the directory that is
            // there now, or of the one that was.
            from.sort_by_key(|path| Self::met_at(path, &self.old, &self.new));
            to.sort_by_key(|path| self.new[*path].order.clone());
            for (from, to) in from.into_iter().zip(to) {
                sources.insert(from.clone());
                targets.insert(to.clone());
                let single = self.is_single(ino);
                let facets = Self::facets(&self.old[from], &self.new[to]);
                let facets = if single { facets } else { Facets::default() };
                if single || from != to {
                    told.push(self.difference(Change::Renamed, Some(from), Some(to), facets));
                }
            }
        }
        (sources, targets)
    }

    fn met_at(path: &[u8], old: &Walk, new: &Walk) -> (Ino, Cookie, Vec<u8>) {
        let (dir, name) = split(path);
        let here = old[path].order.clone();
        let Some(twin) = Self::twin(old, new, dir) else { return here };
        // Without an entry in the directory that took its place, it is met in its own.
        match new.get(&join(&twin, name)) {
            Some(_) => (new[&twin].ino, here.1, here.2),
            None => here,
        }
    }

    /// What the difference may be one to.
    fn befores(&self, difference: &Difference) -> Vec<&Found> {
        if let Some(path) = &difference.old_path {
            return vec![&self.old[path]];
        }
        if let Some(path) = Self::paths(&self.old, difference.ino).first() {
            return vec![&self.old[*path]];
        }
        let (dir, name) = split(&difference.path);
        let twin = Self::twin(&self.new, &self.old, dir).expect("something was replaced");
        vec![&self.old[&join(&twin, name)]]
    }

    /// The engine knows chunks, not bytes: what it takes for changed content and is none, goes.
    fn without_false_content(&self, found: Vec<Difference>) -> Vec<Difference> {
        let without = |mut difference: Difference| {
            if matches!(difference.change, Change::Changed | Change::Renamed) {
                let new = &self.new[&difference.path];
                let changed = |old: &Found| old.content != new.content;
                difference.facets.content &= self.befores(&difference).into_iter().any(changed);
            }
            let nothing = difference.change == Change::Changed && difference.facets.is_none();
            (!nothing).then_some(difference)
        };
        found.into_iter().filter_map(without).collect()
    }
}

/// One name stands for all names of an inode whose content changed.
fn by_inode(mut told: Vec<Difference>, walked: &Compared) -> Vec<Difference> {
    for difference in &mut told {
        let names = Compared::paths(&walked.new, difference.ino);
        let kept = !Compared::paths(&walked.old, difference.ino).is_empty();
        if difference.change == Change::Changed && kept && names.len() > 1 {
            // Which name the engine chose must be one of them; then any will do.
            assert!(names.contains(&&difference.path), "{difference:?}");
            difference.path.clone_from(names[0]);
        }
    }
    told.sort();
    told.dedup();
    told
}

/// A search for everything finds what the walks do: path and state, inode, size and time.
fn assert_found(volume: &TestVolume, states: &[TreeState], walks: &[Walk]) {
    let mut found = BTreeSet::new();
    let all = Query { states: &[], name: &|_| true, path: &|_| true, inode: &|_| true };
    volume
        .search(states, all, &mut |one| {
            for version in one.versions {
                for state in version.states {
                    let what = (version.ino, version.size, version.mtime);
                    assert!(found.insert((one.path.clone(), state, what)), "{:?}", one.path);
                }
            }
            Ok(())
        })
        .unwrap();
    let walked = walks.iter().enumerate().flat_map(|(state, walk)| {
        let below = walk.iter().filter(|(path, _)| !path.is_empty());
        below.map(move |(path, found)| {
            let what = (found.ino, found.inode.size, found.inode.mtime);
            (path.clone(), state, what)
        })
    });
    assert_eq!(found, walked.collect());
}

/// Every pair of snapshots and the live tree, both ways.
pub fn assert_same(volume: &TestVolume) {
    let mut states: Vec<TreeState> =
        volume.snapshots().into_iter().map(TreeState::Snapshot).collect();
    states.push(TreeState::Live);
    let at = |state: &TreeState| match state {
        TreeState::Live => At::Live,
        TreeState::Snapshot(snapshot) => At::Epoch(snapshot.epoch),
    };
    let walks: Vec<Walk> = states.iter().map(|state| walk(volume, at(state))).collect();
    assert_found(volume, &states, &walks);
    for (from, old) in states.iter().zip(&walks) {
        for (to, new) in states.iter().zip(&walks) {
            let walked = Compared { old: old.clone(), new: new.clone() };
            let mut found = Vec::new();
            let mut each = |difference| {
                found.push(difference);
                Ok(())
            };
            volume.compare(from, to, Depth::Full, &mut each).unwrap();
            let found = by_inode(walked.without_false_content(found), &walked);
            let expected = by_inode(walked.all(), &walked);
            assert_eq!(found, expected, "from {from:?} to {to:?}");
        }
    }
}
