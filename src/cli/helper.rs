//! The program as mount(8) and umount(8) call it: `mount.stratafs VOLUME DIR -o …`.
//!
//! Guarantees: every word that mount(8) documents for its helpers is understood or refused by
//! name; exit codes are those of mount(8), which it passes on. Does not: know any mount option.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Error, Result};

/// Exit codes of mount(8): wrong words, and everything else.
const CODE_USAGE: u8 = 1;
const CODE_FAILED: u8 = 32;

/// As what the program was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// As itself.
    Program,
    /// As a helper of mount(8) or umount(8).
    Helper,
}

impl Role {
    /// What the caller expects for our exit code `code`.
    pub(super) fn code(self, code: u8) -> u8 {
        match (self, code) {
            (Self::Program, code) => code,
            (Self::Helper, 0) => 0,
            (Self::Helper, super::EXIT_USAGE) => CODE_USAGE,
            (Self::Helper, _) => CODE_FAILED,
        }
    }
}

/// Our role and our own words for it. The name `mount.stratafs`, or one like it, is the name the
/// program was called by, or its first word: a script cannot choose the former.
///
/// # Errors
/// `Invalid` when mount(8) would not have called a helper like that.
pub(super) fn words(mut line: impl Iterator<Item = OsString>) -> (Role, Result<Vec<OsString>>) {
    let program = line.next().unwrap_or_default();
    let mut line = line.peekable();
    if let Some(verb) = verb(&program) {
        return (Role::Helper, translate(verb, line));
    }
    match line.peek().and_then(|first| verb(first)) {
        Some(verb) => {
            line.next();
            (Role::Helper, translate(verb, line))
        }
        None => (Role::Program, Ok(line.collect())),
    }
}

/// The command that a helper of this name stands for.
fn verb(name: &OsStr) -> Option<&'static str> {
    let name = Path::new(name).file_name()?.as_bytes();
    let known = [("mount", &b"mount."[..]), ("umount", b"umount.")];
    let (verb, rest) =
        known.into_iter().find_map(|(verb, prefix)| Some((verb, name.strip_prefix(prefix)?)))?;
    matches!(rest, b"stratafs" | b"fuse.stratafs").then_some(verb)
}

/// `VOLUME DIR [-sfnvrw] [-o OPTIONS] [-t TYPE]`, or `DIR [-nlfrv] [-t TYPE]`, in our words.
fn translate(verb: &str, line: impl Iterator<Item = OsString>) -> Result<Vec<OsString>> {
    let mut ours = vec![OsString::from(verb)];
    let (mut places, mut only_places) = (Vec::new(), false);
    let mut line = line.into_iter();
    while let Some(word) = line.next() {
        let bytes = word.as_bytes();
        if only_places || bytes.len() < 2 || bytes[0] != b'-' {
            places.push(word);
        } else if bytes == b"--" {
            only_places = true;
        } else if bytes == b"--help" || bytes == b"--version" {
            ours.push(word);
        } else {
            flags(verb, &word, &mut line, &mut ours)?;
        }
    }
    // Only then does a name that begins with a dash stay one.
    ours.push(OsString::from("--"));
    ours.append(&mut places);
    Ok(ours)
}

/// Translates one word of flags, as in `-sn` or `-oro`.
fn flags(
    verb: &str,
    word: &OsStr,
    line: &mut impl Iterator<Item = OsString>,
    ours: &mut Vec<OsString>,
) -> Result<()> {
    let bytes = word.as_bytes();
    for (at, flag) in bytes.iter().enumerate().skip(1) {
        match (verb, flag) {
            // What begins with a dash may be meant as a value, too.
            (_, b'o' | b't') => {
                let rest = OsStr::from_bytes(&bytes[at + 1..]).to_owned();
                let value = if rest.is_empty() { line.next() } else { Some(rest) };
                let value = value.ok_or_else(|| bad(verb, *flag, "needs a value"))?;
                if verb == "mount" && *flag == b'o' {
                    ours.extend([OsString::from("-o"), value]);
                }
                return Ok(());
            }
            (_, b'n') | ("umount", b'f' | b'r') => {}
            (_, b'v') => ours.push("-v".into()),
            ("mount", b'r') => ours.extend(["-o", "ro"].map(OsString::from)),
            ("mount", b'w') => ours.extend(["-o", "rw"].map(OsString::from)),
            ("mount", b's') => ours.push("--sloppy".into()),
            ("mount", b'f') => ours.push("--fake".into()),
            ("umount", b'l') => ours.push("--lazy".into()),
            (_, b'N') => {
                return Err(bad(verb, b'N', "is not supported; use nsenter(1)"));
            }
            (_, flag) => return Err(bad(verb, *flag, "is not known to this helper")),
        }
    }
    Ok(())
}

fn bad(verb: &str, flag: u8, what: &str) -> Error {
    Error::invalid(format!("Option -{} of {verb}(8) {what}", char::from(flag).escape_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(line: &[&str]) -> (Role, Result<Vec<OsString>>) {
        words(line.iter().map(OsString::from))
    }

    fn helped(line: &[&str]) -> String {
        let (role, words) = words_of(line);
        assert_eq!(role, Role::Helper, "{line:?}");
        words.unwrap().join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn mount_helpers_are_the_mount_command() {
        let line = ["/sbin/mount.stratafs", "/v", "/m", "-s", "-n", "-o", "rw"];
        assert_eq!(helped(&line), "mount --sloppy -o rw -- /v /m");
        let line = ["stratafs", "mount.fuse.stratafs", "/v", "/m", "-frvo", "a,b", "-t", "x.y"];
        assert_eq!(helped(&line), "mount --fake -o ro -v -o a,b -- /v /m");
        assert_eq!(helped(&["mount.stratafs", "-oro", "--", "-v", "/m"]), "mount -o ro -- -v /m");
        assert_eq!(helped(&["mount.stratafs", "--help"]), "mount --help --");
    }

    #[test]
    fn umount_helpers_are_the_umount_command() {
        let line = ["/sbin/umount.fuse.stratafs", "/m", "-n", "-l", "-t", "fuse.stratafs"];
        assert_eq!(helped(&line), "umount --lazy -- /m");
        assert_eq!(helped(&["umount.stratafs", "-fr", "/m"]), "umount -- /m");
    }

    #[test]
    fn everything_else_is_the_program() {
        for line in [&["stratafs", "status", "-n"][..], &["/x/mount.other", "a"], &["stratafs"]] {
            let (role, words) = words_of(line);
            assert_eq!(role, Role::Program);
            assert_eq!(words.unwrap(), &line[1..]);
        }
        assert!(words_of(&[]).1.unwrap().is_empty());
    }

    #[test]
    fn wrong_words_are_named() {
        for (line, word) in [
            (&["mount.stratafs", "/v", "/m", "-o"][..], "-o"),
            (&["mount.stratafs", "/v", "/m", "-q"], "-q"),
            (&["umount.stratafs", "/m", "-N", "1"], "nsenter"),
        ] {
            let error = words_of(line).1.unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn codes_are_those_of_mount() {
        assert_eq!([0, 2, 1, 6, 11].map(|code| Role::Helper.code(code)), [0, 1, 32, 32, 32]);
        assert_eq!([0, 2, 6].map(|code| Role::Program.code(code)), [0, 2, 6]);
    }
}
