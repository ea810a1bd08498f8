//! `mount-scripts/stratafs-backup`: copy, snapshot, prune; and everything that can be wrong before.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::helper::Mounted;
use crate::testkit::{Ran, run, run_in, try_run};

/// A mount, a source tree, and the file of a backup.
struct Backup {
    m: Mounted,
}

impl Backup {
    fn new() -> Self {
        let m = Mounted::new();
        let this = Self { m };
        fs::create_dir_all(this.source().join("kept")).unwrap();
        fs::create_dir_all(this.source().join("cache")).unwrap();
        fs::write(this.source().join("kept/letter"), "first").unwrap();
        fs::write(this.source().join("cache/junk"), "junk").unwrap();
        this
    }

    fn source(&self) -> PathBuf {
        self.m.outside().canonicalize().unwrap().join("source")
    }

    fn file(&self) -> PathBuf {
        self.m.outside().join("home.conf")
    }

    /// The source's copy in the live tree, or in a snapshot.
    fn copy(&self, tree: &str, below: &str) -> PathBuf {
        let source = self.source();
        let below = source.strip_prefix("/").unwrap().join(below);
        self.m.path(&format!("{tree}home")).join(below)
    }

    fn configure(&self, more: &str) {
        let (mount, source) = (self.m.text(""), self.source());
        let text = format!("# Every night.\n\nMOUNT={mount}\nSOURCE={}\n{more}", source.display());
        fs::write(self.file(), text).unwrap();
    }

    fn run(&self, options: &[&str]) -> Ran {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("mount-scripts/stratafs-backup");
        let variable = format!("STRATAFS={}", env!("CARGO_BIN_EXE_stratafs"));
        let mut words = vec![variable, program.to_str().unwrap().to_owned()];
        words.extend(options.iter().map(|&option| option.to_owned()));
        words.push(self.file().to_str().unwrap().to_owned());
        try_run("env", &words)
    }

