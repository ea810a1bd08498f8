//! A tree outside that changes, and what rsync makes of it inside.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use super::clock::{Clock, Rng};
use super::tree::{Full, content, digest};
use crate::testkit::try_run;

/// Content and time of a file of the source.
type Version = (u64, i64);

pub struct Mirror {
    source: PathBuf,
    target: PathBuf,
    /// What the source held, by generation.
    generations: Vec<BTreeMap<String, Version>>,
    /// The generation that is known to be durable in the target.
    durable: AtomicUsize,
    rng: Rng,
}

impl Mirror {
    pub fn new(source: PathBuf, target: PathBuf, seed: u64) -> Self {
        fs::create_dir(&source).unwrap();
        let generations = vec![BTreeMap::new()];
        Self { source, target, generations, durable: AtomicUsize::new(0), rng: Rng(seed) }
    }

    pub fn durable(&self) -> usize {
        self.durable.load(SeqCst)
    }

    /// The next generation of the source: some files are new, changed or gone.
    pub fn change(&mut self) {
        let generation = self.generations.len();
        let mut now = self.generations[generation - 1].clone();
        for _ in 0..8 {
            let number = self.rng.below(24);
            let name = format!("d{}/file{number}.txt", number % 3);
            let path = self.source.join(&name);
            if now.contains_key(&name) && self.rng.one_in(4) {
                fs::remove_file(&path).unwrap();
                now.remove(&name);
                continue;
            }
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let bytes = content(self.rng.next(), self.rng.below(40_000) + 1);
            fs::write(&path, &bytes).unwrap();
            let secs = 1_600_000_000 + generation as u64;
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            let nanos = i64::try_from(secs).unwrap() * 1_000_000_000;
            now.insert(name, (digest(&bytes), nanos));
        }
        self.generations.push(now);
    }

    /// Brings the target to the newest generation and makes that durable.
    pub fn run(&self, clock: &Clock) {
        let from = format!("{}/", self.source.display());
        let to = format!("{}/", self.target.display());
        let ran = try_run("rsync", &["-a", "--delete", "--timeout=60", &from, &to]);
        if ran.code != Some(0) {
            assert!(clock.is_killed(), "rsync failed although nobody was killed: {ran:#?}");
            return;
        }
        let begun = clock.tick();
        let synced = File::open(&self.target).and_then(|dir| dir.sync_all());
        clock.accept(&synced, || "fsync after rsync".to_owned());
        if synced.is_ok() {
            self.durable.store(self.generations.len() - 1, SeqCst);
            clock.promise(begun);
        }
        clock.count();
    }

    /// Every file is whole, and one of the versions that the source had since `oldest`.
    pub fn check(&self, found: &BTreeMap<String, Full>, oldest: usize) -> Result<(), String> {
        let prefix = "mirror/";
        let mut names: BTreeMap<&str, Option<Version>> = BTreeMap::new();
        for generation in &self.generations[oldest..] {
            names.extend(generation.keys().map(|name| (name.as_str(), None)));
        }
        for (path, full) in found {
            let Some(name) = path.strip_prefix(prefix) else { continue };
            let base = name.rsplit('/').next().unwrap_or_default();
            // What rsync did not come to rename.
            if full.seen.kind == 'f' && !base.starts_with('.') {
                names.insert(name, Some((full.seen.digest, full.times.0)));
            }
        }
        for (name, version) in names {
            let fits = |generation: &BTreeMap<_, _>| generation.get(name).copied() == version;
            if !self.generations[oldest..].iter().any(fits) {
                let known: Vec<_> = self.generations.iter().map(|g| g.get(name)).collect();
                let size = found.get(&format!("{prefix}{name}")).map(|full| full.seen.size);
                return Err(format!(
                    "{name} of {size:?} bytes is {version:?}, which is no version since {oldest} \
                     of {known:?}"
                ));
            }
        }
        Ok(())
    }
}
