//! `mount-scripts/install.sh` and `uninstall.sh`: all of it comes, and exactly that goes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::mounted::helper::Mounted;
use crate::testkit::{Ran, run, try_run};

fn script(name: &str) -> String {
    format!("{}/mount-scripts/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn install(options: &[&str]) -> Ran {
    let variable = format!("STRATAFS={}", env!("CARGO_BIN_EXE_stratafs"));
    let program = script("install.sh");
    let words = [&[variable.as_str(), "bash", &program], options].concat();
    try_run("env", &words)
}

/// Files and directories below `dir`, relative to it.
fn tree(dir: &Path) -> BTreeSet<String> {
    let list = run("find", &[dir.to_str().unwrap(), "-mindepth", "1", "-printf", "%P\n"]);
    list.lines().map(str::to_owned).collect()
}

#[test]
fn everything_is_installed_and_exactly_that_is_removed() {
    for (prefix, sbin, units) in [
        ("/usr", "usr/sbin", "usr/lib/systemd/system"),
        ("/usr/local", "sbin", "usr/local/lib/systemd/system"),
        ("/opt/strata", "sbin", "etc/systemd/system"),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let dest = temp.path().to_str().unwrap();
        // What others put there stays, also in directories that are ours.
        let foreign = temp.path().join("usr/share/foreign");
        fs::create_dir_all(&foreign).unwrap();
        let before = tree(temp.path());
        for _ in 0..2 {
            install(&["--prefix", prefix, "--destdir", dest]).ok();
        }
        let below = &prefix[1..];
        let installed = tree(temp.path());
        for file in [
            format!("{below}/bin/stratafs"),
            format!("{below}/bin/stratafs-backup"),
            format!("{sbin}/mount.stratafs"),
            format!("{sbin}/mount.fuse.stratafs"),
            format!("{sbin}/umount.fuse.stratafs"),
            format!("{units}/stratafs@.service"),
            format!("{units}/stratafs-backup@.timer"),
            format!("{below}/share/man/man1/stratafs-mount.1"),
            format!("{below}/share/bash-completion/completions/stratafs"),
            format!("{below}/share/zsh/site-functions/_stratafs"),
            format!("{below}/share/fish/vendor_completions.d/stratafs.fish"),
            format!("{below}/share/doc/stratafs/docs/config.example.toml"),
            format!("{below}/share/doc/stratafs/examples/home.conf"),
        ] {
            assert!(installed.contains(&file), "{file} is missing: {installed:#?}");
        }
        let unit = fs::read_to_string(temp.path().join(units).join("stratafs@.service")).unwrap();
        assert!(unit.contains(&format!("ExecStart={prefix}/bin/stratafs mount -f")), "{unit}");
        let program = temp.path().join(below).join("bin/stratafs");
        run(program.to_str().unwrap(), &["version"]);

        let uninstall = temp.path().join(below).join("share/stratafs/uninstall.sh");
        let mine = temp.path().join(below).join("share/doc/stratafs/mine");
        fs::write(&mine, "mine").unwrap();
        run("bash", &[uninstall.to_str().unwrap(), "--destdir", dest]);
        let left: BTreeSet<String> = tree(temp.path()).difference(&before).cloned().collect();
        let only_mine = left.iter().all(|path| mine.starts_with(temp.path().join(path)));
        assert!(only_mine && mine.exists(), "{left:#?}");
    }
}

#[test]
fn nothing_is_removed_while_a_volume_is_mounted() {
    let m = Mounted::new();
    let prefix = m.outside().join("prefix");
    fs::create_dir_all(prefix.join("share/stratafs")).unwrap();
    fs::write(prefix.join("share/stratafs/installed"), format!("file {}/x\n", prefix.display()))
        .unwrap();
    fs::write(prefix.join("x"), "x").unwrap();
    let line = [&script("uninstall.sh"), "--prefix", prefix.to_str().unwrap()];
    let ran = try_run("bash", &line);
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(1), 1), "{ran:#?}");
    assert!(ran.stderr.contains("unmount them first"), "{ran:#?}");
    assert!(prefix.join("x").exists());
}

#[test]
fn wrong_words_are_one_sentence() {
    for (name, words, sentence) in [
        ("install.sh", &["--frob"][..], "Word --frob is not known"),
        ("install.sh", &["--prefix"], "Option --prefix needs a directory"),
        ("install.sh", &["--prefix", "usr"], "--prefix is to be an absolute path"),
        ("install.sh", &["--prefix=/a b"], "--prefix is to be an absolute path"),
        ("uninstall.sh", &["x"], "Word x is not known"),
        ("uninstall.sh", &["--prefix", "/nowhere"], "nothing was installed there"),
    ] {
        let ran = try_run("bash", &[&[script(name).as_str()], words].concat());
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        assert_eq!(ran.stderr.trim().lines().count(), 1, "{ran:#?}");
        assert!(ran.stderr.contains(sentence), "{ran:#?}");
    }
    let ran = try_run("env", &["STRATAFS=/nowhere", "bash", &script("install.sh")]);
    assert!(ran.code == Some(1) && ran.stderr.contains("is no program"), "{ran:#?}");
}
