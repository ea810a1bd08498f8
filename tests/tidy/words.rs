//! Words that must not appear, and names of documents that must exist.

use std::fs;
use std::path::Path;

use crate::source::{SourceFile, is_word};

/// Folders that are not part of the repository's text.
const SKIPPED: [&str; 2] = [".git", "target"];
/// Larger files are data, not text.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;
/// Hosts a document may name. Everything else would name somebody's machine or mirror.
const HOSTS: [&str; 8] = [
    "example.org",
    "keepachangelog.com",
    "man7.org",
    "rustup.rs",
    "semver.org",
    "sh.rustup.rs",
    "www.apache.org",
    "www.w3.org", // the name space of SVG
];
/// Where every dependency comes from.
const REGISTRY: &str = concat!("registry+https:", "//github.com/rust-lang/crates.io-index");
/// Paths and tools of the machine this was written on; in pieces, so that this file passes.
const PLACES: [&str; 6] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/tmp/", "brief"),
    concat!("Clau", "de"),
    concat!("Anthro", "pic"),
    concat!("helper", " session"),
];

/// Every text file below `root`, as path from there and content.
pub fn text_files(root: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(root, "", &mut found);
    found
}

fn collect(folder: &Path, prefix: &str, found: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(kind) = entry.file_type() else { continue };
        let path = format!("{prefix}{name}");
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            collect(&entry.path(), &format!("{path}/"), found);
        }
        let small = entry.metadata().is_ok_and(|m| m.len() <= TEXT_BYTES_MAX);
        if kind.is_file()
            && small
            && name != ".git"
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            found.push((path, text));
        }
    }
}

/// Unfinished or careless code.
pub fn bad_code(files: &[SourceFile]) -> Vec<String> {
    let mut bad = Vec::new();
    for file in files {
        let mut complain = |at: usize, what: &str| {
            bad.push(format!("{}:{}: {what}", file.path, file.line_of(at)));
        };
        for name in ["todo", "unimplemented", "dbg"] {
            for at in file.words(name).filter(|at| file.code[at + name.len()..].starts_with('!')) {
                complain(at, &format!("{name}! is not finished work"));
            }
        }
        for (at, _) in file.code.match_indices(".unwrap()").filter(|(at, _)| !file.is_test(*at)) {
            complain(at, "unwrap() outside tests; return the error, or expect(\"why it holds\")");
        }
        for at in file.words("use").filter(|at| !file.is_test(*at)) {
            let end = file.code[at..].find(';').map_or(file.code.len(), |len| at + len);
            if file.code[at..end].contains("::*") {
                complain(at, "a glob import hides where names come from");
            }
        }
        let in_sys = file.room() == Some("sys");
        for at in file.words("unsafe").filter(|_| !in_sys) {
            complain(at, "unsafe lives in sys");
        }
    }
    bad
}

/// Lines that name a machine, a mirror or a tool.
pub fn bad_places(files: &[(String, String)]) -> Vec<String> {
    let mut bad = Vec::new();
    for (path, text) in files {
        let lock = path.ends_with("Cargo.lock");
        for (at, line) in text.lines().enumerate() {
            let place = format!("{path}:{}", at + 1);
            if let Some(found) = PLACES.iter().find(|word| line.contains(**word)) {
                bad.push(format!("{place}: names {found}"));
            }
            if lock {
                let source = line.strip_prefix("source = ");
                if source.is_some_and(|s| s.trim_matches('"') != REGISTRY) {
                    bad.push(format!("{place}: a dependency comes from elsewhere"));
                }
                continue;
            }
            let hosts = line.split("://").skip(1).map(host);
            for host in hosts.filter(|h| h.contains('.') && !HOSTS.contains(h)) {
                bad.push(format!("{place}: names host {host}"));
            }
        }
    }
    bad
}

/// What stands between `://` and the path.
fn host(rest: &str) -> &str {
    let end = rest.find(|c: char| !(c.is_alphanumeric() || "-.:".contains(c)));
    rest[..end.unwrap_or(rest.len())].trim_end_matches(['.', ':'])
}

