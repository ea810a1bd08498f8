//! The bounded run of the fuzzed parsers: a checked-in corpus, and mutations of it.
//!
//! A failure names the parser and the seed, and leaves the input in the message. Inputs that
//! libFuzzer found (see `docs/OPERATIONS.md`) are added to `tests/corpus/NAME/`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use stratafs::fuzz::{ALL, Parser};

use crate::testkit::random_bytes;

/// Mutations of each parser's inputs; the slowest, of whole containers, take a second.
const MUTATIONS: u64 = 3000;
/// Longest input made.
const INPUT_BYTES_MAX: usize = 4096;

fn folder(parser: &Parser) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(parser.name)
}

fn corpus(parser: &Parser) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder(parser))
        .unwrap_or_else(|e| panic!("{}: {e}", folder(parser).display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn check(parser: &Parser, input: &[u8], what: &str) {
    let done = catch_unwind(AssertUnwindSafe(|| parser.check(input)));
    assert!(done.is_ok(), "{} fails on {what}: {input:02x?}", parser.name);
}

/// The valid inputs in the corpus are those the parsers' writers make today: a layout that changes
/// changes a file. `STRATAFS_WRITE_CORPUS=1` writes them anew.
#[test]
fn the_corpus_holds_what_is_valid() {
    for parser in ALL {
        let dir = folder(parser);
        for (at, golden) in (parser.golden)().into_iter().enumerate() {
            let path = dir.join(format!("valid-{at}"));
            if std::env::var_os("STRATAFS_WRITE_CORPUS").is_some() {
                std::fs::create_dir_all(&dir).unwrap();
                std::fs::write(&path, &golden).unwrap();
            }
            let kept = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert!(kept == golden, "{} is not what is written today", path.display());
            assert!((parser.run)(&golden) > 0, "{} is not understood", path.display());
        }
    }
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    for parser in ALL {
        let target = targets.join(format!("{}.rs", parser.name));
        assert!(target.exists(), "{} has no fuzz target", parser.name);
    }
    assert_eq!(std::fs::read_dir(targets).unwrap().count(), ALL.len());
}

#[test]
fn the_corpus_and_its_mutations_are_survived() {
    for parser in ALL {
        let inputs = corpus(parser);
        for (at, input) in inputs.iter().enumerate() {
            check(parser, input, &format!("input {at}"));
            for cut in 0..input.len().min(200) {
                check(parser, &input[..cut], &format!("input {at} cut at {cut}"));
            }
        }
        for seed in 0..MUTATIONS {
            check(parser, &mutate(&inputs, seed), &format!("seed {seed}"));
        }
    }
}

/// An input made of others by one to six steps, the same for the same seed.
fn mutate(inputs: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let noise = random_bytes(seed + 1, 256);
    let mut words = noise.chunks(8).map(|w| u64::from_le_bytes(w.try_into().unwrap()));
    let mut below = |n: usize| usize::try_from(words.next().unwrap()).unwrap() % n.max(1);
    let mut out = inputs[below(inputs.len())].clone();
    for _ in 0..=below(6) {
        let at = below(out.len());
        match below(8) {
            0 if !out.is_empty() => out[at] ^= 1 << below(8),
            1 => out.truncate(at),
            2 => {
                let value = [0, 0x7f, 0x80, 0xff, 1][below(5)];
                let end = (at + [1, 2, 4, 8][below(4)]).min(out.len());
                out[at..end].fill(value);
            }
            3 => out.insert(at, u8::try_from(below(256)).unwrap()),
            4 => {
                let end = (at + below(64)).min(out.len());
                let part = out[at..end].to_vec();
                out.splice(at..at, part);
            }
            5 => {
                let other = &inputs[below(inputs.len())];
                let from = below(other.len());
                out.truncate(at);
                out.extend_from_slice(&other[from..]);
            }
            6 if !out.is_empty() => out[at] = out[at].wrapping_add(1),
            _ => {
                let end = (at + below(16)).min(out.len());
                out.drain(at..end);
            }
        }
    }
    out.truncate(INPUT_BYTES_MAX);
    out
}
