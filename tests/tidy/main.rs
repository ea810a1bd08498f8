//! The house rules that reviewers forget, as tests.
//!
//! Guarantees: ranks and foreign crates are as the tables in `docs/DESIGN.md` §5 say, which this
//! test reads from there; files, functions and lines keep their bounds; no file is silently dead;
//! nothing in the repository names the machine it was written on. Every check has a bad sample it
//! must refuse. Relies on: the standard library only, so that `rustc --test` builds it in seconds,
//! before anything else is compiled. Does not: know Rust beyond comments, strings and braces.

mod crates;
mod design;
mod ranks;
mod semantics;
mod shape;
mod source;
mod words;

use std::path::{Path, PathBuf};

use design::Design;
use source::SourceFile;

/// The repository: where cargo says the package is, else where the test is started.
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from)
}

fn text(path: &str) -> String {
    let full = root().join(path);
    std::fs::read_to_string(&full).unwrap_or_else(|e| panic!("{}: {e}", full.display()))
}

fn design() -> Design {
    Design::parse("docs/DESIGN.md", &text("docs/DESIGN.md")).unwrap_or_else(|e| panic!("{e}"))
}

/// Rust files below `folders`.
fn rust(folders: &[&str]) -> Vec<SourceFile> {
    let files = words::text_files(&root());
    let mut found: Vec<SourceFile> = files
        .into_iter()
        .filter(|(path, _)| Path::new(path).extension().is_some_and(|e| e == "rs"))
        .filter(|(path, _)| folders.iter().any(|f| path.starts_with(&format!("{f}/"))))
        .map(|(path, text)| SourceFile::new(path, text))
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn assert_clean(rule: &str, bad: &[String]) {
    assert!(bad.is_empty(), "\n{rule}\n  {}\n", bad.join("\n  "));
}

#[test]
fn imports_point_to_lower_ranks() {
    let src = rust(&["src"]);
    assert!(!src.is_empty(), "no sources found below {}", root().display());
    assert_clean(
        "Imports point to a lower rank or into the own room (docs/DESIGN.md §5, block `ranks`)",
        &ranks::bad_imports(&design(), &src),
    );
}

#[test]
fn every_room_has_a_rank() {
    assert_clean(
        "Rooms in src and in docs/DESIGN.md §5, block `ranks`, are the same",
        &ranks::bad_rooms(&design(), &rust(&["src"])),
    );
}

#[test]
fn a_foreign_crate_stays_in_its_room() {
    assert_clean(
        "A foreign crate is used only where docs/DESIGN.md §5, block `crates`, says",
        &crates::bad_uses(&design(), &rust(&["src"])),
    );
    assert_clean(
        "Cargo.toml and docs/DESIGN.md §5, block `crates`, name the same crates",
        &crates::bad_dependencies(&design(), &text("Cargo.toml")),
    );
}

#[test]
fn files_functions_and_lines_keep_their_bounds() {
    assert_clean(
        "A file has at most 500 lines without tests, a function 70, a line 100 columns",
        &shape::bad_sizes(&rust(&["src", "tests", "benches"])),
    );
}

#[test]
fn every_file_begins_with_its_header() {
    assert_clean(
        "A Rust file begins with a `//!` header that says what it is",
        &shape::bad_headers(&rust(&["src", "tests", "benches"])),
    );
}

#[test]
fn no_file_is_silently_dead() {
    assert_clean(
        "Every file is declared by the module above it",
        &shape::undeclared(&rust(&["src", "tests"])),
    );
}

#[test]
fn nothing_unfinished_or_careless() {
    assert_clean(
        "No todo!, unimplemented!, dbg!; no .unwrap() or glob import outside tests; unsafe in sys",
        &words::bad_code(&rust(&["src", "tests", "benches"])),
    );
}

#[test]
fn nothing_names_this_machine() {
    assert_clean(
        "No file names a path of one machine, a foreign host, or the tool it was written with",
        &words::bad_places(&words::text_files(&root())),
    );
}

#[test]
fn every_sentence_of_the_semantics_is_quoted_by_a_test() {
    let mut files = rust(&["src", "tests"]);
    files.retain(|file| !file.path.starts_with("tests/tidy/"));
    assert_clean(
        "A numbered sentence of docs/SEMANTICS.md is quoted (SEMANTICS \u{a7}N.M) by a test that \
         fails when it is not true",
        &semantics::bad_quotes(&text("docs/SEMANTICS.md"), &files),
    );
}

#[test]
fn documents_that_are_named_exist() {
    let exists = |path: &str| root().join(path).exists();
    assert_clean(
        "Links of the documents, and documents that sources name, exist",
        &words::bad_links(&words::text_files(&root()), exists),
    );
}
