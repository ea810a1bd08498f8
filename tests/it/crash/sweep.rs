//! The sweep: a cut or a failure at every point, then everything is compared.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use stratafs::check::{self, CheckOptions};
use stratafs::env::{Fault, Faults, Point, SeededRandom};
use stratafs::error::{Error, Result};
use stratafs::volume::Volume;

use super::machine::{Left, Machine};
use super::points::reached_by_the_sweep;
use super::state::State;
use super::work::{Commits, STEPS, STEPS_AFTER, Site, Work, env};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

fn env_number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// The workloads to run: `cases` of them unless the environment says otherwise.
fn seeds(cases: u64) -> impl Iterator<Item = u64> {
    let first = env_number("STRATAFS_CRASH_SEED");
    let default = if first.is_some() { 1 } else { cases };
    let cases = env_number("STRATAFS_CRASH_CASES").unwrap_or(default);
    let first = first.unwrap_or(0);
    first..first + cases
}

/// What to do where.
#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    commits: Commits,
    armed: Option<(Point, u64, Fault)>,
}

/// Cuts that came, by point.
type Tally = RefCell<BTreeMap<Point, u64>>;

/// A run: names itself should it panic.
struct Run<'a> {
    plan: &'a Plan,
    tally: &'a Tally,
    work: Work<'a>,
    faults: Faults,
    random: SeededRandom,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Plan { seed, commits, armed } = self.plan;
            eprintln!("STRATAFS_CRASH_SEED={seed} replays this: commits {commits:?}, {armed:?}");
            let last = self.work.log.iter().rev().take(12).rev();
            last.for_each(|done| eprintln!("  {done}"));
        }
    }
}

