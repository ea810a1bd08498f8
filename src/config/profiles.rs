//! Profiles: defaults for command lines, kept outside any volume.
//!
//! Guarantees: an unknown key or a value of the wrong kind is refused with one sentence that names
//! file, line and key. A profile comes from one file as a whole; the user's wins over the system's.
//! Does not: know the options of commands; the cli refuses those it does not know by
//! [`Setting::place`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::config::reader::{Section, Source};
use crate::config::{not_toml, not_utf8};
use crate::error::{Error, Result};

/// The profiles of a system.
pub const SYSTEM_PROFILES: &str = "/etc/stratafs/config.toml";
/// Where the profiles of a user lie below the directory of configurations.
const USER_PROFILES: &str = "stratafs/config.toml";
/// Longest name of a profile.
const NAME_BYTES_MAX: usize = 64;

/// A value that a profile gives, and where it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The option of the command, or the key of the profile.
    pub key: String,
    /// Its values; several are one option each. A flag that is switched on has none.
    pub values: Vec<String>,
    /// The key is a flag and says `false`.
    pub off: bool,
    /// The file.
    pub path: PathBuf,
    /// The line in it.
    pub line: usize,
}

impl Setting {
    /// File and line, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}, line {}", self.path.display(), self.line)
    }
}

/// One profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Keys of the profile itself, in key order: see [`Profile::KEYS`].
    pub own: Vec<Setting>,
    /// Options by command, each in key order.
    pub commands: BTreeMap<String, Vec<Setting>>,
}

impl Profile {
    /// The keys that a profile has besides the sections of commands.
    pub const KEYS: [&str; 4] = ["volume", "mountpoint", "source", "exclude"];

    /// The setting of one of [`Profile::KEYS`].
    #[must_use]
    pub fn own(&self, key: &str) -> Option<&Setting> {
        self.own.iter().find(|setting| setting.key == key)
    }
}

/// All profiles there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profiles {
    /// The files that were looked for, the last one wins.
    pub paths: Vec<PathBuf>,
    /// By name.
    pub by_name: BTreeMap<String, Profile>,
}

impl Profiles {
    /// The files that may have profiles, the last one wins. `variable` gives a variable of the
    /// environment: `STRATAFS_CONFIG` names the only file; `XDG_CONFIG_HOME` and `HOME` lead to the
    /// user's.
    #[must_use]
    pub fn paths(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
        let dir = |name| variable(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
        if let Some(only) = variable("STRATAFS_CONFIG").filter(|path| !path.is_empty()) {
            return vec![only.into()];
        }
        let user = dir("XDG_CONFIG_HOME").or_else(|| dir("HOME").map(|home| home.join(".config")));
        let user = user.map(|dir| dir.join(USER_PROFILES));
        [PathBuf::from(SYSTEM_PROFILES)].into_iter().chain(user).collect()
    }

    /// Reads the files there are.
    ///
    /// # Errors
    /// `Config` when one of them does not say something valid; `Io` when it cannot be read.
    pub fn load(paths: Vec<PathBuf>) -> Result<Self> {
        let mut all = Self::default();
        for path in &paths {
            match std::fs::read(path) {
                Ok(bytes) => {
                    let text = str::from_utf8(&bytes).map_err(|e| not_utf8(&bytes, e, path))?;
                    all.by_name.extend(parse(text, path)?);
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("read", path, e)),
            }
        }
        all.paths = paths;
        Ok(all)
    }

    /// The profile `name`.
    ///
    /// # Errors
    /// `Config` that names the files and the profiles there are.
    pub fn get(&self, name: &str) -> Result<&Profile> {
        self.by_name.get(name).ok_or_else(|| {
            let files: Vec<_> = self.paths.iter().map(|p| p.display().to_string()).collect();
            let names: Vec<_> = self.by_name.keys().map(String::as_str).collect();
            let there = if names.is_empty() { "there are none".into() } else { names.join(", ") };
            Error::Config {
                what: format!(
                    "No profile \"{}\" in {}; profiles are: {there}",
                    name.escape_debug(),
                    files.join(" or ")
                ),
            }
        })
    }
}

/// True if the file at `path` has profiles and is no configuration of a volume.
#[must_use]
pub fn is_profiles(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let table = DeTable::parse(text.strip_prefix('\u{feff}').unwrap_or(&text));
    table.is_ok_and(|table| table.get_ref().keys().any(|key| key.get_ref() == "profiles"))
}

fn parse(text: &str, path: &Path) -> Result<BTreeMap<String, Profile>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Source { path, text };
    let table = DeTable::parse(text).map_err(|e| not_toml(source, &e))?;
    let top = Section::new(source, "the top level".to_owned(), table.get_ref(), 0);
    top.refuse_unknown(&["profiles"])?;
    let Some(value) = top.get("profiles") else { return Ok(BTreeMap::new()) };
    let section = Section::from_value(source, "section [profiles]".to_owned(), value)?;
    let mut profiles = BTreeMap::new();
    for (name, at, value) in section.entries() {
        let title = format!("section [profiles.{}]", name.escape_debug());
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(valid) {
            let problem = format!("\"{}\" is not a profile name in {title}", name.escape_debug());
            return Err(source.error(at, problem, "valid are 1 to 64 of A-Z a-z 0-9 - _ ."));
        }
        profiles.insert(name.to_owned(), profile(source, title, value)?);
    }
    Ok(profiles)
}

