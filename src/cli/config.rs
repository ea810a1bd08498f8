//! `config`: what is configured, whether it is valid, and single values of a profile for scripts.

use clap::{Args, Subcommand};
use serde_json::json;

use super::args::Global;
use super::output::Output;
use super::profile::{VOLUME_VARIABLE, named, set};
use crate::config::Profile;
use crate::error::{Error, Result};

pub(super) const HELP: &str = "\
Examples:
  stratafs config get source -P home";

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
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
/// `Config` when there is no profile, or it does not have the key.
pub(super) fn run(command: &ConfigCommand, global: &Global, output: Output) -> Result<u8> {
    match command {
        ConfigCommand::Get(args) => get(&args.key, global, output).map(|()| 0),
    }
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
        return output.document(&json!(values));
    }
    output.data(&(values.join("\n") + "\n"))
}
