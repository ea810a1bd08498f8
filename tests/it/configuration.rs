//! What is configured, and what commands say while they run.

use std::fs;

use serde_json::{Value, json};

use crate::testkit::{MIB, TestVolume, random_bytes, run_with, stratafs, try_run};

/// A closed volume with some data.
fn closed() -> TestVolume {
    let mut volume = TestVolume::new();
    volume.write_file("/a.bin", &random_bytes(1, MIB));
    volume.close();
    volume
}

fn text(volume: &TestVolume) -> String {
    volume.volume_dir().to_str().unwrap().to_owned()
}

#[test]
fn show_says_what_counts_and_where_it_comes_from() {
    let volume = closed();
    let dir = text(&volume);
    fs::write(volume.volume_dir().join("config.toml"), "[limits]\n\nworkers = 3\n").unwrap();
    let shown = stratafs(&["config", "show", &dir]).ok().stdout;
    let has = |words: [&str; 2]| shown.lines().any(|line| words.iter().all(|w| line.contains(w)));
    assert!(has(["workers = 3", "# line 3"]), "{shown}");
    assert!(has(["dirty_bytes = ", "# default"]), "{shown}");
    assert!(shown.contains("[classes.media]") && shown.contains(&dir), "{shown}");
    let document = stratafs(&["config", "show", &dir, "--json"]).json();
    let values = document["values"].as_array().unwrap();
    let find = |key: &str| values.iter().find(|v| v["key"] == key).unwrap();
    assert_eq!(find("workers")["line"], json!(3));
    assert_eq!(find("dirty_bytes")["source"], json!("default"));
    let profiles = volume.volume_dir().join("profiles");
    fs::write(&profiles, "[profiles.p]\nvolume = \"/nowhere\"\n[profiles.p.gc]\nmin-dead = 20\n")
        .unwrap();
    let variables = [
        ("STRATAFS_CONFIG", profiles.to_str().unwrap().to_owned()),
        ("STRATAFS_VOLUME", dir.clone()),
    ];
    let shown = run_with(&variables, &["config", "show", "-P", "p"]).ok().stdout;
    let has = |words: [&str; 2]| shown.lines().any(|line| words.iter().all(|w| line.contains(w)));
    assert!(
        has(["profile = p", "-P"]) && has(["gc --min-dead = 20", "profiles, line 4"]),
        "{shown}"
    );
    assert!(has([&format!("volume = {dir}"), "STRATAFS_VOLUME"]) && !shown.contains("/nowhere"));
    assert!(has(["workers = 3", "# line 3"]), "{shown}");
}

#[test]
fn check_names_what_a_mount_would_refuse() {
    let volume = closed();
    let (dir, file) = (text(&volume), volume.volume_dir().join("config.toml"));
    fs::remove_file(&file).unwrap();
    assert!(stratafs(&["config", "check", &dir]).ok().stdout.contains("the defaults count"));
    fs::write(&file, "[limits]\nworkers = 3\n").unwrap();
    for target in [&dir, file.to_str().unwrap()] {
        assert!(stratafs(&["config", "check", target]).ok().stdout.contains("is valid"));
    }
    let cases = [
        ("[limits]\nworker = 1\n", "\"worker\"", "line 2"),
        ("[limits]\nworkers = -1\n", "-1", "line 2"),
        ("[[rule]]\nclass = \"log\"\nglob = \"[\"\n", "[", "line"),
        ("[classes.log]\nshards = \"nope\"\n", "nope", "line 1"),
        ("[metrics]\nlisten = \"0.0.0.0:1\"\n", "remote = true", "line 2"),
    ];
    for (content, what, line) in cases {
        fs::write(&file, content).unwrap();
        stratafs(&["config", "check", &dir]).refused(8, &[what, line, "config.toml"]);
    }
    fs::write(&file, "[profiles.a.prune]\nkeep-dayly = 1\n").unwrap();
    stratafs(&["config", "check", file.to_str().unwrap()]).refused(8, &["keep-dayly", "line 2"]);
    stratafs(&["config", "check", "/no/where"]).refused(3, &["/no/where"]);
}

#[test]
fn progress_is_told_to_whom_asks_and_only_on_stderr() {
    let volume = closed();
    let dir = text(&volume);
    for command in [&["check", "--read-data"][..], &["gc"], &["snapshot", "list"], &["scrub"]] {
        let line = |more: &[&str]| {
            let all: Vec<&str> = [command, &[dir.as_str()], more].concat();
            stratafs(&all).ok()
        };
        let silent = line(&["--json"]);
        assert_eq!(silent.stderr, "", "{command:?}: no terminal, no progress");
        let told = line(&["--progress", "json", "--json"]);
        serde_json::from_str::<Value>(&told.stdout).unwrap();
        for line in told.stderr.lines() {
            let update: Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(update["progress"].is_string() && update["elapsed_millis"].is_u64(), "{line}");
        }
        assert_eq!(line(&["--progress", "none"]).stderr, "");
        assert_eq!(line(&["--progress", "plain", "--quiet"]).stderr, "");
    }
    let told = stratafs(&["check", "--read-data", &dir, "--progress=json"]).ok().stderr;
    assert!(told.contains("\"done\":1,") && told.contains("\"of\":"), "{told}");
    let plain = stratafs(&["check", "--read-data", &dir, "--progress=plain"]).ok();
    assert!(plain.stderr.contains("Checking names"), "{plain:?}");
    let variable = [("STRATAFS_PROGRESS", "plain".to_owned())];
    assert!(!run_with(&variable, &["gc", &dir]).ok().stderr.is_empty());
    assert_eq!(run_with(&variable, &["gc", &dir, "--progress", "none"]).ok().stderr, "");
    assert_eq!(stratafs(&["gc", &dir, "--progress", "loud"]).code, Some(2));
}

/// What a terminal shows when the program is run on one.
fn on_terminal(line: &str) -> String {
    let line = format!("{} {line}", env!("CARGO_BIN_EXE_stratafs"));
    try_run("script", &["-qec", &line, "/dev/null"]).stdout
}

#[test]
fn colors_are_for_terminals_that_want_them() {
    const ESCAPE: char = '\u{1b}';
    assert!(on_terminal("fly").contains(ESCAPE), "a terminal has colors");
    assert!(!on_terminal("fly --no-color").contains(ESCAPE));
    assert!(!on_terminal("--no-color status /no/where -vv").contains(ESCAPE));
    let without = format!("-qec|NO_COLOR=1 {} fly|/dev/null", env!("CARGO_BIN_EXE_stratafs"));
    let shown = try_run("script", &without.split('|').collect::<Vec<_>>()).stdout;
    assert!(!shown.contains(ESCAPE) && shown.contains("fly"), "{shown}");
    assert!(!stratafs(&["fly"]).stderr.contains(ESCAPE));
}
