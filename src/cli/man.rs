//! `man`: the manual pages, made from the definitions that parse the command line.
//!
//! Guarantees: one page per command, whatever commands there are; the page of the mount helper has
//! the mount options that `mount --help` has, and the page of the configuration is the example file
//! itself. Relies on: help texts of the form "Title:" and indented lines, with empty lines between
//! paragraphs.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

use super::args::Cli;
use super::output::Output;
use crate::error::{Error, Result};

pub(super) const HELP: &str = "\
Examples:
  stratafs man | man -l -
  stratafs man snapshot create | man -l -
  stratafs man --dir /usr/local/share/man";

/// The configuration file with all its keys.
const CONFIG_EXAMPLE: &str = include_str!("../../docs/config.example.toml");

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The command whose page to print; without it the page of stratafs itself
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    words: Vec<String>,
    /// Write all pages below this directory, into man1, man5 and man8
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints one page, or writes all.
pub(super) fn run(args: &ManArgs, output: Output) -> Result<()> {
    let root = root();
    if let Some(dir) = &args.dir {
        for (path, text) in pages(&root) {
            write(&dir.join(path), &text)?;
        }
        return Ok(());
    }
    let mut command = &root;
    for word in &args.words {
        command = command.find_subcommand(word).ok_or_else(|| {
            let words = args.words.join(" ");
            Error::invalid(format!("There is no command {words:?}; see stratafs help"))
        })?;
    }
    output.data(&page(command))
}

/// All commands, with the names and usages that clap gives them.
fn root() -> Command {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    root
}

/// Every page: its path below the directory of manuals, and its text.
fn pages(root: &Command) -> Vec<(String, String)> {
    let mut pages = Vec::new();
    add_pages(root, &mut pages);
    pages.push(("man8/mount.stratafs.8".to_owned(), mount_helper(root)));
    pages.push(("man8/mount.fuse.stratafs.8".to_owned(), ".so man8/mount.stratafs.8\n".to_owned()));
    pages.push(("man5/stratafs-config.5".to_owned(), configuration()));
    pages
}

fn add_pages(command: &Command, pages: &mut Vec<(String, String)>) {
    pages.push((format!("man1/{}.1", name_of(command)), page(command)));
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        add_pages(sub, pages);
    }
}

fn name_of(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    fs::write(path, text).map_err(|e| Error::io("write", path, e))
}

/// The page of one command.
fn page(command: &Command) -> String {
    let man = Man::new(command.clone());
    let mut text = Vec::new();
    // Into memory: it cannot fail.
    let _ = man.render_name_section(&mut text);
    let _ = man.render_synopsis_section(&mut text);
    let _ = man.render_description_section(&mut text);
    let mut roff = Roff::new();
    let (examples, rest) = after(command);
    for paragraph in rest {
        add_paragraph(&mut roff, &paragraph);
    }
    let _ = roff.to_writer(&mut text);
    if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
        let _ = man.render_subcommands_section(&mut text);
    }
    let _ = man.render_options_section(&mut text);
    let mut roff = Roff::new();
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
        add_lines(&mut roff, &examples);
    }
    see_also(&mut roff, command);
    let _ = roff.to_writer(&mut text);
    complete(name_of(command), "1", &String::from_utf8_lossy(&text))
}

/// A page from its sections: with its head, which `roff` cannot write because the date is empty,
/// and one preamble, which `roff` puts before every piece. A choice of options may be broken.
fn complete(name: &str, section: &str, text: &str) -> String {
    let preamble = Roff::new().render();
    let name = name.to_uppercase();
    let source = concat!("stratafs ", env!("CARGO_PKG_VERSION"));
    let head = format!(".TH {name} {section} \"\" \"{source}\" \"StrataFS\"\n");
    let text = text.replace(&preamble, "").replace("|\\fB", "\\:|\\fB");
    // Such a choice cannot be stretched to the margin either.
    let text = text.replace(".SH SYNOPSIS\n", ".SH SYNOPSIS\n.ad l\n");
    let text = text.replace(".SH DESCRIPTION\n", ".ad b\n.SH DESCRIPTION\n");
    format!("{preamble}{head}{text}")
}

/// The help after the options: the lines of its examples, and the other paragraphs.
fn after(command: &Command) -> (Vec<String>, Vec<Vec<String>>) {
    let text = command.get_after_long_help().or_else(|| command.get_after_help());
    let text = text.map(ToString::to_string).unwrap_or_default();
    let (mut examples, mut rest) = (Vec::new(), Vec::new());
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for paragraph in lines.split(String::is_empty) {
        let is_title = |line: &String| line == "Example:" || line == "Examples:";
        let at = paragraph.iter().position(is_title).unwrap_or(paragraph.len());
        rest.push(paragraph[..at].to_vec());
        let from_there = paragraph.iter().skip(at + 1);
        examples.extend(from_there.clone().take_while(|l| l.starts_with(' ')).cloned());
        rest.push(from_there.skip_while(|l| l.starts_with(' ')).cloned().collect());
    }
    rest.retain(|paragraph| !paragraph.is_empty());
    (examples, rest)
}

