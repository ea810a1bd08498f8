//! Damage below a mounted volume: what a reader sees, what scrub says, what heals it.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::helper::Mounted;
use crate::testkit::{MIB, random_bytes, rot, run, stratafs, wait_until};

const EIO: i32 = 5;
const PAGE: usize = 4096;
/// Reads one MiB in 16 s: nothing here waits for its end.
const SLOW: &str = "64KiB";

/// Sends nothing to the disk on its own account, so that tests see their own scrubs only.
const NO_BACKGROUND: &str = "[scrub]\ninterval_days = 0\n";

/// Exit code and JSON of a scrub.
fn scrub(m: &Mounted, words: &[&str]) -> (Option<i32>, Value) {
    let ran = m.ask(&["scrub"], &[words, &["--json"]].concat());
    let json = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:#?}"));
    (ran.code, json)
}

/// A scrub that will not end by itself, and has begun.
fn long_scrub(m: &Mounted) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_stratafs"))
        .args(["scrub", "--rate", SLOW, "--json", "--progress", "plain"])
        .arg(m.volume())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 8];
    std::io::Read::read_exact(child.stderr.as_mut().unwrap(), &mut first).unwrap();
    assert_eq!(&first, b"Verified", "it says how far it is");
    child
}

fn interrupt(child: &Child) {
    run("kill", &["-INT", &child.id().to_string()]);
}

/// P3 and P4 as a user meets them.
/// SEMANTICS §5.1.
#[test]
fn damage_hits_its_bytes_only_is_named_and_heals_by_writing_again() {
    let mut m = Mounted::with(&[], NO_BACKGROUND);
    let data = random_bytes(1, 3 * MIB);
    fs::create_dir(m.path("album")).unwrap();
    fs::write(m.path("album/photo.jpg"), &data).unwrap();
    fs::write(m.path("copy.jpg"), &data).unwrap();
    fs::create_dir(m.path(".snapshots/before")).unwrap();
    m.remount();
    let container = rot(&m.volume(), &data[MIB + 77..MIB + 141]);

    let file = File::open(m.path("album/photo.jpg")).unwrap();
    let ino = file.metadata().unwrap().ino();
    let mut lost = Vec::new();
    for page in 0..data.len() / PAGE {
        let mut found = [0; PAGE];
        let at = page * PAGE;
        match file.read_exact_at(&mut found, at as u64) {
            Ok(()) => assert!(found == data[at..at + PAGE], "wrong bytes at {at}"),
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(EIO), "{e}");
                lost.push(at);
            }
        }
    }
    drop(file);
    let (code, report) = scrub(&m, &[]);
    assert_eq!(code, Some(11), "{report:#}");
    assert_eq!(report["damage"]["chunks"], 1);
    let chunk = &report["damage"]["listed"][0];
    let id = format!("{:016x}.sfc", chunk["container"].as_u64().unwrap());
    assert_eq!(container.file_name().unwrap().to_str(), Some(&*id));
    let files = report["damage"]["files"].as_array().unwrap();
    let paths: Vec<_> = files.iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["album/photo.jpg", "copy.jpg"]);
    assert!(files.iter().all(|file| file["snapshots"] == json!(["before"])), "{report:#}");

    let range = &files[0]["ranges"][0];
    let (offset, len) = (range[0].as_u64().unwrap(), range[1].as_u64().unwrap());
    let (first, end) = (offset as usize, (offset + len) as usize);
    let expected: Vec<usize> =
        (0..data.len()).step_by(PAGE).filter(|at| at + PAGE > first && *at < end).collect();
    assert_eq!(lost, expected, "exactly the pages that hold bytes of the chunk");

    let log = fs::read_to_string(m.volume().join("stratafs.log")).unwrap();
    let words = [
        "ERROR".to_owned(),
        format!("ino={ino} "),
        format!("chunk {} in container {} on shard 0", chunk["chunk"], chunk["container"]),
    ];
    let told = log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
    assert_eq!(told, 1, "one line names file, chunk, container and shard: {log}");

    let text = m.ask(&["scrub"], &["--status"]);
    assert_eq!(text.code, Some(11), "{text:#?}");
    assert!(text.stdout.contains("File album/photo.jpg: "), "{text:#?}");
    assert!(text.stdout.contains("in snapshots before"), "{text:#?}");

    let before = (m.total("new_bytes"), m.chunks());
    fs::write(m.path("again.jpg"), &data).unwrap();
    let after = (m.total("new_bytes"), m.chunks());
    assert_eq!(after, (before.0 + len, before.1 + 1), "the damaged chunk and nothing else");
    for path in ["album/photo.jpg", "copy.jpg", ".snapshots/before/album/photo.jpg"] {
        assert!(fs::read(m.path(path)).unwrap() == data, "{path} is healed");
    }
    let (code, report) = scrub(&m, &[]);
    assert_eq!((code, &report["damage"]["chunks"]), (Some(0), &json!(0)), "{report:#}");
    m.remount();
    assert!(fs::read(m.path("album/photo.jpg")).unwrap() == data);
    m.assert_sound();
}