fn profile(
    source: Source<'_>,
    title: String,
    value: &toml::Spanned<DeValue<'_>>,
) -> Result<Profile> {
    let section = Section::from_value(source, title.clone(), value)?;
    let mut profile = Profile::default();
    for (key, at, value) in section.entries() {
        if value.get_ref().as_table().is_some() {
            let title = format!("{}.{}]", title.trim_end_matches(']'), key.escape_debug());
            let section = Section::from_value(source, title, value)?;
            let keys = section.entries();
            let settings = keys.map(|(key, at, _)| read(source, &section, key, at));
            profile.commands.insert(key.to_owned(), settings.collect::<Result<_>>()?);
            continue;
        }
        if !Profile::KEYS.contains(&key) {
            let problem = format!("Unknown key \"{}\" in {title}", key.escape_debug());
            let advice = format!(
                "valid are {}, and the sections of commands, as [profiles.NAME.prune]",
                Profile::KEYS.join(", ")
            );
            return Err(source.error(at, problem, advice));
        }
        let setting = read(source, &section, key, at)?;
        let one = matches!(key, "volume" | "mountpoint");
        if setting.values.is_empty() || one && setting.values.len() > 1 {
            let valid = if one { "a text" } else { "a text or a list of texts" };
            return Err(section.wrong(key, value.get_ref(), valid));
        }
        let relative = setting.values.iter().any(|path| !path.starts_with('/'));
        if relative && key != "exclude" {
            return Err(section.wrong(key, value.get_ref(), "an absolute path"));
        }
        profile.own.push(setting);
    }
    Ok(profile)
}

