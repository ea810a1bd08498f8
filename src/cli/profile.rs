//! What a command line leaves out: options from the profile that it names, and the volume.
//!
//! Guarantees: what is given on the command line wins over the environment, and that over the
//! profile; a key that is no option of its command is refused with its file and line.
//! How: the words are put into the command line before it is parsed, behind the command, so that
//! they mean what they would mean there.

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::error::ErrorKind;
use clap::{Arg, Command, CommandFactory, Parser};

use super::args::Cli;
use crate::config::{Profile, Profiles, Setting};
use crate::error::{Error, Result};

/// Names the profile where -P is left out.
const PROFILE_VARIABLE: &str = "STRATAFS_PROFILE";
/// Names the volume where VOLUME is left out.
pub(super) const VOLUME_VARIABLE: &str = "STRATAFS_VOLUME";
/// What VOLUME is called among the arguments.
const VOLUME_IDS: [&str; 3] = ["volume", "target", "first"];

/// The command line with all that its profile and the environment add to it.
///
/// # Errors
/// `Config` when there is no such profile, or its file does not say something valid.
pub(super) fn expand(line: Vec<OsString>) -> Result<Vec<OsString>> {
    let mut root = Cli::command();
    root.build();
    let walk = Walk::along(&root, &line);
    if walk.is_done {
        return Ok(line);
    }
    let profile =
        match walk.profile.as_deref().map(OsStr::to_owned).or_else(|| set(PROFILE_VARIABLE)) {
            Some(name) => named(&name.to_string_lossy())?,
            None => Profile::default(),
        };
    check(&profile)?;
    let settings = profile.commands.get(walk.command.get_name());
    let added: Vec<OsString> = settings
        .into_iter()
        .flatten()
        .filter_map(|setting| Some((setting, option(walk.command, &setting.key)?)))
        .filter(|(_, arg)| !walk.options.contains(arg.get_id().as_str()) || is_list(arg))
        .flat_map(|(setting, arg)| words(setting, arg))
        .collect();
    let at = walk.at + added.len();
    let first = walk.first.map(|place| Path::new(&line[place]).is_dir());
    let takes_volume = walk.takes_volume();
    let is_mount = walk.command.get_name() == "mount";
    let mut line = line;
    line.splice(walk.at..walk.at, added);
    Ok(if takes_volume { with_volume(line, at, first, &profile, is_mount) } else { line })
}

/// The profile called `name`.
///
/// # Errors
/// `Config` when there is none, or a file does not say something valid.
pub(super) fn named(name: &str) -> Result<Profile> {
    all()?.get(name).cloned()
}

/// All profiles.
///
/// # Errors
/// `Config` when a file does not say something valid.
pub(super) fn all() -> Result<Profiles> {
    Profiles::load(Profiles::paths(&set))
}

/// A variable of the environment that is set to something.
pub(super) fn set(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Refuses what no command understands.
///
/// # Errors
/// `Config` that names file, line and key.
pub(super) fn check(profile: &Profile) -> Result<()> {
    let mut root = Cli::command();
    root.build();
    for (name, settings) in &profile.commands {
        let Some(command) = root.find_subcommand(name).filter(|c| !c.has_subcommands()) else {
            let place = settings.first().map(Setting::place).unwrap_or_default();
            return Err(Error::Config {
                what: format!("A profile has a section for {name:?}, which is no command; {place}"),
            });
        };
        settings.iter().try_for_each(|setting| check_one(command, setting))?;
    }
    Ok(())
}

fn check_one(command: &Command, setting: &Setting) -> Result<()> {
    let (name, place) = (command.get_name(), setting.place());
    let Some(arg) = option(command, &setting.key) else {
        let options = command.get_arguments().filter(|arg| is_option(arg));
        let options: Vec<&str> = options.filter_map(key_of).collect();
        return Err(Error::Config {
            what: format!(
                "Unknown key {:?} for command {name} in {place}; valid are {}",
                setting.key,
                options.join(", ")
            ),
        });
    };
    let takes_value = arg.get_action().takes_values();
    if takes_value == setting.values.is_empty() {
        let valid = if takes_value { "a value" } else { "true or false" };
        let what = format!("Key {:?} for command {name} takes {valid}; {place}", setting.key);
        return Err(Error::Config { what });
    }
    let line = ["stratafs", name].map(OsString::from).into_iter().chain(words(setting, arg));
    match Cli::try_parse_from(line) {
        Err(e) if matches!(e.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) => {
            let text = e.to_string();
            let sentence = text.lines().next().unwrap_or_default();
            let sentence = sentence.strip_prefix("error: ").unwrap_or(sentence);
            Err(Error::Config { what: format!("In {place}: {sentence}") })
        }
        _ => Ok(()),
    }
}

/// The option that a key of a profile means.
fn option<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| is_option(arg) && key_of(arg) == Some(key))
}

fn is_option(arg: &Arg) -> bool {
    !arg.is_positional()
        && !arg.is_hide_set()
        && !["help", "profile"].contains(&arg.get_id().as_str())
}

/// Its long name; -o has none.
fn key_of(arg: &Arg) -> Option<&str> {
    arg.get_long().or_else(|| arg.get_short().map(|_| arg.get_id().as_str()))
}

