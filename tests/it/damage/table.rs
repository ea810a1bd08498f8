//! The table for files: superblock, database, containers, marker, configuration.

use super::cells::{Container, Damage, Region, containers, database_files};
use super::stage::{Copy, Outcome, judge, original};

/// Positions tried in each cell.
const POSITIONS: u64 = 3;

/// What a cell may end in, besides full recovery.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    /// Exit codes of a refusal.
    codes: &'static [u8],
    /// Files may give errors while the volume is open for writing.
    errors: bool,
    /// Files may be missing when it was refused, and opened read-only.
    older: bool,
}

const NOTHING: Allowed = Allowed { codes: &[], errors: false, older: false };

/// Judges one cell by what holds for all of them.
fn assert_outcome(outcome: &Outcome, allowed: Allowed, cell: &str) {
    let text = || format!("{cell}: {outcome:#?}");
    if let Some((code, sentence)) = &outcome.refused {
        assert!(allowed.codes.contains(code), "exit code {code}: {}", text());
        assert!(sentence.contains("volume"), "names no file: {}", text());
        assert_eq!(sentence.lines().count(), 1, "{}", text());
        if outcome.readable && !outcome.failed.is_empty() {
            assert!(allowed.older || allowed.errors, "{}", text());
            assert!(!outcome.problems.is_empty(), "lost in silence: {}", text());
        }
        return;
    }
    assert!(outcome.readable, "{}", text());
    assert!(outcome.missing.is_empty(), "names lost in silence: {}", text());
    if !outcome.failed.is_empty() {
        assert!(allowed.errors, "{}", text());
        assert!(!outcome.problems.is_empty(), "check does not find it: {}", text());
    }
    if !allowed.errors {
        assert!(outcome.writable, "cannot be used: {}", text());
    }
}

/// Runs all positions of the cells of one target.
fn run(
    target: &str,
    kinds: &[Damage],
    place: impl Fn(&Copy, u64) -> (Region, Option<std::path::PathBuf>),
    allowed: impl Fn(Damage) -> Allowed,
) {
    for damage in kinds {
        for seed in 0..POSITIONS {
            let cell = format!("{damage:?} × {target}, seed {seed}");
            let copy = Copy::new();
            let (region, other) = place(&copy, seed);
            region.damage(*damage, 1000 * (*damage as u64) + seed, other.as_deref());
            let outcome = judge(copy, &cell);
            assert_outcome(&outcome, allowed(*damage), &cell);
            // What a deletion or swap hits does not depend on a position.
            if *damage == Damage::Delete {
                break;
            }
        }
    }
}

/// A file that there is once.
fn single(name: &'static str) -> impl Fn(&Copy, u64) -> (Region, Option<std::path::PathBuf>) {
    move |copy, _| (Region::whole(copy.dir.join(name)), None)
}

/// A file of the database, another one for each seed.
fn database(
    is_meant: fn(&str) -> bool,
) -> impl Fn(&Copy, u64) -> (Region, Option<std::path::PathBuf>) {
    move |copy, seed| {
        let files = database_files(&copy.dir, is_meant);
        let at = usize::try_from(seed).unwrap();
        let file = files[at % files.len()].clone();
        let other = files.iter().find(|f| **f != file).cloned();
        (Region::whole(file), other)
    }
}

#[test]
fn the_original_is_sound() {
    let outcome = judge(Copy::new(), "no damage");
    assert!(outcome.refused.is_none() && outcome.failed.is_empty(), "{outcome:#?}");
    assert!(outcome.problems.is_empty() && outcome.writable, "{outcome:#?}");
    let all = containers(&original().dir);
    assert!(all.iter().filter(|c| c.footer.is_some()).count() >= 3, "{all:#?}");
    assert!(all.iter().filter(|c| c.footer.is_none()).count() >= 2, "{all:#?}");
    assert!(original().in_log.len() == 3);
}

#[test]
fn superblock() {
    run("superblock", &Damage::ALL, single("superblock"), |damage| Allowed {
        codes: if damage == Damage::Delete { &[3] } else { &[4, 5] },
        ..NOTHING
    });
}

#[test]
fn table_files() {
    let sst: fn(&str) -> bool = |name| name.rsplit('.').next() == Some("sst");
    run("SST", &Damage::ALL, database(sst), |_| Allowed {
        codes: &[5],
        errors: true,
        older: false,
    });
}