#[test]
fn repair_from_another_copy_works_mounted_and_not() {
    let mut m = Mounted::with(&[], NO_BACKGROUND);
    let data = random_bytes(1, 2 * MIB);
    fs::create_dir(m.path("home")).unwrap();
    fs::write(m.path("home/photo.jpg"), &data).unwrap();
    let good = m.outside().join("good");
    fs::create_dir(&good).unwrap();
    fs::write(good.join("photo.jpg"), &data).unwrap();
    for mounted in [true, false] {
        m.umount();
        rot(&m.volume(), &data[MIB..MIB + 64]);
        if mounted {
            m.mount();
        }
        assert_eq!(scrub(&m, &[]).0, Some(11));
        let (code, report) = scrub(&m, &["--repair", "--from", good.to_str().unwrap()]);
        assert_eq!((code, &report["repaired_chunks"]), (Some(0), &json!(1)), "{report:#}");
        assert_eq!(report["found_in_place"], 1);
        if !mounted {
            m.mount();
        }
        assert!(fs::read(m.path("home/photo.jpg")).unwrap() == data);
        let own = m.text("home");
        m.ask(&["scrub"], &["--repair", "--from", &own]).refused(1, &["the volume itself"]);
    }
    m.assert_sound();
}

/// On by default: a mount verifies what was never verified, and logs whom damage hits.
#[test]
fn a_mount_scrubs_in_the_background() {
    let mut m = Mounted::new();
    let data = random_bytes(1, MIB);
    fs::write(m.path("photo.jpg"), &data).unwrap();
    let ino = fs::metadata(m.path("photo.jpg")).unwrap().ino();
    m.umount();
    rot(&m.volume(), &data[..64]);
    m.mount();
    let status = || m.ask_json(&["status"], &[])["verified"].clone();
    wait_until("everything was verified", || status()["verified_7_days_bytes"] != 0);
    assert_eq!(status()["never_verified_bytes"], 0);
    let named = format!("File is damaged ino={ino} ");
    wait_until("the log names the file", || {
        fs::read_to_string(m.volume().join("stratafs.log")).unwrap().contains(&named)
    });
    let (code, state) = scrub(&m, &["--status"]);
    assert_eq!((code, &state["damage"]["files"][0]["path"]), (Some(11), &json!("photo.jpg")));
    m.ask(&["scrub"], &["--repair", "--from", "/nowhere"]).refused(1, &["/nowhere"]);
}

#[test]
fn an_interrupted_scrub_ends_in_the_mounted_process_too() {
    let mut m = Mounted::with(&[], NO_BACKGROUND);
    fs::write(m.path("a.jpg"), random_bytes(1, 2 * MIB)).unwrap();
    fs::write(m.path("b.zip"), random_bytes(2, 2 * MIB)).unwrap();
    let child = long_scrub(&m);
    let ran = m.ask(&["scrub"], &[]);
    ran.refused(6, &["Another scrub"]);
    interrupt(&child);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
    wait_until("the next one may begin", || scrub_begins(&m));

    // An unmount does not wait for it either.
    let child = long_scrub(&m);
    m.umount();
    let ended = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(report["ended"], "stopped", "{report:#}");

    // Not mounted, the command does it itself, and says how far it came.
    let child = long_scrub(&m);
    interrupt(&child);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(report["ended"], "stopped", "{report:#}");
    m.mount();
    m.assert_sound();
}

fn scrub_begins(m: &Mounted) -> bool {
    match m.ask(&["scrub"], &[]).code {
        Some(0) => true,
        Some(6) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn words_that_make_no_sense_are_refused() {
    let refused = |words: &[&str]| {
        let ran = stratafs(&[&["scrub", "/nowhere"], words].concat());
        assert_eq!(ran.code, Some(2), "{words:?}: {ran:#?}");
    };
    refused(&["--repair"]);
    refused(&["--from", "/x"]);
    refused(&["--status", "--rate", "1MiB"]);
    refused(&["--max-duration", "soon"]);
    refused(&["--rate", "0"]);
}
