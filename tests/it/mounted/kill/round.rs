//! One round: load, a kill somewhere in it, a mount, and everything that was promised.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::bed::Bed;
use super::clock::{Clock, Rng, Tick};
use super::mirror::Mirror;
use super::shots::Shots;
use super::tree::{Full, Names, read_full};
use super::writer::{STYLES, Span, Writer};

/// Where the kill falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Load,
    Gc,
    Unmount,
    /// Under load, and then again and again while it is being mounted.
    Mount,
}

/// Under load a kill waits for a number of calls that succeeded, or for this long.
const LOAD_MAX: Duration = Duration::from_secs(5);
const CALLS_MAX: usize = 1500;

pub struct Killer {
    pub bed: Bed,
    writers: Vec<Writer>,
    mirror: Mirror,
    shots: Shots,
    rng: Rng,
    pub kills: u64,
    /// Unmounts that had returned before the kill.
    unmounted: u64,
    round: u64,
    /// Every snapshot and every byte is read after every kill.
    thorough: bool,
}

impl Killer {
    pub fn new(seed: u64, thorough: bool) -> Self {
        let mut bed = Bed::new();
        bed.configure("[limits]\ncommit_interval_secs = 1\n");
        bed.mount();
        let writers: Vec<_> = STYLES.iter().map(|style| Writer::new(*style, seed)).collect();
        for home in writers.iter().map(Writer::home).chain(["mirror".to_owned()]) {
            fs::create_dir(bed.mnt().join(home)).unwrap();
        }
        fs::File::open(bed.mnt()).unwrap().sync_all().unwrap();
        let mirror = Mirror::new(bed.path("source"), bed.mnt().join("mirror"), seed + 1);
        let (shots, rng) = (Shots::default(), Rng(seed + 2));
        Self { bed, writers, mirror, shots, rng, kills: 0, unmounted: 0, round: 0, thorough }
    }

    pub fn round(&mut self, moment: Moment, seed: u64) {
        self.round += 1;
        self.bed.alive();
        self.bed.story = format!("seed {seed}, round {}, {moment:?}", self.round);
        let clock = Clock::default();
        self.quiet_snapshot(&clock);
        self.mirror.change();
        self.load_and_kill(moment, &clock);
        self.kills += 1;
        // A slow stream of commits, or none but those that are asked for.
        let interval = if self.rng.one_in(2) { 1 } else { 3600 };
        self.bed.configure(&format!("[limits]\ncommit_interval_secs = {interval}\n"));
        if moment == Moment::Mount {
            for _ in 0..4 {
                let usual = self.bed.mount_times.iter().min().unwrap().as_micros() as usize;
                let after = self.rng.below(usual + usual / 2);
                self.bed.kill_mounting(Duration::from_micros(after as u64));
                self.kills += 1;
            }
        }
        self.bed.mount();
        self.verify(&clock);
    }

    /// A snapshot of a tree at rest, with a manifest of the live tree.
    fn quiet_snapshot(&mut self, clock: &Clock) {
        if self.rng.one_in(3) {
            let manifest = read_full(&self.bed.mnt());
            let (name, mirrored) = (self.shots.next_name(), self.mirror.durable());
            self.shots.take(&self.bed.mnt(), clock, &name, mirrored, Some(manifest));
        }
    }

    fn load_and_kill(&mut self, moment: Moment, clock: &Clock) {
        let root = self.bed.mnt();
        let after_calls = self.rng.below(CALLS_MAX) as u64;
        // Sometimes an unmount is done before.
        let pause_max = if moment == Moment::Unmount { 300_000 } else { 30_000 };
        let pause = Duration::from_micros(self.rng.below(pause_max) as u64);
        let names = [self.shots.next_name(), self.shots.next_name()];
        let mut rng = Rng(self.rng.next());
        let unmounted = AtomicU64::new(0);
        let (bed, mirror, shots) = (&self.bed, &self.mirror, &self.shots);
        let (root, unmounted_at) = (&root, &unmounted);
        std::thread::scope(|threads| {
            for writer in &mut self.writers {
                threads.spawn(move || writer.work(root, clock));
            }
            let mirroring = threads.spawn(move || mirror.run(clock));
            let shooting = threads.spawn(move || {
                for name in names {
                    let wait_for = clock.calls() + rng.below(600) as u64;
                    while clock.calls() < wait_for && !clock.is_over() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    if !clock.is_over() {
                        shots.take(root, clock, &name, mirror.durable(), None);
                        shots.thin_out(root, clock, &mut rng);
                    }
                }
            });
            let began = Instant::now();
            while clock.calls() < after_calls && began.elapsed() < LOAD_MAX && !clock.is_over() {
                std::thread::sleep(Duration::from_micros(500));
            }
            if moment == Moment::Gc {
                threads.spawn(move || {
                    let ran = bed.ask(&["gc"], &[]);
                    assert!(ran.code == Some(0) || clock.is_killed(), "gc: {ran:#?}");
                });
            }
            if moment == Moment::Unmount {
                clock.end();
                // Whoever has something open would make it busy.
                let _ = (mirroring.join(), shooting.join());
                threads.spawn(move || {
                    let ran = bed.ask(&["umount"], &[]);
                    if ran.stderr.contains("had died") {
                        // The kill was faster: only the dead mount was taken away.
                        assert!(clock.is_killed(), "umount: {ran:#?}");
                    } else if ran.code == Some(0) {
                        unmounted_at.store(clock.tick().0, SeqCst);
                    } else {
                        assert!(clock.is_killed(), "umount: {ran:#?}");
                    }
                });
            }
            std::thread::sleep(pause);
            clock.killing();
            bed.kill();
        });
        bed.gone();
        if unmounted.load(SeqCst) != 0 {
            self.unmounted += 1;
            clock.promise(Tick(unmounted.load(SeqCst)));
            self.writers.iter_mut().for_each(Writer::promise_all);
        }
    }