impl<'a> Run<'a> {
    /// Opens a copy of a new volume and arms what the plan says.
    fn start(plan: &'a Plan, tally: &'a Tally, (site, new): (&'a Site, &Machine)) -> Self {
        let random = SeededRandom::new(plan.seed ^ 0x5eed);
        let machine = Arc::new(new.after_power_cut(Left::Least, &random));
        site.set_last_commit(None);
        let faults = Faults::watching(machine.power.clone());
        let env = env(plan.seed, faults.clone());
        let volume = site.open(&machine, &env).unwrap();
        let state = Arc::new(State::first(&volume));
        let work = Work::new(site, machine, plan.commits, plan.seed, volume, state);
        if let Some((point, nth, fault)) = &plan.armed {
            faults.arm(*point, *nth, fault.clone());
        }
        Self { plan, tally, work, faults, random }
    }

    fn note(&self, point: Point, faults: &Faults) {
        *self.tally.borrow_mut().entry(point).or_default() += u64::from(faults.has_fired());
    }

    /// The whole workload, up to its first failure.
    fn work(&mut self) -> Result<()> {
        (0..STEPS).try_for_each(|number| self.work.step(number))?;
        self.work.close()
    }

    /// States that a commit may have left.
    fn candidates(&self) -> Vec<Arc<State>> {
        let work = &self.work;
        let newest = work.pending.iter().chain([work.last()]).cloned();
        match (self.plan.commits, work.committing) {
            (Commits::Asked, false) => vec![Arc::clone(&work.states[work.floor])],
            (Commits::Asked, true) => {
                newest.chain([Arc::clone(&work.states[work.floor])]).collect()
            }
            (Commits::Always, _) => {
                newest.chain(work.states[work.floor..].iter().rev().cloned()).collect()
            }
        }
    }
}

/// The one of `candidates` that the volume holds.
fn the_one(volume: &Arc<Volume>, candidates: &[Arc<State>], what: &str) -> Arc<State> {
    let found = State::find(volume);
    let same = candidates.iter().find(|state| state.differs(&found).is_none());
    if let Some(same) = same {
        return Arc::clone(same);
    }
    let why: Vec<String> = candidates.iter().filter_map(|state| state.differs(&found)).collect();
    panic!(
        "{what}: none of {} states is there; the nearest: {:#?}",
        why.len(),
        &why[..why.len().min(3)]
    );
}

fn assert_sound(volume: &Arc<Volume>) {
    let report = check::run(volume, CheckOptions { read_data: true }, &mut |_| {}).unwrap();
    assert!(report.problems.is_empty(), "{:#?}", report.problems);
}

/// Opens every way the cut may have left the disks; then crashes again, at a point of the opening
/// or while writing goes on.
fn look_at_what_is_left(run: &mut Run<'_>, site: &Site) {
    run.work.crash();
    let candidates = run.candidates();
    run.work.machine.power.cut();
    let last_commit = site.last_commit();
    for (number, left) in run.work.machine.ways().into_iter().enumerate() {
        let machine = Arc::new(run.work.machine.after_power_cut(left, &run.random));
        let seed = run.random.next();
        let kept = last_commit.as_deref().filter(|_| run.random.below(4) > 0);
        site.set_last_commit(kept);
        let at_opening = run.random.below(3) == 0;
        let what = format!("after the cut, {left:?}");
        let (machine, candidates) = if at_opening {
            crash_while_opening(run, site, machine, &candidates)
        } else {
            (machine, candidates.clone())
        };
        let faults = Faults::watching(machine.power.clone());
        let env = env(seed, faults.clone());
        let volume = site.open(&machine, &env).unwrap_or_else(|e| panic!("{what}: {e}"));
        let state = the_one(&volume, &candidates, &what);
        assert_sound(&volume);
        if number == 0 {
            go_on(run, site, (machine, volume, state), seed);
        }
    }
}

/// The power is cut again before the opening is done.
fn crash_while_opening(
    run: &Run<'_>,
    site: &Site,
    machine: Arc<Machine>,
    candidates: &[Arc<State>],
) -> (Arc<Machine>, Vec<Arc<State>>) {
    const POINTS: [Point; 6] = [
        Point::OpenShards,
        Point::OpenStore,
        Point::RecoverDelete,
        Point::RecoverDeleted,
        Point::RecoverReopen,
        Point::OpenThreads,
    ];
    let point = POINTS[usize::try_from(run.random.below(6)).unwrap()];
    let fault = if run.random.below(2) == 0 { Fault::Cut } else { Fault::CutDuring };
    let faults = Faults::watching(machine.power.clone());
    faults.arm(point, 1 + run.random.below(2), fault);
    drop(site.open(&machine, &env(0, faults.clone())));
    run.note(point, &faults);
    machine.power.cut();
    let left = machine.ways()[1];
    (Arc::new(machine.after_power_cut(left, &run.random)), candidates.to_vec())
}

/// Writing goes on where the cut came, up to the next one.
fn go_on(
    run: &Run<'_>,
    site: &Site,
    (machine, volume, state): (Arc<Machine>, Arc<Volume>, Arc<State>),
    seed: u64,
) {
    let plan = Plan { armed: None, ..run.plan.clone() };
    let faults = volume.env().faults().clone();
    // Only a crash leaves what this point is about, so it comes more often than the others.
    let gc_first = run.random.below(4) == 0;
    let any = Point::ALL[usize::try_from(run.random.below(Point::ALL.len() as u64)).unwrap()];
    let point = if gc_first { Point::GcStray } else { any };
    faults.arm(point, 1 + run.random.below(2), Fault::Cut);
    let work = Work::new(site, machine, plan.commits, seed, volume, state);
    let random = SeededRandom::new(seed);
    let mut again = Run { plan: &plan, tally: run.tally, work, faults, random };
    // Numbers beyond the workload's: all operations are chosen by the seed. The cut ends them.
    let steps = |work: &mut Work<'_>| {
        if gc_first {
            work.gc()?;
        }
        (STEPS..STEPS + STEPS_AFTER).try_for_each(|number| work.step(number))
    };
    if let Err(error) = steps(&mut again.work) {
        assert!(again.faults.has_fired(), "nothing was cut, and yet: {error}");
    }
    again.note(point, &again.faults);
    again.work.crash();
    let candidates = again.candidates();
    again.work.machine.power.cut();
    let left = again.work.machine.ways()[1];
    let machine = Arc::new(again.work.machine.after_power_cut(left, &again.random));
    let volume = site.open(&machine, &env(seed, Faults::default())).unwrap();
    let what = format!("after a second cut, at {}", point.name());
    the_one(&volume, &candidates, &what);
    assert_sound(&volume);
}

/// How often each point is hit by a workload.
fn count(seed: u64, commits: Commits, site: &Site, new: &Machine) -> BTreeMap<Point, u64> {
    let plan = Plan { seed, commits, armed: None };
    let tally = Tally::default();
    let mut run = Run::start(&plan, &tally, (site, new));
    run.work().unwrap();
    Point::ALL.iter().map(|point| (*point, run.faults.hits(*point))).collect()
}

/// Hits of a point to try: the first, the third, and any.
fn hits(hits: u64, random: &SeededRandom) -> Vec<u64> {
    let mut some = vec![1, 3, 1 + random.below(hits)];
    some.retain(|hit| *hit <= hits);
    some.dedup();
    some
}

