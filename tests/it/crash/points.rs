//! The list of fault points is the truth.

use std::path::Path;

use stratafs::env::Point;

/// Points of `init`, and those that only real directories have; `local` reaches them.
const ELSEWHERE: [Point; 9] = [
    Point::InitShard,
    Point::InitTables,
    Point::InitRows,
    Point::InitSuperblock,
    Point::ShardMake,
    Point::ShardMark,
    Point::ShardMarked,
    Point::ShardSyncNames,
    Point::ShardCut,
];

pub fn reached_by_the_sweep() -> impl Iterator<Item = Point> {
    Point::ALL.iter().copied().filter(|point| !ELSEWHERE.contains(point))
}

pub fn reached_on_directories() -> impl Iterator<Item = Point> {
    ELSEWHERE.into_iter()
}

fn sources(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if !path.ends_with("env/faults.rs") && !path.ends_with("tests.rs") {
            found.push(std::fs::read_to_string(path).unwrap());
        }
    }
}

/// A point in two places would be hit at one and never swept at the other.
#[test]
fn every_point_is_passed_at_exactly_one_place() {
    let mut texts = Vec::new();
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut texts);
    let words = |text: &str| -> Vec<String> {
        let parts = text.split("Point::").skip(1);
        parts.map(|p| p.chars().take_while(|c| c.is_alphanumeric()).collect()).collect()
    };
    let mut passed: Vec<String> = texts.iter().flat_map(|text| words(text)).collect();
    passed.sort();
    let mut listed: Vec<String> = Point::ALL.iter().map(|point| format!("{point:?}")).collect();
    listed.sort();
    assert_eq!(passed, listed);
    let mut names: Vec<&str> = Point::ALL.iter().map(|point| point.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Point::ALL.len(), "two points have one name");
}
