//! Imports against the rank table.

use std::collections::BTreeSet;

use crate::design::Design;
use crate::source::{SourceFile, first_word, is_word};

/// A path from a file to a module at the crate's root.
struct Import {
    line: usize,
    target: String,
}

/// Imports that do not point downward.
pub fn bad_imports(design: &Design, files: &[SourceFile]) -> Vec<String> {
    let mut bad = Vec::new();
    for file in files {
        let Some(room) = file.room().filter(|room| *room != "lib") else { continue };
        let Some(rank) = design.ranks.get(room) else { continue };
        for Import { line, target } in imports(file) {
            let place = format!("{}:{line}", file.path);
            if target == room {
                continue;
            }
            match design.ranks.get(&target) {
                None => bad.push(format!("{place}: {target} is not a room with a rank")),
                // Ground knows ground.
                Some(below) if below < rank || (*below == 0 && *rank == 0) => {}
                Some(above) => bad.push(format!(
                    "{place}: {room} (rank {rank}) may not import {target} (rank {above})"
                )),
            }
        }
    }
    bad
}

/// Rooms without a rank, and ranks without a room.
pub fn bad_rooms(design: &Design, files: &[SourceFile]) -> Vec<String> {
    let rooms: BTreeSet<&str> =
        files.iter().filter_map(SourceFile::room).filter(|room| *room != "lib").collect();
    let no_rank = rooms.iter().filter(|room| !design.ranks.contains_key(**room));
    let no_room = design.ranks.keys().filter(|room| !rooms.contains(room.as_str()));
    let no_rank = no_rank.map(|room| format!("src/{room}.rs:1: the room has no rank"));
    no_rank
        .chain(no_room.map(|room| format!("docs/DESIGN.md: room {room} is not in src")))
        .collect()
}

fn imports(file: &SourceFile) -> Vec<Import> {
    let mut found = Vec::new();
    for at in file.words("crate") {
        if let Some(rest) = file.code[at..].strip_prefix("crate::") {
            push(file, at, rest, &mut found);
        }
    }
    for at in file.words("super") {
        if file.code[..at].ends_with("::") {
            continue;
        }
        let mut rest = &file.code[at..];
        let mut ups = 0;
        while let Some(shorter) = rest.strip_prefix("super::") {
            (rest, ups) = (shorter, ups + 1);
        }
        if ups > 0 && ups >= file.depth(at) {
            push(file, at, rest, &mut found);
        }
    }
    found
}

/// The first words of the path, or group of paths, that `rest` begins with.
fn push(file: &SourceFile, at: usize, rest: &str, found: &mut Vec<Import>) {
    let line = file.line_of(at);
    let Some(group) = rest.strip_prefix('{') else {
        let target = match first_word(rest) {
            "" => rest.chars().take(1).collect(),
            word => word.to_owned(),
        };
        found.push(Import { line, target });
        return;
    };
    let mut depth = 0_i32;
    let mut start = 0;
    for (end, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                let target = first_word(group[start..end].trim_start());
                if target.chars().any(is_word) {
                    found.push(Import { line, target: target.to_owned() });
                }
                start = end + 1;
                if c == '}' {
                    return;
                }
            }
            _ => {}
        }
    }
}

#[test]
fn upward_imports_are_refused() {
    let bad = |path: &str, text: &str| {
        let file = SourceFile::new(path.to_owned(), text.to_owned());
        bad_imports(&crate::design::sample(), &[file])
    };
    let up = "use crate::types::Ino;\n// crate::cli in a comment\nuse crate::volume::Volume;\n";
    assert_eq!(
        bad("src/store/pack.rs", up),
        ["src/store/pack.rs:3: store (rank 4) may not import volume (rank 6)"]
    );
    assert_eq!(bad("src/store.rs", "fn f() { crate::meta::f() }").len(), 1, "same rank");
    assert_eq!(bad("src/store.rs", "use crate::{types::A, cli::{B, C}, kv};").len(), 1);
    assert_eq!(bad("src/store.rs", "use super::cli;").len(), 1, "super reaches the root");
    assert_eq!(bad("src/store/a.rs", "use super::super::cli::x;").len(), 1);
    assert_eq!(bad("src/store.rs", "mod tests { use super::super::cli; }").len(), 1);
    assert_eq!(bad("src/store.rs", "use crate::*;").len(), 1, "a glob hides who depends on whom");
    assert_eq!(bad("src/store.rs", "use crate::nowhere::X;").len(), 1);
    let good = "use crate::kv::Kv;\nuse crate::store::a;\nuse crate::{error::E, types::{A, B}};\n\
                mod tests { use super::cli; }";
    assert!(bad("src/store.rs", good).is_empty());
    assert!(bad("src/types.rs", "use crate::error::E;").is_empty(), "ground knows ground");
}

#[test]
fn rooms_and_ranks_must_be_the_same() {
    let paths = ["lib", "cli", "volume", "store", "meta", "kv", "types", "attic"];
    let files = paths.map(|p| SourceFile::new(format!("src/{p}.rs"), String::new()));
    assert_eq!(
        bad_rooms(&crate::design::sample(), &files),
        ["src/attic.rs:1: the room has no rank", "docs/DESIGN.md: room error is not in src"]
    );
}
