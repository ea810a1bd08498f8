//! Virtual extended attributes: there when asked for by name, and nowhere else.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use super::helper::Mounted;
use crate::testkit::{MIB, random_bytes, run, text_bytes, try_run};

fn get(m: &Mounted, name: &str, path: &str) -> String {
    let name = format!("user.stratafs.{name}");
    run("getfattr", &["--only-values", "--absolute-names", "-h", "-n", &name, &m.text(path)])
}

fn refused(m: &Mounted, name: &str, path: &str) -> String {
    let name = format!("user.stratafs.{name}");
    let ran = try_run("getfattr", &["--absolute-names", "-n", &name, &m.text(path)]);
    assert_ne!(ran.code, Some(0), "{ran:#?}");
    ran.stderr
}

fn number(m: &Mounted, name: &str, path: &str) -> u64 {
    get(m, name, path).parse().unwrap()
}

/// SEMANTICS §2.18: what the volume knows of files and subtrees.
#[test]
fn files_and_subtrees_say_what_they_take() {
    let m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    let text = text_bytes(1, MIB);
    fs::write(m.path("d/a.c"), &text).unwrap();
    fs::write(m.path("d/b.c"), &text).unwrap();
    fs::hard_link(m.path("d/b.c"), m.path("d/c.c")).unwrap();
    let sparse = File::create(m.path("d/hole.bin")).unwrap();
    sparse.write_all_at(&random_bytes(2, MIB), 50 * MIB as u64).unwrap();
    drop(sparse);

    let mib = MIB as u64;
    assert_eq!(number(&m, "raw", "d/a.c"), mib);
    assert_eq!(number(&m, "unique", "d/a.c"), mib);
    assert!((1..mib / 2).contains(&number(&m, "stored", "d/a.c")), "text shrinks");
    assert_eq!(number(&m, "raw", "d/hole.bin"), mib, "holes are no data");
    assert_eq!(number(&m, "raw", "d"), 3 * mib, "a hard link counts once");
    assert_eq!(number(&m, "unique", "d"), 2 * mib, "and what is the same, too");
    let stored = number(&m, "stored", "d");
    let hundredths = 300 * mib / stored;
    assert_eq!(get(&m, "ratio", "d"), format!("{}.{:02}", hundredths / 100, hundredths % 100));
    assert_eq!(get(&m, "class", "d/a.c"), "source");
    assert!(get(&m, "class", "d").split(',').any(|class| class == "source"));
    assert_eq!(get(&m, "shards", "d"), "default");
    fs::create_dir(m.path("empty")).unwrap();
    for name in ["class", "shards", "ratio"] {
        assert!(refused(&m, name, "empty").contains("No such attribute"), "{name} of nothing");
    }
    assert_eq!(get(&m, "raw", "empty"), "0");
}

#[test]
fn contents_have_a_hash_and_snapshots_their_facts() {
    let m = Mounted::new();
    let data = random_bytes(3, 5 * MIB + 17);
    fs::write(m.path("a"), &data).unwrap();
    let hash = |data: &[u8]| stratafs::types::Fingerprint::of(data).to_string();
    assert_eq!(get(&m, "blake3", "a"), hash(&data));
    fs::create_dir(m.path(".snapshots/monday")).unwrap();
    let file = File::options().write(true).open(m.path("a")).unwrap();
    file.write_all_at(b"changed", 70_000).unwrap();
    let mut changed = data.clone();
    changed[70_000..70_007].copy_from_slice(b"changed");
    assert_eq!(get(&m, "blake3", "a"), hash(&changed), "not what it was");
    assert_eq!(get(&m, "blake3", ".snapshots/monday/a"), hash(&data));
    File::create(m.path("empty")).unwrap();
    assert_eq!(get(&m, "blake3", "empty"), hash(b""));
    refused(&m, "blake3", ".snapshots/monday");

    assert_eq!(get(&m, "snapshot", ".snapshots/monday"), "monday");
    assert_eq!(get(&m, "snapshot", ".snapshots/monday/a"), "monday", "and all in it");
    assert_eq!(get(&m, "snapshot.id", ".snapshots/monday"), "1");
    assert!(get(&m, "snapshot.created", ".snapshots/monday").ends_with('Z'));
    assert_eq!(get(&m, "snapshot.held", ".snapshots/monday"), "no");
    m.ask(&["snapshot", "hold"], &["monday"]).ok();
    assert_eq!(get(&m, "snapshot.held", ".snapshots/monday"), "yes");
    refused(&m, "snapshot.locked_until", ".snapshots/monday");
    refused(&m, "snapshot", "a");
}

/// rsync -X, cp -a and tar would carry along what lists show.
#[test]
fn lists_do_not_show_them_and_nobody_sets_them() {
    let m = Mounted::new();
    fs::write(m.path("a"), "x").unwrap();
    run("setfattr", &["-n", "user.mine", "-v", "1", &m.text("a")]);
    fs::create_dir(m.path(".snapshots/s")).unwrap();
    for path in ["", "a", ".snapshots/s/a", ".snapshots/s"] {
        let listed = run("getfattr", &["--absolute-names", "-d", "-m", "-", &m.text(path)]);
        assert!(!listed.contains("user.stratafs"), "{path}: {listed}");
    }
    for name in ["class", "blake3", "raw", "snapshot"] {
        let name = format!("user.stratafs.{name}");
        for words in [&["-n", &name, "-v", "1"][..], &["-x", &name]] {
            let ran = try_run("setfattr", &[words, &[&m.text("a")]].concat());
            assert!(ran.stderr.contains("Operation not permitted"), "{ran:#?}");
        }
    }
}

/// SEMANTICS §2.19: a subtree too large to count says so.
#[test]
fn a_large_subtree_is_refused() {
    let m = Mounted::new();
    fs::create_dir(m.path("d")).unwrap();
    for n in 0..10_001 {
        File::create(m.path(&format!("d/{n}"))).unwrap();
    }
    assert!(refused(&m, "raw", "d").contains("Argument list too long"));
}