#[test]
fn log_of_the_database() {
    let log: fn(&str) -> bool = |name| name.rsplit('.').next() == Some("log");
    run("WAL", &Damage::ALL, database(log), |_| Allowed {
        codes: &[5],
        errors: false,
        older: true,
    });
}

#[test]
fn manifest() {
    run("MANIFEST", &Damage::ALL, database(|name| name.starts_with("MANIFEST-")), |_| Allowed {
        codes: &[5],
        errors: true,
        older: true,
    });
}

#[test]
fn current() {
    let allowed = |_| Allowed { codes: &[5], ..NOTHING };
    run("CURRENT", &Damage::ALL, database(|name| name == "CURRENT"), allowed);
}

#[test]
fn options_and_identity() {
    run("OPTIONS", &Damage::ALL, database(|name| name.starts_with("OPTIONS-")), |_| NOTHING);
    run("IDENTITY", &Damage::ALL, database(|name| name == "IDENTITY"), |_| NOTHING);
}

#[test]
fn last_commit() {
    run("last-commit", &Damage::ALL, single("last-commit"), |_| NOTHING);
}

#[test]
fn marker() {
    let allowed = |_| Allowed { codes: &[4, 9], ..NOTHING };
    run("shard.id", &Damage::ALL, single("shards/0/shard.id"), allowed);
}

#[test]
fn configuration() {
    // Every value is somebody's choice: a flip that gives another valid file is not damage.
    run("config.toml", &Damage::ALL, single("config.toml"), |_| Allowed { codes: &[8], ..NOTHING });
}

/// The part of a container that a cell is about.
fn part(container: &Container, name: &str, seed: u64) -> (usize, usize) {
    let frame = container.frames[usize::try_from(seed).unwrap() % container.frames.len()];
    match name {
        "container header" => (0, 64),
        "frame header" => (frame.start, frame.start + 32),
        "frame directory" => (frame.start + 32, frame.payload),
        "payload" => (frame.payload, frame.end),
        _ => (container.footer.unwrap(), container.len),
    }
}

/// Runs the cells of one part of the containers, sealed ones and open ones.
fn container_cells(name: &'static str) {
    let sealed_only = name == "footer";
    let place = |copy: &Copy, seed: u64| {
        let all = containers(&copy.dir);
        let fit: Vec<&Container> = all
            .iter()
            .filter(|c| !c.frames.is_empty() && (!sealed_only || c.footer.is_some()))
            .collect();
        let container = fit[usize::try_from(seed * 2 + 1).unwrap() % fit.len()];
        let (start, end) = part(container, name, seed);
        let other = fit.iter().find(|c| c.path != container.path).unwrap().path.clone();
        (Region { path: container.path.clone(), start, end }, Some(other))
    };
    // Bytes outside of frames carry nobody's data.
    let carries_data = !matches!(name, "container header" | "footer");
    run(name, &Damage::ALL, place, |damage| Allowed {
        codes: &[],
        errors: carries_data || matches!(damage, Damage::Cut | Damage::Delete | Damage::Swap),
        older: false,
    });
}

#[test]
fn container_header() {
    container_cells("container header");
}

#[test]
fn frame_header() {
    container_cells("frame header");
}

#[test]
fn frame_directory() {
    container_cells("frame directory");
}

#[test]
fn payload() {
    container_cells("payload");
}

#[test]
fn footer() {
    container_cells("footer");
}

/// Files whose bytes lie elsewhere are readable, whatever happens to a container.
#[test]
fn neighbours_of_a_container_are_readable() {
    for damage in [Damage::Flip, Damage::Delete, Damage::Zero] {
        for (at, container) in containers(&original().dir).iter().enumerate() {
            let Some(frame) = container.frames.first().copied() else { continue };
            let copy = Copy::new();
            let path = copy.dir.join(container.path.strip_prefix(&original().dir).unwrap());
            let region = Region { path, start: frame.payload, end: frame.end };
            region.damage(damage, 7, None);
            let cell = format!("{damage:?} × container {at}");
            let outcome = judge(copy, &cell);
            // A container holds one class, and there are files of four.
            let hit = |end: &str| outcome.failed.iter().any(|path| path.ends_with(end));
            let classes = [".rs", ".mp4", ".db", ".bin"].iter().filter(|end| hit(end)).count();
            assert!(classes <= 1, "{cell}: {outcome:#?}");
            assert_eq!(classes == 0, outcome.problems.is_empty(), "{cell}: {outcome:#?}");
        }
    }
}