/// The setting at `key`, which is at byte `at`.
fn read(source: Source<'_>, section: &Section<'_>, key: &str, at: usize) -> Result<Setting> {
    let mut setting = Setting {
        key: key.to_owned(),
        values: Vec::new(),
        off: false,
        path: source.path.to_owned(),
        line: source.line(at),
    };
    match section.get(key).map(toml::Spanned::get_ref) {
        Some(DeValue::Boolean(on)) => setting.off = !on,
        Some(DeValue::Integer(_)) => {
            let number = section.integer(key, i64::MIN..=i64::MAX)?;
            setting.values = number.iter().map(ToString::to_string).collect();
        }
        _ => setting.values = section.texts(key)?,
    }
    Ok(setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BTreeMap<String, Profile>> {
        parse(text, Path::new("/c/config.toml"))
    }

    #[test]
    fn a_profile_has_paths_and_options_of_commands() {
        let all = read(
            "[profiles.home]\nvolume = \"/backup/vol\"\nexclude = [\"*.tmp\", \".cache\"]\n\
             [profiles.home.prune]\nkeep-daily = 7\ndry-run = true\nquiet = false\n",
        )
        .unwrap();
        let home = &all["home"];
        assert_eq!(home.own("volume").unwrap().values, ["/backup/vol"]);
        assert_eq!(home.own("exclude").unwrap().values, ["*.tmp", ".cache"]);
        let prune = &home.commands["prune"];
        let short: Vec<_> = prune.iter().map(|s| (s.key.as_str(), s.off, s.line)).collect();
        assert_eq!(short, [("dry-run", false, 6), ("keep-daily", false, 5), ("quiet", true, 7)]);
        assert_eq!((prune[0].values.len(), &prune[1].values[..]), (0, &["7".to_owned()][..]));
        assert_eq!(prune[1].place(), "/c/config.toml, line 5");
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let cases = [
            ("[profile.a]\n", "\"profile\"", "line 1"),
            ("[profiles.a]\nvolume = 3\n", "absolute path", "line 2"),
            ("[profiles.a]\nvolume = true\n", "a text", "line 2"),
            ("[profiles.a]\nvolume = \"v\"\n", "absolute path", "line 2"),
            ("[profiles.a]\nvolume = [\"/v\", \"/w\"]\n", "a text", "line 2"),
            ("[profiles.a]\n\nvolum = \"/v\"\n", "\"volum\"", "line 3"),
            ("[profiles.a]\nsource = []\n", "source", "line 2"),
            ("[profiles.a.prune]\nkeep-daily = 1.5\n", "keep-daily", "line 2"),
            ("[profiles.\"a b\"]\n", "profile name", "line 1"),
            ("profiles = 3", "table", "line 1"),
            ("[profiles.a\n", "Not TOML", "line 1"),
        ];
        for (text, what, line) in cases {
            let error = read(text).unwrap_err();
            let sentence = error.to_string();
            assert_eq!(error.exit_code(), 8, "{text}: {sentence}");
            assert!(sentence.contains(what) && sentence.contains(line), "{text}: {sentence}");
            assert!(sentence.contains("/c/config.toml"), "{sentence}");
        }
    }

    #[test]
    fn files_are_looked_for_at_the_usual_places() {
        let paths = |pairs: &[(&str, &str)]| {
            let pairs: BTreeMap<_, _> = pairs.iter().copied().collect();
            let paths = Profiles::paths(&|name| pairs.get(name).map(Into::into));
            paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(paths(&[]), [SYSTEM_PROFILES]);
        let user = "/h/.config/stratafs/config.toml";
        assert_eq!(paths(&[("HOME", "/h")]), [SYSTEM_PROFILES, user]);
        assert_eq!(paths(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "x")]), [SYSTEM_PROFILES, user]);
        let xdg = paths(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")]);
        assert_eq!(xdg, [SYSTEM_PROFILES, "/x/stratafs/config.toml"]);
        assert_eq!(paths(&[("HOME", "/h"), ("STRATAFS_CONFIG", "/c")]), ["/c"]);
    }

    #[test]
    fn the_later_file_wins_and_a_missing_profile_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::write(&one, "[profiles.a]\nvolume = \"/1\"\n[profiles.b]\n").unwrap();
        std::fs::write(&two, "[profiles.a]\nmountpoint = \"/2\"\n").unwrap();
        let paths = vec![one, two, dir.path().join("missing")];
        let all = Profiles::load(paths).unwrap();
        assert!(all.get("a").unwrap().own("volume").is_none());
        assert_eq!(all.get("a").unwrap().own("mountpoint").unwrap().values, ["/2"]);
        let error = all.get("c").unwrap_err().to_string();
        assert!(error.contains("\"c\"") && error.contains("profiles are: a, b"), "{error}");
    }
}