/// Links and names of documents that lead nowhere; `exists` gets paths from the root.
pub fn bad_links(files: &[(String, String)], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut bad = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| !path.starts_with("tests/tidy/")) {
        let markdown = Path::new(path).extension().is_some_and(|e| e == "md");
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (at, line) in text.lines().enumerate() {
            let mut named: Vec<String> = documents(line);
            if markdown {
                named.extend(links(line).map(|link| join(folder, link)));
            }
            named.retain(|name| !exists(name));
            bad.extend(named.iter().map(|n| format!("{path}:{}: there is no {n}", at + 1)));
        }
    }
    bad
}

/// Targets of `[text](target)` that are files here.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?.split('#').next()?;
        (!target.is_empty() && !target.contains("://")).then_some(target)
    })
}

/// Words like `docs/NAME.md` and `mount-scripts/NAME.sh`.
fn documents(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["docs/", "mount-scripts/"] {
        for (at, _) in line.match_indices(folder) {
            let before = line[..at].chars().next_back();
            if before.is_some_and(|c| is_word(c) || "-/.".contains(c))
                && !line[..at].ends_with("./")
            {
                continue;
            }
            let rest = &line[at + folder.len()..];
            let end = rest.find(|c| !(is_word(c) || "-.".contains(c))).unwrap_or(rest.len());
            let name = rest[..end].trim_end_matches('.');
            if name.contains('.') {
                found.push(format!("{folder}{name}"));
            }
        }
    }
    found
}

fn join(folder: &str, link: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn careless_code_is_refused() {
    let bad =
        |path: &str, text: &str| bad_code(&[SourceFile::new(path.to_owned(), text.to_owned())]);
    let todo = bad("src/a.rs", "\nfn f() { todo!() }");
    assert_eq!(todo, ["src/a.rs:2: todo! is not finished work"]);
    assert_eq!(bad("src/a/tests.rs", "dbg!(1); unimplemented!()").len(), 2);
    assert_eq!(bad("src/a.rs", "x.unwrap();").len(), 1);
    assert_eq!(bad("src/a.rs", "use super::b::*;").len(), 1);
    assert_eq!(bad("src/a.rs", "fn f() { unsafe { g() } }"), ["src/a.rs:1: unsafe lives in sys"]);
    let good = "#![allow(unsafe_code)]\n// todo!() .unwrap()\n\
                let t = \"todo!()\"; x.unwrap_or(1);\n\
                #[cfg(test)]\nmod tests {\n use super::*;\n fn f() { x.unwrap(); }\n}\n";
    assert_eq!(bad("src/a.rs", good), [""; 0]);
    assert_eq!(bad("src/sys/disk.rs", "unsafe { f() }"), [""; 0]);
}

#[test]
fn machines_and_mirrors_are_refused() {
    let bad = |path: &str, text: String| bad_places(&[(path.to_owned(), text)]);
    for word in PLACES {
        assert_eq!(
            bad("docs/A.md", format!("\nsee {word}x")),
            [format!("docs/A.md:2: names {word}")]
        );
    }
    let url = |host: &str| format!("see {}://{host}/x.", "https");
    assert_eq!(bad("a.sh", url("mirror.internal.net:8080")).len(), 1);
    assert_eq!(bad("a.sh", url("rustup.rs")), [""; 0]);
    assert_eq!(bad("Cargo.lock", format!("source = \"{REGISTRY}\"")), [""; 0]);
    assert_eq!(bad("Cargo.lock", "source = \"registry+x\"".to_owned()).len(), 1);
}

#[test]
fn links_to_nowhere_are_refused() {
    let exists = |path: &str| path == "docs/A.md" || path == "README.md" || path == "docs/B.md";
    let bad = |path: &str, text: &str| bad_links(&[(path.to_owned(), text.to_owned())], exists);
    assert_eq!(bad("README.md", "[a](docs/A.md#x) [b](docs/C.md)").len(), 2, "as link and as word");
    assert_eq!(bad("docs/A.md", "[b](B.md) [r](../README.md) [u](https://example.org)"), [""; 0]);
    assert_eq!(bad("docs/A.md", "\n[b](D.md)"), ["docs/A.md:2: there is no docs/D.md"]);
    assert_eq!(bad("src/a.rs", "// see docs/E.md."), ["src/a.rs:1: there is no docs/E.md"]);
    assert_eq!(bad("src/a.rs", "// see docs/A.md, other/docs/E.md, docs/"), [""; 0]);
}
