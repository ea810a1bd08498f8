//! What shells and man(1) get: completions that bash really offers, and pages that groff sets
//! without a complaint.

use std::fs;
use std::path::Path;

use crate::testkit::{run_in, stratafs, try_run};

/// What bash offers for a command line, one word a line.
fn offered(dir: &Path, words: &[&str]) -> Vec<String> {
    let script = format!(
        "set +eu; source ./script; COMP_WORDS=({}); COMP_CWORD={}; _stratafs stratafs {:?} {:?}; \
         printf '%s\\n' \"${{COMPREPLY[@]:-}}\"",
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words.len() - 1,
        words.last().unwrap(),
        words[words.len() - 2],
    );
    run_in(dir, &script).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_options() {
    let dir = tempfile::tempdir().unwrap();
    let script = stratafs(&["completions", "bash"]).ok().stdout;
    fs::write(dir.path().join("script"), script).unwrap();
    let offered = |words: &[&str]| offered(dir.path(), words);
    assert_eq!(offered(&["stratafs", "snap"]), ["snapshot"]);
    assert_eq!(offered(&["stratafs", "snapshot", "cr"]), ["create"]);
    assert_eq!(offered(&["stratafs", "gc", "/mnt", "--dr"]), ["--dry-run"]);
    assert_eq!(offered(&["stratafs", "completions", "z"]), ["zsh"]);
    // Nothing of ours fits: bash then offers files.
    assert_eq!(offered(&["stratafs", "status", "/et"]), [""]);
    assert!(run_in(dir.path(), "source ./script; complete -p stratafs").contains("-o default"));
}

#[test]
fn every_shell_has_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stratafs(&["completions", shell]).ok().stdout;
        for word in ["rebuild-index", "explain", "keep-weekly", "completions"] {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
        assert!(!script.contains("in-background"), "{shell} offers what is hidden");
    }
    let ran = stratafs(&["completions", "csh"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("bash, zsh, fish"), "{ran:?}");
}

/// The page as a terminal shows it; a complaint of groff is a failure.
fn set(dir: &Path, page: &str) -> String {
    let script = "cd \"$1\" && groff -ww -man -K utf8 -Tutf8 -P-cbou \"$2\"";
    let ran = try_run("bash", &["-c", script, "bash", dir.to_str().unwrap(), page]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{page}");
    ran.stdout
}

#[test]
fn manual_pages_are_set_without_a_complaint() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    stratafs(&["man", "--dir", dir.to_str().unwrap()]).ok();
    let mut pages = 0;
    for section in ["man1", "man5", "man8"] {
        for entry in fs::read_dir(dir.join(section)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let text = set(dir, &format!("{section}/{name}"));
            assert!(text.contains("NAME") && text.contains("SEE ALSO"), "{name}: {text}");
            pages += 1;
        }
    }
    assert!(pages > 25, "{pages}");
    assert!(set(dir, "man8/mount.fuse.stratafs.8").contains("snapdir=visible|hidden"));
    assert!(set(dir, "man5/stratafs-config.5").contains("commit_interval_secs"));
    let one = stratafs(&["man", "snapshot", "create"]).ok().stdout;
    assert_eq!(fs::read_to_string(dir.join("man1/stratafs-snapshot-create.1")).unwrap(), one);
}

#[test]
fn what_man_cannot_do_is_one_sentence() {
    stratafs(&["man", "snapshot", "fly"]).refused(1, &["\"snapshot fly\"", "stratafs help"]);
    stratafs(&["man", "--dir", "/proc/no"]).refused(1, &["/proc/no"]);
}
