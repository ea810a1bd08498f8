//! `completions`: scripts that let a shell complete our command lines.
//!
//! Guarantees: they are made from the very definitions that parse the command line, so a command
//! cannot be missing. Does not: complete the names of snapshots; a shell would have to ask the
//! volume on every key.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::args::Cli;
use super::output::Output;
use crate::error::Result;

pub(super) const HELP: &str = "\
Examples:
  stratafs completions bash > /usr/share/bash-completion/completions/stratafs
  stratafs completions zsh > /usr/share/zsh/vendor-completions/_stratafs
  stratafs completions fish > /usr/share/fish/vendor_completions.d/stratafs.fish
  source <(stratafs completions bash)      (for this shell only)";

/// The shells whose users asked for it.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum For {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: For,
}

/// Prints the script.
pub(super) fn run(args: &CompletionsArgs, output: Output) -> Result<()> {
    let shell = match args.shell {
        For::Bash => Shell::Bash,
        For::Zsh => Shell::Zsh,
        For::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "stratafs", &mut script);
    output.data(&without_hidden(&String::from_utf8_lossy(&script)))
}

/// The script without what help hides as well: `clap_complete` offers hidden options.
fn without_hidden(script: &str) -> String {
    let mut script = script.to_owned();
    for option in Cli::command().get_arguments().filter(|option| option.is_hide_set()) {
        let Some(long) = option.get_long() else { continue };
        // The lines of zsh and fish that describe it, then the lists of fish and bash.
        let describes = [format!("--{long}["), format!("-l {long} ")];
        let lines = script.split_inclusive('\n');
        let kept = lines.filter(|line| !describes.iter().any(|text| line.contains(text)));
        let kept: String = kept.collect();
        script = kept.replace(&format!(" {long} "), " ").replace(&format!(" --{long}"), "");
    }
    script
}
