//! Writers: each changes a directory of its own, remembers what it did and what was promised to it,
//! and recognizes afterwards which of its states is there.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::clock::{Clock, Rng, Tick};
use super::tree::{Names, Op, Tree, content, differences, digest_of};

const O_SYNC: i32 = 0o4_010_000;
const O_DSYNC: i32 = 0o10_000;

/// What a writer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Writes temporary files and renames them over good ones, as rsync and editors do.
    Replacer,
    /// Overwrites in place through descriptors that stay open, and calls fsync or fdatasync.
    Overwriter,
    /// Appends with O_SYNC and O_DSYNC.
    Appender,
    /// Makes, links, moves and removes names.
    Gardener,
}

pub const STYLES: [Style; 4] =
    [Style::Replacer, Style::Overwriter, Style::Appender, Style::Gardener];

/// One change and when it happened; no `done` is one that was still under way.
struct Entry {
    op: Op,
    /// Hash of the tree after it.
    state: u64,
    begun: Tick,
    done: Option<Tick>,
}

pub struct Writer {
    pub style: Style,
    /// What is believed to be there after all entries.
    tree: Tree,
    base: Tree,
    base_state: u64,
    entries: Vec<Entry>,
    /// Entries that must be there whatever happens.
    promised: usize,
    open: HashMap<String, File>,
    rng: Rng,
    names: u64,
}

/// The moments at which the tree was as it is found: from `from` (included) to `to`.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub from: Tick,
    pub to: Tick,
    entries: usize,
}

impl Writer {
    pub fn new(style: Style, seed: u64) -> Self {
        let tree = Tree::default();
        let base_state = digest_of(&tree.names());
        Self {
            style,
            base: tree.clone(),
            tree,
            base_state,
            entries: Vec::new(),
            promised: 0,
            open: HashMap::new(),
            rng: Rng(seed),
            names: 0,
        }
    }

    /// Name of its directory.
    pub fn home(&self) -> String {
        format!("{:?}", self.style).to_lowercase()
    }

    /// Works until the process is killed or told to stop; an error is right only after the kill.
    pub fn work(&mut self, root: &Path, clock: &Clock) {
        let home = root.join(self.home());
        while !clock.is_over() {
            let op = self.next_op();
            if !self.perform(&home, op, clock) {
                break;
            }
            clock.count();
            if self.rng.one_in(9) && !self.sync(&home, clock) {
                break;
            }
        }
        self.open.clear();
    }

    /// False when the mount is gone.
    fn perform(&mut self, home: &Path, op: Op, clock: &Clock) -> bool {
        let steps = steps(op.clone()).into_iter().map(|step| {
            self.tree.apply(&step);
            (step, digest_of(&self.tree.names()))
        });
        let steps: Vec<_> = steps.collect();
        let begun = clock.tick();
        let outcome = call(home, &op, &mut self.open);
        let done = outcome.is_ok().then(|| clock.tick());
        let is_sync = matches!(&op, Op::Append { flags, .. } if *flags != 0);
        clock.accept(&outcome, || format!("{:?}: {op:?}", self.style));
        self.entries.extend(steps.into_iter().map(|(op, state)| Entry { op, state, begun, done }));
        if done.is_some() && is_sync {
            self.promised = self.entries.len();
            clock.promise(begun);
        }
        done.is_some()
    }

    /// Asks for everything so far to be durable, in one of the ways there are.
    fn sync(&mut self, home: &Path, clock: &Clock) -> bool {
        let begun = clock.tick();
        let outcome = match self.open.values().next() {
            Some(file) if self.rng.one_in(2) => file.sync_data(),
            Some(file) => file.sync_all(),
            None => File::open(home).and_then(|dir| dir.sync_all()),
        };
        clock.accept(&outcome, || format!("{:?}: sync", self.style));
        if outcome.is_ok() {
            self.promised = self.entries.len();
            clock.promise(begun);
        }
        outcome.is_ok()
    }

    // ---- afterwards

    /// When the tree was as `found`, as far as what was promised to this writer allows.
    pub fn spans(&self, found: &Names) -> Result<Vec<Span>, String> {
        let state = digest_of(found);
        let mut spans = Vec::new();
        for entries in self.promised..=self.entries.len() {
            if self.state_after(entries) == state {
                let from = self.begun(entries).unwrap_or(Tick(0));
                let next = self.entries.get(entries);
                let to = next.and_then(|next| next.done).unwrap_or(Tick(u64::MAX));
                spans.push(Span { from, to, entries });
            }
        }
        if spans.is_empty() { Err(self.explain(found)) } else { Ok(spans) }
    }