    fn snapshots(&self) -> Vec<String> {
        let list = self.m.ask_json(&["snapshot", "list"], &["--no-space"]);
        let rows = list.as_array().or_else(|| list["snapshots"].as_array()).unwrap();
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn two_runs_are_two_states_and_the_oldest_goes() {
    let b = Backup::new();
    b.configure("EXCLUDE=cache/\nSNAPSHOT=home-%Y-%m-%d_%H%M%S.%N\nKEEP_LAST=2\n");
    fs::create_dir(b.m.path(".snapshots/mine")).unwrap();
    b.run(&[]).ok();
    let first = b.snapshots().into_iter().find(|name| name.starts_with("home-")).unwrap();
    assert!(!b.copy("", "cache").exists());
    fs::write(b.source().join("kept/letter"), "second").unwrap();
    fs::write(b.source().join("new"), "new").unwrap();
    b.run(&["-q"]).ok();
    let at_first = format!(".snapshots/{first}/");
    assert_eq!(fs::read_to_string(b.copy(&at_first, "kept/letter")).unwrap(), "first");
    assert!(!b.copy(&at_first, "new").exists());
    assert_eq!(fs::read_to_string(b.copy("", "kept/letter")).unwrap(), "second");
    fs::remove_file(b.source().join("new")).unwrap();
    b.run(&[]).ok();
    assert!(!b.copy("", "new").exists(), "what is gone from the source goes");
    let left = b.snapshots();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left.contains(&"mine".to_owned()) && !left.contains(&first), "{left:?}");
    run("diff", &["-r", "-x", "cache", b.source().to_str().unwrap(), &copy_text(&b)]);
    b.m.assert_sound();
}

fn copy_text(b: &Backup) -> String {
    b.copy("", "").to_str().unwrap().trim_end_matches('/').to_owned()
}

#[test]
fn a_dry_run_changes_nothing() {
    let b = Backup::new();
    b.configure("KEEP_LAST=1\nPRE=/bin/false\n");
    fs::create_dir(b.m.path(".snapshots/home-1")).unwrap();
    fs::create_dir(b.m.path(".snapshots/home-2")).unwrap();
    let said = b.run(&["-n"]).ok().stdout;
    assert!(said.contains("kept/letter") && said.contains("Would take snapshot home-"), "{said}");
    assert_eq!(b.snapshots().len(), 2);
    assert!(!b.m.path("home").exists());
}

#[test]
fn hooks_see_the_backup_and_a_failing_one_stops_it() {
    let b = Backup::new();
    let (hook, told) = (b.m.outside().join("hook"), b.m.outside().join("told"));
    let script = format!(
        "#!/bin/sh\necho \"$1 $STRATAFS_BACKUP_NAME $STRATAFS_BACKUP_STATUS \
         ${{STRATAFS_BACKUP_SNAPSHOT:+snapshot}}\" >>{}\nexit $2\n",
        told.display()
    );
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let hook = hook.display();
    b.configure(&format!("PRE={hook} pre 0\nPOST={hook} post 0\n"));
    b.run(&[]).ok();
    b.configure(&format!("PRE={hook} pre 3\nPOST={hook} post 0\n"));
    let ran = b.run(&[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("PRE failed (3)"), "{ran:#?}");
    assert_eq!(b.snapshots().len(), 1);
    let told = fs::read_to_string(told).unwrap();
    assert_eq!(told, "pre home 0 \npost home 0 snapshot\npre home 0 \npost home 1 \n");
}

#[test]
fn a_volume_that_is_not_mounted_is_mounted_for_the_time() {
    let mut b = Backup::new();
    b.configure("");
    b.m.umount();
    let ran = b.run(&[]);
    assert_eq!(ran.code, Some(7), "{ran:#?}");
    assert!(ran.stderr.contains("No StrataFS volume is mounted on"), "{ran:#?}");
    assert_eq!(fs::read_dir(b.m.path("")).unwrap().count(), 0, "the bare directory was filled");
    b.configure(&format!("VOLUME={}\n", b.m.volume().display()));
    b.run(&[]).ok();
    assert!(!b.m.is_mounted());
    assert_eq!(b.snapshots().len(), 1);
    b.m.mount();
    assert_eq!(fs::read_to_string(b.copy("", "kept/letter")).unwrap(), "first");
}

#[test]
fn the_volume_below_a_source_is_left_out() {
    let b = Backup::new();
    // The source is everything: the volume, its mountpoint and the tree.
    let all = b.m.outside().canonicalize().unwrap();
    b.configure(&format!("SOURCE={}\n", all.display()));
    b.run(&[]).ok();
    let copy = b.m.path("home").join(all.strip_prefix("/").unwrap());
    assert!(copy.join("source/kept/letter").exists());
    assert!(!copy.join("volume").exists() && !copy.join("mnt").exists());
}

#[test]
fn a_profile_says_what_the_file_leaves_out() {
    let b = Backup::new();
    let profiles = b.m.outside().join("profiles.toml");
    let write = |more: &str| {
        let text = format!(
            "[profiles.home]\nmountpoint = {:?}\nsource = [{:?}]\nexclude = [\"cache/\"]\n{more}",
            b.m.text(""),
            b.source()
        );
        fs::write(&profiles, text).unwrap();
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("mount-scripts/stratafs-backup");
    let run_by = |name: &str| {
        let variables = [
            format!("STRATAFS={}", env!("CARGO_BIN_EXE_stratafs")),
            format!("STRATAFS_CONFIG={}", profiles.display()),
            format!("STRATAFS_BACKUP_DIR={}", b.m.outside().display()),
        ];
        let words = [&variables[..], &[script.to_str().unwrap().to_owned(), name.to_owned()]];
        try_run("env", &words.concat())
    };
    // By name, without a file; and without a section that says what to keep.
    write("");
    run_by("home").ok();
    fs::create_dir(b.m.path(".snapshots/home-0")).unwrap();
    assert!(b.copy("", "kept/letter").exists() && !b.copy("", "cache").exists());
    assert_eq!(b.snapshots().len(), 2);
    write("[profiles.home.prune]\nkeep-last = 1\n");
    fs::write(b.file(), "PROFILE=home\nSNAPSHOT=home-%s%N\n").unwrap();
    run_by("home").ok();
    assert_eq!(b.snapshots().len(), 1);
    let ran = run_by("other");
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(8), 1), "{ran:#?}");
    assert!(ran.stderr.contains("No profile \"other\""), "{ran:#?}");
}

#[test]
fn one_at_a_time() {
    let b = Backup::new();
    b.configure("PRE=sleep 5\n");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("mount-scripts/stratafs-backup");
    // The second begins when the first holds the lock, which its hook shows.
    let second = run_in(
        b.m.outside(),
        &format!(
            "export STRATAFS={}\nmkfifo began\n\
             printf '#!/bin/sh\\necho >began\\nexec cat go\\n' >hook; chmod +x hook; mkfifo go\n\
             sed -i \"s#^PRE=.*#PRE=$PWD/hook#\" home.conf\n\
             {script} ./home.conf >first.log 2>&1 & read -r _ <began\n\
             code=0; {script} ./home.conf 2>&1 || code=$?; echo \"code $code\"\n\
             echo >go; wait $!",
            env!("CARGO_BIN_EXE_stratafs"),
            script = script.display(),
        ),
    );
    assert!(second.contains("is running already") && second.ends_with("code 6\n"), "{second}");
    assert_eq!(b.snapshots().len(), 1);
}

#[test]
fn a_source_that_is_partly_unreadable_is_code_11_and_prunes_nothing() {
    let b = Backup::new();
    b.configure("SOURCE=/nowhere/at/all\nKEEP_LAST=1\n");
    fs::create_dir(b.m.path(".snapshots/home-old")).unwrap();
    let ran = b.run(&[]);
    assert_eq!(ran.code, Some(11), "{ran:#?}");
    assert!(ran.stderr.contains("Some files of /nowhere/at/all could not be copied"), "{ran:#?}");
    assert_eq!(b.snapshots().len(), 2, "a snapshot of the others, and the old one stays");
    b.configure("RSYNC_OPTION=--frobnicate\n");
    let ran = b.run(&[]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert_eq!(b.snapshots().len(), 2, "nothing was copied, nothing is kept");
}

#[test]
fn files_that_are_not_right_are_refused_by_line() {
    let b = Backup::new();
    for (more, words) in [
        ("FROBNICATE=1\n", "home.conf:5: Key FROBNICATE is not known"),
        ("rm -rf /\n", "home.conf:5: This is no line KEY=VALUE"),
        ("EXCLUDE=\n", "EXCLUDE has no value"),
        ("SOURCE=relative\n", "SOURCE is to be an absolute path"),
        ("MOUNT=relative\n", "MOUNT is to be an absolute path"),
        ("INTO=a/../../b\n", "INTO is to be a directory below MOUNT"),
        ("INTO=/abs\n", "INTO is to be a directory below MOUNT"),
        ("ONE_FILE_SYSTEM=maybe\n", "ONE_FILE_SYSTEM is yes or no"),
        ("SNAPSHOT=%F\nKEEP_DAILY=7\n", "SNAPSHOT has to begin with a word"),
        ("SNAPSHOT=*%F\nKEEP_DAILY=7\n", "SNAPSHOT may not have any of"),
    ] {
        b.configure(more);
        let ran = b.run(&[]);
        assert_eq!(ran.code, Some(8), "{more}: {ran:#?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{more}: {ran:#?}");
        assert!(ran.stderr.contains(words), "{more}: {ran:#?}");
    }
    b.configure("PROFILE=none\nMOUNT=relative\n");
    assert_eq!(b.run(&[]).code, Some(8));
    fs::write(b.file(), "PROFILE=none\n").unwrap();
    assert!(b.run(&[]).stderr.contains("No profile \"none\""));
    fs::write(b.file(), "SOURCE=/home\n").unwrap();
    assert!(b.run(&[]).stderr.contains("MOUNT is missing"));
    fs::write(b.file(), "MOUNT=/mnt\n").unwrap();
    assert!(b.run(&[]).stderr.contains("SOURCE is missing"));
    fs::remove_file(b.file()).unwrap();
    let ran = b.run(&[]);
    assert!(ran.code == Some(8) && ran.stderr.contains("Cannot read"), "{ran:#?}");
    for options in [&["-x"][..], &["--frob"], &["a"]] {
        assert_eq!(b.run(options).code, Some(2), "{options:?}");
    }
    assert!(b.snapshots().is_empty());
}
