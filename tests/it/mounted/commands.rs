//! Every command, while the volume is mounted and while it is not.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::helper::Mounted;
use crate::testkit::{MIB, random_bytes, run_in, stratafs, text_bytes};

const COMMANDS: [(&[&str], &[&str]); 12] = [
    (&["status"], &[]),
    (&["stats"], &[]),
    (&["class", "list"], &[]),
    (&["class", "explain"], &["photo.jpg"]),
    (&["shard", "list"], &[]),
    (&["snapshot", "list"], &[]),
    (&["check"], &[]),
    (&["check"], &["--read-data"]),
    (&["gc"], &[]),
    (&["scrub"], &[]),
    (&["scrub"], &["--max-duration", "1m", "--rate", "1GiB"]),
    (&["scrub"], &["--status"]),
];

fn sample() -> Mounted {
    let m = Mounted::new();
    fs::write(m.path("photo.jpg"), random_bytes(1, 3 * MIB)).unwrap();
    fs::write(m.path("copy.jpg"), random_bytes(1, 3 * MIB)).unwrap();
    fs::write(m.path("main.c"), text_bytes(2, MIB)).unwrap();
    fs::write(m.path("zeros.img"), vec![0; MIB]).unwrap();
    fs::create_dir(m.path(".snapshots/s")).unwrap();
    m
}

/// What must be the same mounted and not: facts about the data, not about the process.
fn lasting_facts(m: &Mounted) -> Value {
    let stats = m.ask_json(&["stats"], &[]);
    json!({
        "totals": stats["totals"], "classes": stats["classes"], "live": stats["live_bytes"],
        "unique": stats["unique_bytes"], "chunks": stats["chunks"],
        "class list": m.ask_json(&["class", "list"], &[]),
        "explain": m.ask_json(&["class", "explain"], &["photo.jpg"]),
        "snapshots": m.ask_json(&["snapshot", "list"], &[]),
        "id": m.ask_json(&["status"], &[])["volume_id"],
    })
}

#[test]
fn commands_say_the_same_mounted_and_not() {
    let mut m = sample();
    let mounted = lasting_facts(&m);
    for (command, rest) in COMMANDS {
        let text = m.ask(command, rest).ok();
        assert!(!text.stdout.is_empty(), "{command:?} says nothing");
        m.ask_json(command, rest);
    }
    assert_eq!(m.ask_json(&["status"], &[])["mounted_on"], json!(m.text("")));
    m.umount();
    assert_eq!(lasting_facts(&m), mounted);
    for (command, rest) in COMMANDS {
        m.ask(command, rest).ok();
    }
    assert_eq!(m.ask_json(&["status"], &[])["mounted_on"], Value::Null);
}

/// The mountpoint is as good a name for the volume as its directory.
#[test]
fn the_mountpoint_names_the_volume() {
    let m = sample();
    let by_mount = stratafs(&["status", &m.text(""), "--json"]).json();
    let by_directory = m.ask_json(&["status"], &[]);
    assert_eq!(by_mount["volume_id"], by_directory["volume_id"]);
    stratafs(&["snapshot", "create", &m.text(""), "through-the-mount"]).ok();
    assert!(m.path(".snapshots/through-the-mount/main.c").exists());
}

