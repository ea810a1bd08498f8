//! `config`: what is configured, whether it is valid, and single values of a profile for scripts.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::args::Global;
use super::mountpoint::{absolute, volume_dir};
use super::output::Output;
use super::profile::{VOLUME_VARIABLE, all, check as check_profile, named, set};
use crate::classify::Classifier;
use crate::config::{CONFIG_FILE, Config, Profile, Profiles, Shown, is_profiles};
use crate::control::{Request, Response, call};
use crate::error::{Error, Result};

pub(super) const HELP: &str = "\
Examples:
  stratafs config show /backup/vol
  stratafs config show -P home
  stratafs config check /backup/vol
  stratafs config check /etc/stratafs/config.toml
  stratafs config get source -P home";

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Show every value that counts, and where it comes from
    Show {
        /// The volume directory, or the mountpoint; without it the defaults
        volume: Option<PathBuf>,
    },
    /// Say whether a configuration is valid, before a mount does
    #[command(after_help = "Exits with 8 and names file, line and key of what is wrong. Without \
                            VOLUME|FILE the profiles are checked.")]
    Check {
        /// The volume directory, the mountpoint, or a file with a configuration or profiles
        #[arg(value_name = "VOLUME|FILE")]
        target: Option<PathBuf>,
    },
    /// Print a value of the profile, one line each if it is a list
    Get(GetArgs),
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// volume, mountpoint, source or exclude
    #[arg(value_parser = Profile::KEYS)]
    key: String,
}

/// Carries the command out.
///
/// # Errors
/// `Config` when there is no profile, it does not have the key, or a file is not valid.
pub(super) fn run(command: &ConfigCommand, global: &Global, output: Output) -> Result<u8> {
    match command {
        ConfigCommand::Show { volume } => show(volume.as_deref(), global, output),
        ConfigCommand::Check { target } => check(target.as_deref(), output),
        ConfigCommand::Get(args) => get(&args.key, global, output),
    }
    .map(|()| 0)
}

/// The configuration at `path` and its text; the defaults if there is no file.
fn load(path: &Path) -> Result<(Config, String)> {
    let config = Config::load(path)?;
    match fs::read_to_string(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("read", path, e)),
        text => Ok((config, text.unwrap_or_default())),
    }
}

fn show(volume: Option<&Path>, global: &Global, output: Output) -> Result<()> {
    let profile = global.profile.as_deref().map(named).transpose()?;
    let path = volume.map(volume_dir).transpose()?.map(|dir| dir.join(CONFIG_FILE));
    let (config, text) = match &path {
        Some(path) => load(path)?,
        None => (Config::default(), String::new()),
    };
    let file = config.path.as_ref().map(|path| path.display().to_string());
    let shown = config.shown(&text);
    let given = given(global, profile.as_ref());
    if output.json() {
        let values: Vec<Value> = shown.iter().map(|one| document(one, file.as_deref())).collect();
        let given: Vec<Value> = given
            .iter()
            .map(|(key, value, source)| json!({ "key": key, "value": value, "source": source }))
            .collect();
        return output.document(&json!({ "file": file, "values": values, "given": given }));
    }
    let mut text = String::new();
    for (key, value, source) in &given {
        let _ = writeln!(text, "{:<46} # {source}", format!("# {key} = {value}"));
    }
    let what = match (&path, &file) {
        (_, Some(file)) => format!("# {file}, and the defaults"),
        (Some(path), None) => format!("# The defaults: there is no {}", path.display()),
        (None, None) => "# The defaults".to_owned(),
    };
    let _ = writeln!(text, "{what}");
    output.data(&(text + &table(&shown)))
}

