//! Snapshots: which must be there, and what must be in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use super::clock::{Clock, Rng, Tick};
use super::tree::{Full, differences, read_full};

/// Snapshots that are kept; the oldest ones go.
const KEPT: usize = 4;

pub struct Shot {
    pub name: String,
    pub begun: Tick,
    /// When it was reported as made.
    pub made: Option<Tick>,
    /// What is in it, once that is known.
    pub manifest: Option<BTreeMap<String, Full>>,
    /// It was compared with its manifest after a kill.
    pub compared: bool,
    /// Its deletion was begun; whether it was reported as done.
    pub deleted: Option<bool>,
    /// The mirror's durable generation when it was begun.
    pub mirrored: usize,
}

#[derive(Default)]
pub struct Shots {
    list: Mutex<Vec<Shot>>,
    names: u64,
}

impl Shots {
    pub fn list(&mut self) -> &mut Vec<Shot> {
        self.list.get_mut().unwrap()
    }

    pub fn next_name(&mut self) -> String {
        self.names += 1;
        format!("s{}", self.names)
    }

    /// Takes a snapshot; a manifest is given if nothing changes meanwhile.
    pub fn take(
        &self,
        root: &Path,
        clock: &Clock,
        name: &str,
        mirrored: usize,
        manifest: Option<BTreeMap<String, Full>>,
    ) {
        let begun = clock.tick();
        let outcome = fs::create_dir(root.join(".snapshots").join(name));
        let made = outcome.is_ok().then(|| clock.tick());
        clock.accept(&outcome, || format!("snapshot {name}"));
        if made.is_some() {
            clock.promise(begun);
        }
        let name = name.to_owned();
        let shot = Shot { name, begun, made, manifest, compared: false, deleted: None, mirrored };
        self.list.lock().unwrap().push(shot);
    }

    /// Deletes one, if there are more than enough.
    pub fn thin_out(&self, root: &Path, clock: &Clock, rng: &mut Rng) {
        let mut list = self.list.lock().unwrap();
        let kept = list.iter().filter(|shot| shot.deleted.is_none()).count();
        if kept <= KEPT || clock.is_over() {
            return;
        }
        let at = rng.below(list.len());
        let shot = &mut list[at];
        if shot.deleted.is_some() || shot.made.is_none() {
            return;
        }
        let begun = clock.tick();
        let outcome = fs::remove_dir(root.join(".snapshots").join(&shot.name));
        clock.accept(&outcome, || format!("deletion of snapshot {}", shot.name));
        shot.deleted = Some(outcome.is_ok());
        if outcome.is_ok() {
            clock.promise(begun);
        }
    }

    /// After a kill: drops those that were not reported as made and are not there, and those whose
    /// deletion came through. Everything else must be listed, and nothing more.
    pub fn settle(&mut self, root: &Path) {
        let entries = fs::read_dir(root.join(".snapshots")).unwrap();
        let mut found: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        self.list().retain_mut(|shot| {
            let there = found.iter().position(|name| *name == shot.name);
            match (there, shot.made, shot.deleted) {
                (Some(_), _, Some(true)) => panic!("deleted snapshot {} is back", shot.name),
                (None, Some(_), None) => panic!("snapshot {} is gone", shot.name),
                (Some(at), _, _) => {
                    found.remove(at);
                    shot.deleted = None;
                    true
                }
                (None, _, _) => false,
            }
        });
        assert!(found.is_empty(), "snapshots that nobody took: {found:?}");
    }
}

impl Shot {
    /// It is, byte for byte, what it was.
    pub fn compare(&mut self, root: &Path) {
        let Some(manifest) = &self.manifest else { return };
        let found = read_full(&root.join(".snapshots").join(&self.name));
        assert!(
            *manifest == found,
            "snapshot {} is not what it was:\n{}",
            self.name,
            differences(manifest, &found)
        );
        self.compared = true;
    }
}