/// Cuts the power at every point; returns the points reached, and how many runs that took.
fn sweep_cuts(commits: Commits, cases: u64) {
    let (site, new) = Site::new();
    let tally = Tally::default();
    let (mut runs, mut seeds_run) = (0_u64, 0);
    for seed in seeds(cases) {
        seeds_run += 1;
        let random = SeededRandom::new(seed);
        for (point, total) in count(seed, commits, &site, &new) {
            for hit in hits(total, &random) {
                let fault = if random.below(2) == 0 { Fault::Cut } else { Fault::CutDuring };
                let plan = Plan { seed, commits, armed: Some((point, hit, fault)) };
                let mut run = Run::start(&plan, &tally, (&site, &new));
                if let Err(error) = run.work() {
                    assert!(run.faults.has_fired(), "nothing was cut, and yet: {error}");
                }
                run.note(point, &run.faults);
                runs += 1;
                look_at_what_is_left(&mut run, &site);
            }
        }
    }
    println!("{runs} power cuts over {seeds_run} workloads, commits {commits:?}");
    assert_all_reached(&tally.borrow(), seeds_run);
}

fn assert_all_reached(fired: &BTreeMap<Point, u64>, seeds_run: u64) {
    // One workload alone need not have a container to repack.
    if seeds_run >= 8 {
        let missed =
            reached_by_the_sweep().filter(|point| fired.get(point).is_none_or(|n| *n == 0));
        let missed: Vec<&str> = missed.map(Point::name).collect();
        assert!(missed.is_empty(), "no cut ever came at {missed:?}");
    }
}

/// A cut anywhere leaves the state of the last commit, exactly.
#[test]
fn a_power_cut_leaves_exactly_one_commit() {
    sweep_cuts(Commits::Asked, 20);
}

/// The same while commits go on in the background: what is left is a prefix of what was done.
#[test]
fn a_power_cut_among_background_commits_leaves_a_prefix() {
    sweep_cuts(Commits::Always, 14);
}

/// What happened to the call that met a failure is known; nothing durable is lost; a volume that
/// is poisoned says why.
fn look_after_a_failure(run: &mut Run<'_>, site: &Site, error: Option<Error>) {
    let armed = run.plan.armed.as_ref().expect("a failure was armed");
    if let Some(error) = &error {
        let named = error.to_string().contains(armed.0.name());
        assert!(named, "the error does not name its cause: {error}");
        assert!([EIO, ENOSPC, EROFS].contains(&error.errno()), "{error:?}");
    }
    let status = run.work.is_open().then(|| run.work.volume().status().unwrap());
    let Some(status) = status else {
        // It was being opened, or closed: what is left is what was committed.
        return look_at_what_is_left(run, site);
    };
    let volume = Arc::clone(run.work.volume());
    if let Some(first) = status.poisoned {
        assert!(first.contains(armed.0.name()), "the first cause is not kept: {first}");
        let refused = volume.set_xattr(
            stratafs::types::Ino::ROOT,
            b"user.x",
            b"",
            stratafs::volume::XattrMode::Any,
        );
        assert_eq!(refused.map_err(|e| e.errno()), Err(EROFS), "a poisoned volume took a change");
        assert_eq!(volume.commit().map_err(|e| e.errno()), Err(EROFS));
        assert_eq!(volume.status().unwrap().poisoned, Some(first));
        run.work.committing = true;
        drop(volume);
        return look_at_what_is_left(run, site);
    }
    // Nothing is lost: the call failed as a whole or can be taken for done, and a commit works.
    let before_or_after: Vec<_> =
        run.work.pending.iter().chain([run.work.last()]).cloned().collect();
    volume.commit().unwrap_or_else(|e| panic!("a commit after a failed call: {e}"));
    let state = the_one(&volume, &before_or_after, "after a failed call");
    assert_sound(&volume);
    drop(volume);
    run.work.states.push(state);
    run.work.pending = None;
    run.work.committing = false;
    run.work.floor = run.work.states.len() - 1;
    look_at_what_is_left(run, site);
}

/// Every step that can fail does, as a broken and as a full disk do.
#[test]
fn a_failing_step_is_named_and_loses_nothing() {
    let (site, new) = Site::new();
    let tally = Tally::default();
    let mut runs = 0;
    for seed in seeds(8) {
        let random = SeededRandom::new(seed);
        for (point, total) in count(seed, Commits::Asked, &site, &new) {
            for hit in hits(total, &random).into_iter().filter(|_| point.can_fail()) {
                for fault in [Fault::Io, Fault::Full] {
                    let armed = Some((point, hit, fault));
                    let plan = Plan { seed, commits: Commits::Asked, armed };
                    let mut run = Run::start(&plan, &tally, (&site, &new));
                    let error = run.work().err();
                    runs += 1;
                    look_after_a_failure(&mut run, &site, error);
                }
            }
        }
    }
    println!("{runs} failures");
}