    /// As [`Writer::spans`] for a state that must not be newer than promised.
    pub fn any_spans(&mut self, found: &Names) -> Result<Vec<Span>, String> {
        let promised = std::mem::take(&mut self.promised);
        let spans = self.spans(found);
        self.promised = promised;
        spans
    }

    fn state_after(&self, entries: usize) -> u64 {
        entries.checked_sub(1).map_or(self.base_state, |last| self.entries[last].state)
    }

    fn begun(&self, entries: usize) -> Option<Tick> {
        entries.checked_sub(1).map(|last| self.entries[last].begun)
    }

    fn tree_after(&self, entries: usize) -> Tree {
        let mut tree = self.base.clone();
        self.entries[..entries].iter().for_each(|entry| tree.apply(&entry.op));
        tree
    }

    /// Why no state fits: which came before what was promised, or how far the nearest ones are.
    fn explain(&self, found: &Names) -> String {
        let state = digest_of(found);
        let lost = (0..self.promised).find(|entries| self.state_after(*entries) == state);
        let text = format!(
            "{:?}: {} changes, {} of them promised, last ones {:?}\n",
            self.style,
            self.entries.len(),
            self.promised,
            self.entries.iter().rev().take(4).map(|entry| &entry.op).collect::<Vec<_>>()
        );
        if let Some(entries) = lost {
            return text + &format!("it is as after {entries} changes: what was synced is lost");
        }
        let nearest = (self.promised..=self.entries.len())
            .map(|entries| differences(&self.tree_after(entries).names(), found))
            .min_by_key(|text| text.lines().count());
        text + "it is like no state; against the nearest one:\n" + &nearest.unwrap_or_default()
    }

    /// The state in `span` is what everything goes on from.
    pub fn go_on_from(&mut self, span: Span) {
        self.base = self.tree_after(span.entries);
        self.tree = self.base.clone();
        self.base_state = digest_of(&self.base.names());
        self.entries.clear();
        self.promised = 0;
    }

    /// Everything it did must be there.
    pub fn promise_all(&mut self) {
        self.promised = self.entries.len();
    }

    // ---- what to do next

    fn next_op(&mut self) -> Op {
        match self.style {
            Style::Replacer => self.next_replacement(),
            Style::Overwriter => self.next_overwrite(),
            Style::Appender => self.next_append(),
            Style::Gardener => self.next_in_garden(),
        }
    }

    fn write_at(&mut self, name: String, at: usize, len: usize) -> Op {
        Op::Write { name, at, seed: self.rng.next(), len, cut: len }
    }

    fn next_replacement(&mut self) -> Op {
        const TEMP: &str = ".doc.c.Ab12Cd";
        if !self.tree.has(TEMP) {
            return Op::Create(TEMP.to_owned());
        }
        let len = self.tree.len_of(TEMP);
        if len == 0 || (len < 60_000 && self.rng.one_in(3)) {
            let more = self.rng.below(30_000) + 1;
            return self.write_at(TEMP.to_owned(), len, more);
        }
        Op::Rename(TEMP.to_owned(), format!("doc{}.c", self.rng.below(8)))
    }

    fn next_overwrite(&mut self) -> Op {
        const BYTES: usize = 128 * 1024;
        let name = format!("page{}.db", self.rng.below(3));
        if !self.tree.has(&name) {
            return Op::Create(name);
        }
        if self.tree.len_of(&name) < BYTES {
            return self.write_at(name, 0, BYTES);
        }
        if self.rng.one_in(20) {
            return Op::Truncate(name, BYTES / 2 + self.rng.below(BYTES));
        }
        let len = if self.rng.one_in(2) { 4096 } else { self.rng.below(9000) + 1 };
        let at = self.rng.below(BYTES - len);
        self.write_at(name, if len == 4096 { at / 4096 * 4096 } else { at }, len)
    }

    fn next_append(&mut self) -> Op {
        let number = self.rng.below(3);
        let name = format!("line{number}.log");
        if !self.tree.has(&name) {
            return Op::Create(name);
        }
        if self.tree.len_of(&name) > 100_000 {
            return Op::Truncate(name, 0);
        }
        let flags = [O_SYNC, O_DSYNC, 0][number];
        Op::Append { name, seed: self.rng.next(), len: self.rng.below(3000) + 1, flags }
    }

