//! Foreign crates against their table.

use std::collections::BTreeSet;

use crate::design::{Design, Home};
use crate::source::SourceFile;

/// Crates used outside their rooms, and rooms that do not use a crate the table gives them.
pub fn bad_uses(design: &Design, files: &[SourceFile]) -> Vec<String> {
    let mut bad = Vec::new();
    for (name, home) in &design.crates {
        let mut using = BTreeSet::new();
        for file in files {
            let Some(room) = file.room() else { continue };
            for line in uses(file, &name.replace('-', "_")) {
                using.insert(room);
                if !allows(home, room) {
                    let rooms = home.rooms.join(", ");
                    let path = &file.path;
                    bad.push(format!("{path}:{line}: crate {name} lives in {rooms} only"));
                }
            }
        }
        let idle = home.rooms.iter().filter(|room| !matches!(room.as_str(), "*" | "dev"));
        for room in idle.filter(|room| !using.contains(room.as_str())) {
            let line = home.line;
            bad.push(format!("docs/DESIGN.md:{line}: room {room} does not use crate {name}"));
        }
    }
    bad
}

fn allows(home: &Home, room: &str) -> bool {
    home.rooms.iter().any(|allowed| allowed == "*" || allowed == room)
}

/// Lines outside tests on which a path begins with `name`.
fn uses(file: &SourceFile, name: &str) -> Vec<usize> {
    file.words(name)
        .filter(|at| {
            let (before, after) = (file.code[..*at].trim_end(), &file.code[at + name.len()..]);
            let imported = before.ends_with("use") && after.trim_start().starts_with([';', ' ']);
            !before.ends_with("::") && (after.starts_with("::") || imported)
        })
        .filter(|at| !file.is_test(*at))
        .map(|at| file.line_of(at))
        .collect()
}

/// Dependencies that are missing from the table or from Cargo.toml.
pub fn bad_dependencies(design: &Design, manifest: &str) -> Vec<String> {
    let mut bad = Vec::new();
    let mut seen = BTreeSet::new();
    let mut section = "";
    for (at, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            section = line.trim_end();
            continue;
        }
        let dev = section == "[dev-dependencies]";
        let Some((name, _)) = line.split_once('=') else { continue };
        if section != "[dependencies]" && !dev {
            continue;
        }
        let name = name.trim();
        seen.insert(name.to_owned());
        let place = format!("Cargo.toml:{}", at + 1);
        match design.crates.get(name) {
            None => bad.push(format!("{place}: crate {name} has no room in docs/DESIGN.md §5")),
            Some(home) if dev != (home.rooms == ["dev"]) => {
                bad.push(format!("{place}: crate {name} is in the wrong list"));
            }
            Some(_) => {}
        }
    }
    let gone = design.crates.iter().filter(|(name, _)| !seen.contains(*name));
    bad.extend(gone.map(|(name, home)| {
        format!("docs/DESIGN.md:{}: crate {name} is not in Cargo.toml", home.line)
    }));
    bad
}

#[test]
fn crates_outside_their_rooms_are_refused() {
    let file = |path: &str, text: &str| SourceFile::new(path.to_owned(), text.to_owned());
    let house = [
        file("src/kv.rs", "use rocksdb::DB;\nlet a = \"rocksdb::\"; // rocksdb::X"),
        file("src/store.rs", "use serde::Serialize;\nfn f() { log::info!() }\n"),
        file(
            "src/cli.rs",
            "use serde;\n#[cfg(test)]\nmod t { use rocksdb::DB; }\nlet kv::serde = 1;",
        ),
    ];
    let design = crate::design::sample();
    assert_eq!(bad_uses(&design, &house), [""; 0]);
    let stray = [file("src/meta.rs", "\nfn f() { rocksdb::open() }")];
    let bad = bad_uses(&design, &stray);
    assert!(bad.contains(&"src/meta.rs:2: crate rocksdb lives in kv only".to_owned()), "{bad:?}");
    assert!(bad.iter().any(|b| b.contains("room kv does not use crate rocksdb")), "{bad:?}");
}

#[test]
fn dependencies_without_a_room_are_refused() {
    let design = crate::design::sample();
    let manifest =
        "[dependencies]\nrocksdb = \"1\"\nlog = \"1\"\ntokio = \"1\"\ntempfile = \"3\"\n";
    let bad = bad_dependencies(&design, manifest);
    assert_eq!(
        bad,
        [
            "Cargo.toml:4: crate tokio has no room in docs/DESIGN.md §5",
            "Cargo.toml:5: crate tempfile is in the wrong list",
            "docs/DESIGN.md:11: crate serde is not in Cargo.toml",
        ]
    );
}
