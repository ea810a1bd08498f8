//! The two tables of `docs/DESIGN.md` §5 that are law: fenced blocks named `ranks` and `crates`.

use std::collections::BTreeMap;

/// What the document says.
#[derive(Debug, Default)]
pub struct Design {
    /// Rank of each room.
    pub ranks: BTreeMap<String, u8>,
    /// Rooms of each foreign crate, as in Cargo.toml, with the reason if one is given.
    pub crates: BTreeMap<String, Home>,
}

/// Where a foreign crate may be used.
#[derive(Debug)]
pub struct Home {
    /// Line in the document.
    pub line: usize,
    /// Rooms, or only `*` for all.
    pub rooms: Vec<String>,
    /// Why it is more than one.
    pub reason: String,
}

impl Design {
    /// Reads the tables of the document at `path`.
    pub fn parse(path: &str, text: &str) -> Result<Self, String> {
        let mut design = Self::default();
        for (line, row) in block(path, text, "ranks")? {
            let mut words = row.split_whitespace();
            let rank = words.next().and_then(|word| word.parse().ok());
            let rank = rank.ok_or_else(|| format!("{path}:{line}: no rank at the start"))?;
            for room in words {
                if design.ranks.insert(room.to_owned(), rank).is_some() {
                    return Err(format!("{path}:{line}: room {room} has two ranks"));
                }
            }
        }
        for (line, row) in block(path, text, "crates")? {
            let (names, reason) = row.split_once('#').unwrap_or((row, ""));
            let mut words = names.split_whitespace().map(str::to_owned);
            let name = words.next().ok_or_else(|| format!("{path}:{line}: no crate"))?;
            let home = Home { line, rooms: words.collect(), reason: reason.trim().to_owned() };
            if home.rooms.is_empty() {
                return Err(format!("{path}:{line}: crate {name} has no room"));
            }
            let several = home.rooms.len() > 1 || home.rooms == ["*"];
            if several && home.reason.is_empty() {
                return Err(format!("{path}:{line}: crate {name} has several rooms; say why"));
            }
            design.crates.insert(name, home);
        }
        Ok(design)
    }
}

/// Lines of the fenced block `name`, with their numbers.
fn block<'a>(path: &str, text: &'a str, name: &str) -> Result<Vec<(usize, &'a str)>, String> {
    let lines = || text.lines().enumerate().map(|(at, line)| (at + 1, line));
    let fence = format!("```{name}");
    let Some((start, _)) = lines().find(|(_, line)| line.trim_end() == fence) else {
        return Err(format!("{path}: no block {fence}"));
    };
    let rows: Vec<_> = lines()
        .skip(start)
        .take_while(|(_, line)| !line.starts_with("```"))
        .filter(|(_, line)| !line.trim().is_empty())
        .collect();
    if rows.is_empty() { Err(format!("{path}:{start}: {fence} is empty")) } else { Ok(rows) }
}

/// A small house for the self-tests.
#[cfg(test)]
pub fn sample() -> Design {
    let text = "```ranks\n9 cli\n6 volume\n4 store meta\n2 kv\n0 types error\n```\n\
                ```crates\nrocksdb kv\nlog * # everybody talks\nserde cli store # JSON\n\
                tempfile dev\n```\n";
    Design::parse("D.md", text).expect("a good sample")
}

#[test]
fn bad_tables_are_refused() {
    let refused = |text: &str| Design::parse("D.md", text).expect_err("a bad sample");
    assert!(refused("nothing").contains("no block ```ranks"));
    assert!(refused("```ranks\nx kv\n```").contains("D.md:2: no rank"));
    assert!(refused("```ranks\n2 kv\n1 kv\n```").contains("D.md:3: room kv has two ranks"));
    assert!(refused("```ranks\n2 kv\n```\n").contains("no block ```crates"));
    let crates = |row: &str| refused(&format!("```ranks\n2 kv\n```\n```crates\n{row}\n```"));
    assert!(crates("serde").contains("D.md:5: crate serde has no room"));
    assert!(crates("serde kv cli").contains("say why"));
    assert!(crates("log *").contains("say why"));
}
