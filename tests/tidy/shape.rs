//! Sizes, headers, and files that nobody declares.

use crate::source::{SourceFile, first_word};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_COLUMNS_MAX: usize = 100;

/// Files, functions and lines beyond their bounds. Tests count for lines only.
pub fn bad_sizes(files: &[SourceFile]) -> Vec<String> {
    let mut bad = Vec::new();
    for file in files {
        let path = &file.path;
        for (at, line) in file.lines.iter().enumerate() {
            let columns = line.chars().count();
            if columns > LINE_COLUMNS_MAX {
                bad.push(format!("{path}:{}: the line has {columns} columns", at + 1));
            }
        }
        let lines = file.test_lines.iter().filter(|test| !**test).count();
        if lines > FILE_LINES_MAX {
            bad.push(format!("{path}:1: the file has {lines} lines without tests"));
        }
        for (line, name, lines) in functions(file) {
            if lines > FUNCTION_LINES_MAX {
                bad.push(format!("{path}:{line}: function {name} has {lines} lines"));
            }
        }
    }
    bad
}

/// Line, name and number of lines of each function with a body, outside tests.
fn functions(file: &SourceFile) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for at in file.words("fn").filter(|at| !file.is_test(*at)) {
        let name = first_word(file.code[at + 2..].trim_start());
        let Some((open, b'{')) = file.body_or_end(at) else { continue };
        if name.is_empty() {
            // A function pointer's type.
            continue;
        }
        let (first, last) = (file.line_of(at), file.line_of(file.after_block(open) - 1));
        found.push((first, name.to_owned(), last - first + 1));
    }
    found
}

/// Files that do not say what they are.
pub fn bad_headers(files: &[SourceFile]) -> Vec<String> {
    let has = |file: &SourceFile| file.lines.first().is_some_and(|l| l.starts_with("//! "));
    let bad = files.iter().filter(|file| !has(file));
    bad.map(|file| format!("{}:1: no `//!` header", file.path)).collect()
}

/// Files below `src` and `tests` that no module declares.
pub fn undeclared(files: &[SourceFile]) -> Vec<String> {
    let mut bad = Vec::new();
    for file in files {
        let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let stem = name.strip_suffix(".rs").unwrap_or(name);
        if stem == "mod" {
            bad.push(format!("{}:1: call it {folder}.rs; there is no mod.rs here", file.path));
        }
        let root = matches!(folder, "tests" | "src/bin") || matches!(stem, "lib" | "main" | "mod");
        if root {
            continue;
        }
        let owners =
            [format!("{folder}.rs"), format!("{folder}/lib.rs"), format!("{folder}/main.rs")];
        let declared = files.iter().filter(|owner| owners.contains(&owner.path)).any(|owner| {
            owner.words("mod").any(|at| first_word(owner.code[at + 3..].trim_start()) == stem)
        });
        if !declared {
            bad.push(format!("{}:1: no module declares it", file.path));
        }
    }
    bad
}

#[test]
fn long_things_are_refused() {
    let file = |path: &str, text: String| SourceFile::new(path.to_owned(), text);
    let long = format!("fn f() {{\n{}}}\n", "    x();\n".repeat(69));
    let bad = bad_sizes(&[file("src/a.rs", long.clone())]);
    assert_eq!(bad, ["src/a.rs:1: function f has 71 lines"]);
    let fits = format!("fn f(\n    x: [u8; 2],\n) {{\n{}}}\n", "    x();\n".repeat(66));
    assert_eq!(bad_sizes(&[file("src/a.rs", fits)]), [""; 0]);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert_eq!(bad_sizes(&[file("src/a.rs", tests.repeat(9))]), [""; 0]);
    assert_eq!(bad_sizes(&[file("src/a/tests.rs", "x();\n".repeat(900))]), [""; 0]);
    let bad = bad_sizes(&[file("src/a.rs", "x();\n".repeat(501))]);
    assert_eq!(bad, ["src/a.rs:1: the file has 501 lines without tests"]);
    let wide = format!("\n// {}\n", "ä".repeat(98));
    let bad = bad_sizes(&[file("tests/it/a.rs", wide)]);
    assert_eq!(bad, ["tests/it/a.rs:2: the line has 101 columns"]);
}

#[test]
fn missing_headers_are_refused() {
    let file = |text: &str| SourceFile::new("src/a.rs".to_owned(), text.to_owned());
    let files = [file("//! Good.\n"), file("use x;\n//! Late.\n"), file("// Not one.\n"), file("")];
    assert_eq!(bad_headers(&files).len(), 3);
}

#[test]
fn dead_files_are_refused() {
    let file = |path: &str, text: &str| SourceFile::new(path.to_owned(), text.to_owned());
    let files = [
        file("src/lib.rs", "pub mod kv;\n// mod dead;"),
        file("src/main.rs", ""),
        file("src/kv.rs", "mod rocks;"),
        file("src/kv/rocks.rs", ""),
        file("src/kv/memory.rs", ""),
        file("src/dead.rs", ""),
        file("src/kv/mod.rs", ""),
        file("tests/tidy.rs", ""),
        file("tests/it/main.rs", "mod volume;"),
        file("tests/it/volume.rs", ""),
        file("tests/it/forgotten.rs", ""),
    ];
    let bad = undeclared(&files);
    assert_eq!(
        bad,
        [
            "src/kv/memory.rs:1: no module declares it",
            "src/dead.rs:1: no module declares it",
            "src/kv/mod.rs:1: call it src/kv.rs; there is no mod.rs here",
            "tests/it/forgotten.rs:1: no module declares it",
        ]
    );
}