/// Given several times, it adds up, and the last one wins.
fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), clap::ArgAction::Append)
}

/// The words that give a command this setting.
fn words(setting: &Setting, arg: &Arg) -> Vec<OsString> {
    let short = || arg.get_short().map(|c| format!("-{c}"));
    let name = arg.get_long().map(|long| format!("--{long}")).or_else(short);
    let Some(name) = name.filter(|_| !setting.off).map(OsString::from) else { return Vec::new() };
    if setting.values.is_empty() {
        return vec![name];
    }
    let values = setting.values.iter();
    values.flat_map(|value| [name.clone(), OsString::from(value)]).collect()
}

/// Puts the volume in at `at`, where it was left out; for `mount` the mountpoint, too. `first` says
/// whether the first argument is a directory: then it is the volume, if that makes sense.
fn with_volume(
    line: Vec<OsString>,
    at: usize,
    first: Option<bool>,
    profile: &Profile,
    is_mount: bool,
) -> Vec<OsString> {
    let own = |key| profile.own(key).and_then(|s| s.values.first()).map(OsString::from);
    let Some(volume) = set(VOLUME_VARIABLE).or_else(|| own("volume")) else { return line };
    let parses = |line: &Vec<OsString>| {
        Cli::try_parse_from([OsString::from("stratafs")].iter().chain(line)).is_ok()
    };
    if first == Some(true) && parses(&line) {
        return line;
    }
    let mut filled = line.clone();
    filled.insert(at, volume);
    if parses(&filled) {
        return filled;
    }
    if let (true, None, Some(mountpoint)) = (is_mount, first, own("mountpoint")) {
        filled.insert(at + 1, mountpoint);
        if parses(&filled) {
            return filled;
        }
    }
    line
}

/// What can be seen of a command line before it is parsed.
struct Walk<'a> {
    /// The command that is meant.
    command: &'a Command,
    /// The place behind its last word.
    at: usize,
    /// Options that are given, by id.
    options: BTreeSet<String>,
    /// The place of the first argument that is no option.
    first: Option<usize>,
    profile: Option<OsString>,
    /// Nothing is to be added: help is asked for, or it was added already.
    is_done: bool,
}

impl<'a> Walk<'a> {
    fn along(root: &'a Command, line: &[OsString]) -> Self {
        let mut walk = Self {
            command: root,
            at: 0,
            options: BTreeSet::new(),
            first: None,
            profile: None,
            is_done: false,
        };
        let mut place = 0;
        while place < line.len() && walk.first.is_none_or(|_| line[place] != "--") {
            let word = line[place].to_string_lossy();
            let next = line.get(place + 1).map(OsString::as_os_str);
            if word == "--" {
                walk.first = (place + 1 < line.len()).then_some(place + 1);
                break;
            } else if let Some(long) = word.strip_prefix("--") {
                place += walk.long(long, next);
            } else if word.len() > 1 && word.starts_with('-') {
                place += walk.short(&word[1..], next);
            } else if let Some(sub) = walk.sub(&word) {
                (walk.command, walk.at) = (sub, place + 1);
                walk.is_done |= word == "help";
            } else if walk.first.is_none() {
                walk.first = Some(place);
            }
            place += 1;
        }
        walk
    }

    fn sub(&self, word: &str) -> Option<&'a Command> {
        if self.first.is_some() { None } else { self.command.find_subcommand(word) }
    }

    fn takes_volume(&self) -> bool {
        let mut positionals = self.command.get_positionals();
        let first = positionals.next().map(|arg| arg.get_id().as_str());
        // The words of `restore` begin with a volume, or leave it out.
        first.is_some_and(|id| VOLUME_IDS.contains(&id))
            || self.command.get_name() == "restore" && first == Some("words")
    }

    /// How many more words `--name` or `--name=value` takes.
    fn long(&mut self, word: &str, next: Option<&OsStr>) -> usize {
        let (name, value) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
        let arg = self.command.get_arguments().find(|arg| arg.get_long() == Some(name));
        let value = value.map(OsStr::new);
        arg.map_or(0, |arg| self.note(arg, value, next))
    }

    /// The same of `-abc`, where the first one that takes a value takes the rest, or the next word.
    fn short(&mut self, letters: &str, next: Option<&OsStr>) -> usize {
        for (at, letter) in letters.char_indices() {
            let arg = self.command.get_arguments().find(|arg| arg.get_short() == Some(letter));
            let Some(arg) = arg else { return 0 };
            let rest = letters[at + letter.len_utf8()..].trim_start_matches('=');
            let rest = (!rest.is_empty()).then(|| OsStr::new(rest));
            let taken = self.note(arg, rest, next);
            if arg.get_action().takes_values() {
                return taken;
            }
        }
        0
    }

    fn note(&mut self, arg: &Arg, value: Option<&OsStr>, next: Option<&OsStr>) -> usize {
        let id = arg.get_id().as_str();
        self.options.insert(id.to_owned());
        self.is_done |= ["help", "version", "in_background"].contains(&id);
        if id == "profile" {
            self.profile = value.or(next).map(OsStr::to_owned);
        }
        usize::from(arg.get_action().takes_values() && value.is_none())
    }
}