    fn next_in_garden(&mut self) -> Op {
        self.names += 1;
        let fresh = format!("n{}-{}", self.names, self.rng.below(1000));
        let (files, dirs) = (self.tree.of_kind('f'), self.tree.of_kind('d'));
        let dir = self.rng.pick(&dirs).cloned();
        let place = match &dir {
            Some(dir) if dir.split('/').count() < 3 => format!("{dir}/{fresh}"),
            _ => fresh,
        };
        let file = self.rng.pick(&files).cloned();
        let Some(file) = file.filter(|_| files.len() > 3) else { return Op::Create(place) };
        match self.rng.below(12) {
            0 | 1 => Op::Create(place),
            2 | 3 => {
                let at = self.tree.len_of(&file).min(20_000);
                let len = self.rng.below(5000) + 1;
                self.write_at(file, at, len)
            }
            4 => Op::HardLink(file, place),
            5 => Op::Symlink(file, place),
            6 => Op::Rename(file, place),
            7 => Op::Chmod(file, 0o400 | self.rng.below(0o377) as u32),
            8 if dirs.len() < 8 => Op::MakeDir(place),
            9 => match dir {
                // Not into itself.
                Some(dir) if !place.starts_with(&format!("{dir}/")) => Op::Rename(dir, place),
                Some(dir) if self.tree.is_empty_dir(&dir) => Op::RemoveDir(dir),
                _ => Op::Remove(file),
            },
            10 => match self.rng.pick(&self.tree.of_kind('l')) {
                Some(link) => Op::Remove(link.clone()),
                None => Op::Remove(file),
            },
            _ if files.len() > 12 => Op::Remove(file),
            _ => Op::Create(place),
        }
    }
}

/// In which steps a change arrives. What goes through the page cache does so in pieces that end at
/// pages: the kernel sends a page that was not read yet on its own.
fn steps(op: Op) -> Vec<Op> {
    match &op {
        Op::Write { name, at, len, .. } if is_cached(name) => {
            let ends = (at + 1..at + len).filter(|end| end.is_multiple_of(4096));
            let cuts = ends.map(|end| end - at).chain([*len]);
            let step = |to: usize| {
                let mut step = op.clone();
                if let Op::Write { cut, .. } = &mut step {
                    *cut = to;
                }
                step
            };
            cuts.map(step).collect()
        }
        _ => vec![op],
    }
}

/// Whether the kernel keeps pages of it: not if it is open for writing only.
fn is_cached(name: &str) -> bool {
    name == "page2.db"
}

/// Carries out one change.
fn call(home: &Path, op: &Op, open: &mut HashMap<String, File>) -> io::Result<()> {
    match op {
        Op::Create(name) => {
            let mut how = OpenOptions::new();
            let file = how.write(true).create_new(true).mode(0o600).open(home.join(name))?;
            // Only the overwriter's names stay; the others' would grow stale.
            if name.starts_with("page") && !is_cached(name) {
                open.insert(name.clone(), file);
            }
            Ok(())
        }
        Op::Write { name, at, seed, len, .. } => {
            if name.starts_with("page") && !open.contains_key(name) {
                let file =
                    OpenOptions::new().read(is_cached(name)).write(true).open(home.join(name))?;
                open.insert(name.clone(), file);
            }
            let bytes = content(*seed, *len);
            match open.get(name) {
                Some(file) => file.write_all_at(&bytes, *at as u64),
                None => {
                    let file = OpenOptions::new().write(true).open(home.join(name))?;
                    file.write_all_at(&bytes, *at as u64)
                }
            }
        }
        Op::Append { name, seed, len, flags } => {
            let mut how = OpenOptions::new();
            let mut file = how.append(true).custom_flags(*flags).open(home.join(name))?;
            file.write_all(&content(*seed, *len))
        }
        Op::Truncate(name, len) => {
            let file = OpenOptions::new().write(true).open(home.join(name))?;
            file.set_len(*len as u64)
        }
        Op::Rename(from, to) => fs::rename(home.join(from), home.join(to)),
        Op::Remove(name) => fs::remove_file(home.join(name)),
        Op::MakeDir(name) => DirBuilder::new().mode(0o700).create(home.join(name)),
        Op::RemoveDir(name) => fs::remove_dir(home.join(name)),
        Op::Chmod(name, mode) => {
            fs::set_permissions(home.join(name), Permissions::from_mode(*mode))
        }
        Op::HardLink(name, new) => fs::hard_link(home.join(name), home.join(new)),
        Op::Symlink(target, name) => std::os::unix::fs::symlink(target, home.join(name)),
    }
}
