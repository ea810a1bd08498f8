//! What a command line may leave out: profiles, the environment, and which of them wins.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use crate::testkit::{Ran, run_with};

/// Directories for a volume `v` and a mountpoint `m`, and a profile `home` that names them.
struct Home {
    dir: TempDir,
}

impl Home {
    fn new(more: &str) -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(home.path("m")).unwrap();
        home.write(&format!(
            "[profiles.home]\nvolume = {:?}\nmountpoint = {:?}\n\
             source = [\"/home\", \"/etc\"]\n{more}",
            home.text("v"),
            home.text("m")
        ));
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, text: &str) {
        let dir = self.path("config/stratafs");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("config.toml"), text).unwrap();
    }

    /// Runs the program with the profiles of this user, and more variables.
    fn with(&self, variables: &[(&str, &str)], args: &[&str]) -> Ran {
        let mut all = vec![("XDG_CONFIG_HOME", self.text("config"))];
        all.extend(variables.iter().map(|(name, value)| (*name, (*value).to_owned())));
        run_with(&all, args)
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.with(&[], args)
    }

    fn snapshots(&self) -> Vec<String> {
        let list = self.run(&["-P", "home", "snapshot", "list", "--no-space", "--json"]).json();
        let names = list["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["name"].as_str().unwrap().to_owned());
        names.collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.run(&["umount", "--lazy", &self.text("m")]);
    }
}

#[test]
fn a_profile_mounts_snapshots_prunes_and_unmounts() {
    let home = Home::new(
        "[profiles.home.mount]\noptions = \"snapdir=visible\"\n\
         [profiles.home.prune]\nkeep-last = 2\n",
    );
    home.run(&["init", "-P", "home"]).ok();
    home.run(&["mount", "-P", "home"]).ok();
    assert!(home.path("m/.snapshots").is_dir());
    let listed = fs::read_dir(home.path("m")).unwrap().count();
    assert_eq!(listed, 1, "the profile makes .snapshots visible");
    for name in ["a", "b", "c", "d"] {
        home.run(&["snapshot", "create", "--profile=home", name]).ok();
    }
    home.run(&["-vPhome", "prune", "--dry-run"]).ok();
    assert_eq!(home.snapshots(), ["a", "b", "c", "d"]);
    home.run(&["prune", "-P", "home", "--keep-last=3"]).ok();
    assert_eq!(home.snapshots(), ["b", "c", "d"], "the command line wins over the profile");
    home.run(&["prune", "-P", "home"]).ok();
    assert_eq!(home.snapshots(), ["c", "d"]);
    home.run(&["snapshot", "delete", "-P", "home", "c", "d"]).ok();
    assert!(home.snapshots().is_empty());
    home.run(&["umount", "-P", "home"]).ok();
    home.run(&["mount", "-P", "home", "-o", "snapdir=hidden"]).ok();
    assert_eq!(fs::read_dir(home.path("m")).unwrap().count(), 0, "the last option counts");
    home.run(&["umount", "-P", "home"]).ok();
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_profile() {
    let home = Home::new("");
    for name in ["v", "w", "x"] {
        home.run(&["init", &home.text(name)]).ok();
    }
    let dir = |ran: Ran| ran.json()["dir"].as_str().unwrap().to_owned();
    let (w, x) = (home.text("w"), home.text("x"));
    let env: &[(&str, &str)] = &[("STRATAFS_VOLUME", &w), ("STRATAFS_PROFILE", "home")];
    assert_eq!(dir(home.with(&env[1..], &["status", "--json"])), home.text("v"));
    assert_eq!(dir(home.with(env, &["status", "--json"])), w);
    assert_eq!(dir(home.with(env, &["status", "--json", &x])), x);
    home.with(env, &["snapshot", "create", "one"]).ok();
    home.with(env, &["snapshot", "rename", "one", "two"]).ok();
    let list = home.run(&["snapshot", "list", &w, "--json"]).json();
    assert_eq!(list["snapshots"][0]["name"], json!("two"));
    home.with(env, &["status", "nowhere"]).refused(3, &["nowhere", "does not exist"]);
    home.with(&[("STRATAFS_PROFILE", "")], &["status", &x]).ok();
    let sources = home.with(env, &["config", "get", "source"]).ok();
    assert_eq!(sources.stdout, "/home\n/etc\n");
    assert_eq!(home.with(env, &["config", "get", "volume"]).ok().stdout, format!("{w}\n"));
    home.with(env, &["config", "get", "exclude"]).refused(8, &["\"home\"", "no exclude"]);
    home.run(&["config", "get", "source"]).refused(8, &["-P"]);
}

#[test]
fn mistakes_in_a_profile_are_named_with_file_and_line() {
    let cases = [
        ("[profiles.home]\nvolum = \"/v\"\n", "\"volum\"", "line 2"),
        ("[profiles.home.prune]\nkeep-dayly = 3\n", "\"keep-dayly\"", "line 2"),
        ("[profiles.home.prune]\nkeep-daily = \"many\"\n", "many", "line 2"),
        ("[profiles.home.prune]\nkeep-daily = true\n", "a value", "line 2"),
        ("[profiles.home.gc]\ndry-run = 3\n", "true or false", "line 2"),
        ("[profiles.home.fly]\nhigh = true\n", "\"fly\"", "line 2"),
        ("[profiles.home\n", "Not TOML", "line 1"),
        ("[profiles.other]\n", "\"home\"", "other"),
    ];
    let home = Home::new("");
    for (text, what, place) in cases {
        home.write(text);
        home.run(&["status", "-P", "home"]).refused(8, &[what, place, "config.toml"]);
        let json = home.run(&["status", "-P", "home", "--json"]);
        let document: serde_json::Value = serde_json::from_str(&json.stderr).unwrap();
        assert_eq!(document["exit_code"], json!(8));
    }
    // Help helps, whatever the profile says; without a profile its file does not matter.
    home.run(&["prune", "-P", "home", "--help"]).ok();
    home.run(&["version"]).ok();
}