    // ---- afterwards

    fn verify(&mut self, clock: &Clock) {
        let root = self.bed.mnt();
        self.bed.assert_no_errors_logged();
        self.shots.settle(&root);
        self.verify_new_shots();
        let every = self.thorough || self.round.is_multiple_of(10);
        let one = self.rng.next() as usize;
        let shots = self.shots.list();
        let count = shots.len();
        for (at, shot) in shots.iter_mut().enumerate() {
            if every || !shot.compared || at == one % count {
                shot.compare(&root);
            }
        }
        let live = read_full(&root);
        let spans = spans_of(&mut self.writers, &live, false).unwrap_or_else(|e| panic!("{e}"));
        let instant = one_instant(&spans, clock.promised(), Tick(u64::MAX));
        let instant = instant.unwrap_or_else(|e| panic!("the tree is no instant: {e}"));
        self.mirror.check(&live, self.mirror.durable()).unwrap_or_else(|e| panic!("{e}"));
        for (writer, spans) in self.writers.iter_mut().zip(&spans) {
            let span = spans.iter().find(|span| span.from <= instant && instant < span.to);
            writer.go_on_from(*span.unwrap());
        }
        let read_data = self.thorough || self.round.is_multiple_of(5);
        let rest = if read_data { &["--read-data", "--json"][..] } else { &["--json"] };
        let checked = self.bed.ask(&["check"], rest).json();
        assert_eq!(checked["problems"], serde_json::json!([]), "{checked:#}");
        let status = self.bed.ask(&["status"], &["--json"]).json();
        assert!(status["poisoned"].is_null() && status["read_only"] == false, "{status:#}");
    }

    /// What was taken under load must be one instant of the whole tree, between the beginning and
    /// the end of the call; from then on it must stay that.
    fn verify_new_shots(&mut self) {
        let root = self.bed.mnt();
        for shot in self.shots.list() {
            if shot.manifest.is_some() {
                continue;
            }
            let found = read_full(&root.join(".snapshots").join(&shot.name));
            let told = |e: String| -> ! { panic!("snapshot {}: {e}", shot.name) };
            let spans = spans_of(&mut self.writers, &found, true).unwrap_or_else(|e| told(e));
            let until = shot.made.unwrap_or(Tick(u64::MAX));
            one_instant(&spans, shot.begun, until).unwrap_or_else(|e| told(e));
            self.mirror.check(&found, shot.mirrored).unwrap_or_else(|e| told(e));
            shot.manifest = Some(found);
        }
    }

    /// One line for a summary.
    pub fn summary(&self) -> String {
        let mut times = self.bed.mount_times.clone();
        times.sort_unstable();
        format!(
            "{} kills in {} rounds survived, {} unmounts were faster; ready again after \
             {:?} (median), {:?} (slowest)",
            self.kills,
            self.round,
            self.unmounted,
            times[times.len() / 2],
            times[times.len() - 1]
        )
    }
}

fn spans_of(
    writers: &mut [Writer],
    found: &BTreeMap<String, Full>,
    of_snapshot: bool,
) -> Result<Vec<Vec<Span>>, String> {
    let spans = writers.iter_mut().map(|writer| {
        let prefix = format!("{}/", writer.home());
        let own = |(path, full): (&String, &Full)| {
            path.strip_prefix(&prefix).map(|path| (path.to_owned(), full.seen.clone()))
        };
        let own: Names = found.iter().filter_map(own).collect();
        if of_snapshot { writer.any_spans(&own) } else { writer.spans(&own) }
    });
    spans.collect()
}

/// A moment from `from` to `to` at which all writers' trees were as they are found.
fn one_instant(writers: &[Vec<Span>], from: Tick, to: Tick) -> Result<Tick, String> {
    let begins = writers.iter().flatten().map(|span| span.from).chain([from]);
    let mut moments: Vec<Tick> = begins.filter(|tick| (from..to).contains(tick)).collect();
    moments.sort_unstable();
    let fits = |moment: &Tick| {
        let at = |span: &Span| span.from <= *moment && *moment < span.to;
        writers.iter().all(|spans| spans.iter().any(at))
    };
    moments.into_iter().find(fits).ok_or_else(|| format!("from {from:?} to {to:?}: {writers:?}"))
}