/// A paragraph: "Title:" with indented lines is a section, other indented lines are a table.
fn add_paragraph(roff: &mut Roff, lines: &[String]) {
    let is_table = lines.get(1).is_some_and(|line| line.starts_with(' '));
    match lines[0].strip_suffix(':') {
        Some(title) if is_table && !title.contains(['(', ',']) => {
            roff.control("SH", [section_name(title).as_str()]);
        }
        _ => {
            roff.control("PP", []);
            roff.text([roman(&lines[0])]);
        }
    }
    let rest = &lines[1..];
    let table = rest.iter().take_while(|line| line.starts_with(' ')).count();
    add_lines(roff, &rest[..table]);
    for line in &rest[table..] {
        roff.text([roman(line.trim_start())]);
    }
}

fn section_name(title: &str) -> String {
    if title == "Exit codes" { "EXIT STATUS".to_owned() } else { title.to_uppercase() }
}

/// Lines that stay as they are.
fn add_lines(roff: &mut Roff, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    roff.control("nf", []);
    for line in lines {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}

fn see_also(roff: &mut Roff, command: &Command) {
    roff.control("SH", ["SEE ALSO"]);
    let mut pages = vec![bold("stratafs"), roman("(1)")];
    if command.get_subcommands().next().is_some() && name_of(command) == "stratafs" {
        pages = vec![bold("mount.stratafs"), roman("(8), "), bold("stratafs-config"), roman("(5)")];
    } else if name_of(command) == "stratafs-mount" {
        pages.extend([roman(", "), bold("mount.stratafs"), roman("(8)")]);
    }
    roff.text(pages);
}

fn name_section(roff: &mut Roff, name: &str, about: &str) {
    roff.control("SH", ["NAME"]);
    roff.text([roman(format!("{name} - {about}"))]);
}

/// mount.stratafs(8): for those who come from fstab.
fn mount_helper(root: &Command) -> String {
    let mut roff = Roff::new();
    let about = "mount a StrataFS volume from fstab or with mount(8)";
    name_section(&mut roff, "mount.stratafs", about);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([
        bold("mount.stratafs"),
        roman(" "),
        italic("VOLUME"),
        roman(" "),
        italic("MOUNTPOINT"),
        roman(" [-o "),
        italic("OPTIONS"),
        roman("]"),
    ]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "The helper that mount(8) calls for file systems of the type stratafs, and under the name \
         mount.fuse.stratafs of the type fuse.stratafs. It is the command stratafs-mount(1) and \
         returns when the mount is ready.",
    )]);
    let (_, paragraphs) = root.find_subcommand("mount").map(after).unwrap_or_default();
    for paragraph in paragraphs {
        add_paragraph(&mut roff, &paragraph);
    }
    roff.control("SH", ["EXAMPLES"]);
    let fstab = [
        "# /etc/fstab",
        "/backup/vol  /mnt/backup  stratafs  defaults,nofail,snapdir=visible  0  0",
        "/backup/vol  /mnt/old     fuse.stratafs  ro,noauto,user  0  0",
    ];
    add_lines(&mut roff, &fstab.map(str::to_owned));
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("stratafs-mount"), roman("(1), "), bold("stratafs-umount"), roman("(1), ")]);
    roff.text([bold("fstab"), roman("(5), "), bold("mount"), roman("(8)")]);
    complete("mount.stratafs", "8", &roff.render())
}

/// stratafs-config(5): the example file is the manual.
fn configuration() -> String {
    let mut roff = Roff::new();
    name_section(&mut roff, "stratafs-config", "configuration of a StrataFS volume");
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "config.toml in the volume directory. This is the whole of it, with the defaults:",
    )]);
    let lines: Vec<String> = CONFIG_EXAMPLE.lines().map(str::to_owned).collect();
    add_lines(&mut roff, &lines);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("stratafs"), roman("(1)")]);
    complete("stratafs-config", "5", &roff.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        fn check(command: &Command, paths: &[String]) {
            let path = format!("man1/{}.1", name_of(command));
            assert!(paths.contains(&path), "{path}");
            command.get_subcommands().for_each(|sub| check(sub, paths));
        }
        let root = root();
        let paths: Vec<String> = pages(&root).into_iter().map(|(path, _)| path).collect();
        check(&root, &paths);
        assert!(paths.contains(&"man1/stratafs-snapshot-create.1".to_owned()));
    }

    #[test]
    fn help_becomes_sections() {
        let root = root();
        let text = page(&root);
        assert!(text.contains(".SH \"EXIT STATUS\"\n") && text.contains(".SH \"FIRST STEPS\""));
        assert_eq!(text.matches(".ie ").count(), 1, "one preamble: {text}");
        let mount = page(root.find_subcommand("mount").unwrap());
        assert!(mount.contains(".SH EXAMPLES\n") && mount.contains("snapdir=visible|hidden"));
        assert!(!mount.contains("in\\-background"), "hidden options stay hidden");
        let helper = mount_helper(&root);
        assert!(helper.contains("snapdir=visible|hidden") && helper.contains("/etc/fstab"));
    }
}