#[test]
fn stats_add_up() {
    let mut m = sample();
    m.umount();
    let stats = m.ask_json(&["stats"], &[]);
    let total = |name: &str| stats["totals"][name].as_u64().unwrap();
    let mib = MIB as u64;
    assert_eq!(total("written_bytes"), 8 * mib, "{stats:#}");
    assert_eq!(total("zero_bytes"), mib);
    assert_eq!(total("duplicate_bytes"), 3 * mib);
    assert_eq!(total("new_bytes"), 4 * mib);
    assert!((3 * mib..4 * mib).contains(&total("stored_bytes")), "text compresses: {stats:#}");
    assert_eq!(stats["live_bytes"], 7 * mib);
    assert_eq!(stats["unique_bytes"], 4 * mib);
    let classes = stats["classes"].as_array().unwrap();
    for counter in ["written_bytes", "zero_bytes", "duplicate_bytes", "new_bytes", "stored_bytes"] {
        let sum: u64 = classes.iter().map(|class| class[counter].as_u64().unwrap()).sum();
        assert_eq!(sum, total(counter), "{counter}");
    }
    let shards: u64 = stats["shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["stored_bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(stats["stored_bytes"], shards);
    let line = m.ask(&["stats"], &["--summary"]).ok().stdout;
    assert_eq!(line.lines().count(), 1, "{line}");
    for word in ["duplicates", "compression", "media", "source"] {
        assert!(line.contains(word), "{word} is missing: {line}");
    }
}

#[test]
fn explain_says_which_rule_and_where() {
    let m = sample();
    for path in ["photo.jpg", "/photo.jpg", &m.text("photo.jpg"), &m.text(".snapshots/s/photo.jpg")]
    {
        let explained = m.ask_json(&["class", "explain"], &[path]);
        assert_eq!(explained["class"], "media", "{explained:#}");
        assert!(explained["rule"].as_str().unwrap().contains("*.jpg"), "{explained:#}");
        assert_eq!(explained["shards"], json!([["default", 3 * MIB]]), "{explained:#}");
    }
    let alone = stratafs(&["class", "explain", &m.text("photo.jpg"), "--json"]).json();
    assert_eq!(alone["class"], "media", "the volume is found above the path: {alone:#}");
    stratafs(&["class", "explain", "/etc/hostname"]).refused(1, &["/etc/hostname", "mountpoint"]);
    fs::remove_file(m.path("photo.jpg")).unwrap();
    m.ask(&["class", "explain"], &["photo.jpg"]).refused(1, &["photo.jpg"]);
    let past = m.ask_json(&["class", "explain"], &["photo.jpg", "--snapshot", "s"]);
    assert_eq!(past["class"], "media");
}

#[test]
fn a_shard_is_added_while_mounted() {
    let mut m = sample();
    let dir = m.outside().join("bulk");
    let added = m.ask_json(&["shard", "add"], &[dir.to_str().unwrap(), "--name", "bulk"]);
    assert_eq!(added["name"], "bulk");
    let listed = m.ask_json(&["shard", "list"], &[]);
    assert_eq!(listed["shards"].as_array().unwrap().len(), 2);
    let config = "[classes.media]\nshards = [\"bulk\"]\n";
    fs::write(m.volume().join("config.toml"), config).unwrap();
    m.remount();
    fs::write(m.path("new.jpg"), random_bytes(77, MIB)).unwrap();
    let explained = m.ask_json(&["class", "explain"], &["new.jpg"]);
    assert_eq!(explained["shards"], json!([["bulk", MIB]]));
    m.remount();
    assert!(fs::read(m.path("new.jpg")).unwrap() == random_bytes(77, MIB));
    m.assert_sound();
}

#[test]
fn gc_frees_space_while_mounted() {
    let m = Mounted::new();
    fs::write(m.path("large.bin"), random_bytes(1, 80 * MIB)).unwrap();
    fs::write(m.path("kept.bin"), random_bytes(2, 5 * MIB)).unwrap();
    fs::remove_file(m.path("large.bin")).unwrap();
    let report = m.ask_json(&["gc"], &[]);
    assert!(report["freed_bytes"].as_u64().unwrap() >= 30 * MIB as u64, "{report:#}");
    assert!(fs::read(m.path("kept.bin")).unwrap() == random_bytes(2, 5 * MIB));
    m.assert_sound();
}

#[test]
fn check_finds_damage_and_says_where() {
    let mut m = sample();
    m.umount();
    let container = run_in(
        &m.volume(),
        "find shards/0 -type f -size +2000k | head -1 | tee /dev/stderr |
         xargs -I{} dd if=/dev/urandom of={} bs=1 seek=1000000 count=5000 conv=notrunc status=none
         find shards/0 -type f -size +2000k | head -1",
    );
    assert!(!container.is_empty(), "no container to damage");
    m.ask(&["check"], &[]).ok();
    let ran = m.ask(&["check"], &["--read-data", "--json"]);
    assert_eq!(ran.code, Some(11), "{ran:#?}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let problems = report["problems"].as_array().unwrap();
    assert!(!problems.is_empty());
    m.mount();
    assert!(fs::read(m.path("main.c")).is_ok(), "a neighbour is hurt");
    let error = fs::read(m.path("photo.jpg")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "damage is EIO, never wrong bytes");
}

#[test]
fn the_socket_is_its_owners_alone() {
    let m = Mounted::new();
    let sockets: Vec<_> = fs::read_dir(m.volume())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| std::os::unix::fs::FileTypeExt::is_socket(&entry.file_type().unwrap()))
        .map(|entry| entry.metadata().unwrap().permissions().mode() & 0o777)
        .collect();
    assert_eq!(sockets, [0o600]);
}

/// Data on stdout, everything else on stderr; a reader that goes away is no failure.
#[test]
fn output_can_be_piped() {
    let m = sample();
    let script = format!(
        "set +o pipefail; {} stats {} | head -1 | wc -l; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_stratafs"),
        m.volume().display()
    );
    assert_eq!(run_in(m.outside(), &script), "1\n0\n");
    let quiet = m.ask(&["check"], &["--read-data", "-q"]).ok();
    assert_eq!(quiet.stderr, "");
}