/// What the environment and the profile give, and which of them does.
fn given(global: &Global, profile: Option<&Profile>) -> Vec<(String, String, String)> {
    let mut given = Vec::new();
    if let Some(name) = &global.profile {
        let from_variable = set("STRATAFS_PROFILE").is_some_and(|set| set == name.as_str());
        let source = if from_variable { "STRATAFS_PROFILE" } else { "-P" };
        given.push(("profile".to_owned(), name.clone(), source.to_owned()));
    }
    let variable = set(VOLUME_VARIABLE);
    if let Some(volume) = &variable {
        let volume = volume.to_string_lossy().into_owned();
        given.push(("volume".to_owned(), volume, VOLUME_VARIABLE.to_owned()));
    }
    let Some(profile) = profile else { return given };
    let own = profile.own.iter().map(|setting| (setting.key.clone(), setting));
    let of_commands = profile.commands.iter().flat_map(|(command, settings)| {
        settings.iter().map(move |setting| (format!("{command} --{}", setting.key), setting))
    });
    for (key, setting) in own.chain(of_commands) {
        if key == "volume" && variable.is_some() {
            continue;
        }
        let value = match setting.values.as_slice() {
            [] => (!setting.off).to_string(),
            values => values.join(", "),
        };
        given.push((key, value, setting.place()));
    }
    given
}

fn document(shown: &Shown, file: Option<&str>) -> Value {
    let section = shown.section.trim_matches(['[', ']']);
    let mut document = json!({ "section": section, "key": shown.key, "value": shown.value });
    if shown.rule > 0 {
        document["rule"] = json!(shown.rule);
    }
    if shown.line > 0 {
        document["source"] = json!("file");
        document["file"] = json!(file);
        document["line"] = json!(shown.line);
    } else {
        document["source"] = json!("default");
    }
    document
}

fn table(shown: &[Shown]) -> String {
    let (mut text, mut last) = (String::new(), None);
    for one in shown {
        if last != Some((&one.section, one.rule)) {
            let _ = write!(text, "\n{}\n", one.section);
            last = Some((&one.section, one.rule));
        }
        let source = match one.line {
            0 => "default".to_owned(),
            line => format!("line {line}"),
        };
        let _ = writeln!(text, "{:<46} # {source}", format!("{} = {}", one.key, one.value));
    }
    text
}

fn check(target: Option<&Path>, output: Output) -> Result<()> {
    let checked = match target {
        None => check_profiles(all()?)?,
        Some(file) if file.is_file() => {
            let file = absolute(file);
            if is_profiles(&file) {
                check_profiles(Profiles::load(vec![file])?)?
            } else {
                Classifier::new(&Config::load(&file)?)?;
                vec![file]
            }
        }
        Some(volume) => {
            let dir = volume_dir(volume)?;
            let path = dir.join(CONFIG_FILE);
            let config = Config::load(&path)?;
            Classifier::new(&config)?;
            if let Response::Shards(shards) =
                call(&dir, &Request::ShardList, &mut |text| output.progress(text))?
            {
                let names: Vec<&str> = shards.iter().map(|shard| shard.name.as_str()).collect();
                config.check_shards(&names)?;
            }
            config.path.into_iter().collect()
        }
    };
    let checked: Vec<String> = checked.iter().map(|path| path.display().to_string()).collect();
    if output.json() {
        return output.document(&json!({ "valid": checked }));
    }
    if checked.is_empty() {
        return output.data("There is no configuration file; the defaults count\n");
    }
    output.data(&checked.iter().fold(String::new(), |text, path| text + path + " is valid\n"))
}

/// Checks every profile; the files there are.
fn check_profiles(profiles: Profiles) -> Result<Vec<PathBuf>> {
    profiles.by_name.values().try_for_each(check_profile)?;
    Ok(profiles.paths.into_iter().filter(|path| path.exists()).collect())
}

fn get(key: &str, global: &Global, output: Output) -> Result<()> {
    let Some(name) = &global.profile else {
        return Err(Error::Config { what: "No profile is named; give one with -P".to_owned() });
    };
    let profile = named(name)?;
    let variable = set(VOLUME_VARIABLE).filter(|_| key == "volume");
    let values = match (variable, profile.own(key)) {
        (Some(volume), _) => vec![volume.to_string_lossy().into_owned()],
        (None, Some(setting)) => setting.values.clone(),
        (None, None) => {
            return Err(Error::Config { what: format!("Profile {name:?} has no {key}") });
        }
    };
    if output.json() {
        return output.document(&json!({ key: values }));
    }
    output.data(&(values.join("\n") + "\n"))
}
