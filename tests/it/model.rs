//! The volume against an in-memory model, over random operations.
//!
//! Names come from a tiny alphabet, offsets from chunk edges, data from a few seeds: collisions are
//! the point. After every step what was touched is compared; regularly, and whenever a snapshot is
//! taken, the whole live tree and every snapshot: names, kinds, attributes, xattrs, content. A
//! snapshot is also compared, to the nanosecond, with what it showed when it was taken.
//!
//! Case N is replayed by `STRATAFS_MODEL_SEED=N`; `STRATAFS_MODEL_CASES` sets how many follow.

mod differences;
pub mod ops;
mod pair;
pub mod tree;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use ops::{Fill, Op, Place, Sizes, Who, op};
use pair::Pair;

/// Every class is cut at 4 KiB, so that files of a few pages have many edges.
const SMALL_CHUNKS: &str = r#"
[limits]
commit_interval_secs = 3600
dirty_bytes = "4MiB"
file_dirty_bytes = "2MiB"
[classes.other]
avg_bytes = "4KiB"
[classes.source]
avg_bytes = "4KiB"
[classes.log]
codec = "none"
avg_bytes = "4KiB"
[classes.database]
chunking = "fixed"
avg_bytes = "4KiB"
"#;

/// Most operations of a case.
const OPS_MAX: usize = 80;
/// Steps after which everything is compared.
const STEPS_BETWEEN_FULL_LOOKS: usize = 8;

fn run(ops: &[Op]) {
    let mut pair = Pair::new(SMALL_CHUNKS);
    first_files().iter().for_each(|op| pair.apply(0, op));
    for (step, op) in ops.iter().enumerate() {
        pair.apply(step, op);
        if step % STEPS_BETWEEN_FULL_LOOKS == STEPS_BETWEEN_FULL_LOOKS - 1 {
            pair.assert_same_everywhere();
        }
    }
    pair.assert_same_everywhere();
    pair.assert_same_differences();
    pair.assert_sound();
}

/// A few files and a directory, so that even the first operations have something to meet.
fn first_files() -> Vec<Op> {
    let place = |name| Place { dir: 0, name };
    let write = |number, fill| {
        let who = Who::Named(number);
        Op::Write { who, offset: 0, len: 50_000, fill, finish: number == 1 }
    };
    vec![
        Op::Mkdir(place(2)),
        Op::Create(place(0)),
        Op::Create(place(3)),
        Op::Create(place(5)),
        write(0, Fill::Random(0)),
        write(1, Fill::Random(1)),
        write(2, Fill::Text(0)),
    ]
}

fn env_number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs the cases of one family, each from its own seed.
fn run_cases(family: u8, sizes: Sizes, cases: u64) {
    let one = env_number("STRATAFS_MODEL_SEED");
    let cases = env_number("STRATAFS_MODEL_CASES").unwrap_or(if one.is_some() { 1 } else { cases });
    let first = one.unwrap_or(0);
    for seed in first..first + cases {
        let mut bytes = [family; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = ProptestConfig {
            cases: 1,
            max_shrink_iters: 400,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let outcome = runner.run(&prop::collection::vec(op(sizes), 1..OPS_MAX), |ops| {
            run(&ops);
            Ok::<(), TestCaseError>(())
        });
        if let Err(TestError::Fail(why, ops)) = outcome {
            panic!("STRATAFS_MODEL_SEED={seed} replays this: {why}\nafter {ops:#?}");
        }
    }
}

/// Names, attributes and files of some chunks.
#[test]
fn volume_matches_model() {
    run_cases(1, Sizes::Small, 200);
}

/// The same with writes that overflow the buffers of a file and of the volume.
#[test]
fn volume_matches_model_with_large_writes() {
    run_cases(2, Sizes::Large, 60);
}
