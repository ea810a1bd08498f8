//! The names rsync gives to files while it writes them.
//!
//! Without `--temp-dir` rsync writes `name` as `.name.XXXXXX` (a leading dot is not doubled), with
//! it as `name.XXXXXX` (both seen with rsync 3.5); the six are letters and digits as `mkstemp`
//! draws them. Names too long for that lose their end first, so an extension may be cut; the first
//! bytes then decide.

use crate::classify::names::{by_name, by_tables, is_known_dotfile, is_known_extension};

/// Letters and digits that `mkstemp` puts for the X.
const SUFFIX_LEN: usize = 6;

/// A name and what it will be when rsync is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Names<'a> {
    /// As it is.
    pub full: &'a [u8],
    /// As it will be, likely; `full` if it is no temporary name.
    pub real: &'a [u8],
    /// As it may also be: `real` with a dot in front.
    pub dotted: Option<&'a [u8]>,
    /// True if `full` may as well be meant as it is.
    pub doubtful: bool,
}

impl<'a> Names<'a> {
    /// The names behind `name`.
    pub fn of(name: &'a [u8]) -> Self {
        let Some(real) = strip_temp_suffix(name) else {
            return Self { full: name, real: name, dotted: None, doubtful: false };
        };
        let (rest, suffix) = split(name).expect("a name that can be stripped can be split");
        let hidden = rest.starts_with(b".");
        Self {
            full: name,
            real,
            dotted: (hidden && real.len() < rest.len()).then_some(rest),
            doubtful: !hidden || is_word(suffix),
        }
    }
}

/// `name` cut before `.XXXXXX`.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = name.len().checked_sub(SUFFIX_LEN + 1)?;
    let (rest, suffix) = (&name[..at], &name[at + 1..]);
    let valid = name[at] == b'.'
        && suffix.iter().all(u8::is_ascii_alphanumeric)
        && rest.iter().any(|byte| *byte != b'.');
    valid.then_some((rest, suffix))
}

/// True if `suffix` looks chosen by a person: letters in one case or capitalized, then digits.
/// One of 50 that `mkstemp` draws does, too.
fn is_word(suffix: &[u8]) -> bool {
    let digits = suffix.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let letters = &suffix[..suffix.len() - digits];
    match letters {
        [] => true,
        [first, rest @ ..] => {
            letters.iter().all(u8::is_ascii_uppercase)
                || (first.is_ascii_alphabetic() && rest.iter().all(u8::is_ascii_lowercase))
        }
    }
}

/// The name that the file `name` will have when rsync has written it, if `name` is one of rsync's
/// temporary names.
///
/// `.name.XXXXXX` gives `name`, or `.name` for well-known dotfiles. `name.XXXXXX` gives `name` if
/// the suffix is as random as `mkstemp`'s, or if it looks like a word but only `name` without it
/// means something. Never if the suffix is a known extension.
#[must_use]
pub fn strip_temp_suffix(name: &[u8]) -> Option<&[u8]> {
    let (rest, suffix) = split(name)?;
    if is_known_extension(suffix) {
        return None;
    }
    match rest.strip_prefix(b".") {
        Some(bare) if is_known_dotfile(bare) => Some(rest),
        Some(bare) => Some(bare),
        None if !is_word(suffix) => Some(rest),
        None => (by_tables(name).is_none() && by_name(last_name(rest)).is_some()).then_some(rest),
    }
}

/// `name` less all temporary suffixes: a file that was left behind may be copied again.
pub(super) fn last_name(name: &[u8]) -> &[u8] {
    let mut name = name;
    while let Some(real) = strip_temp_suffix(name) {
        name = real;
    }
    name
}

/// True if `name` is one of rsync's temporary names; see [`strip_temp_suffix`].
#[must_use]
pub fn is_rsync_temp(name: &[u8]) -> bool {
    strip_temp_suffix(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::{is_rsync_temp, is_word, strip_temp_suffix};

    #[test]
    fn temp_names_are_seen_through() {
        let temps: [(&[u8], &[u8]); 12] = [
            (b".photo.jpg.aB3dE9", b"photo.jpg"),
            (b".photo.jpg.abcdef", b"photo.jpg"),
            (b"photo.jpg.aB3dE9", b"photo.jpg"),
            (b"photo.jpg.abcdef", b"photo.jpg"),
            (b".bashrc.aB3dE9", b".bashrc"),
            (b".gitignore.Zz9Yy8", b".gitignore"),
            (b".Makefile.aB3dE9", b"Makefile"),
            (b"Makefile.xyzxyz", b"Makefile"),
            (b".a.aB3dE9", b"a"),
            (b"..x.aB3dE9", b".x"),
            (b".\xff\xfe.jpg.aB3dE9", b"\xff\xfe.jpg"),
            (b".tar.aB3dE9", b"tar"),
        ];
        for (temp, real) in temps {
            let text = String::from_utf8_lossy(temp);
            assert_eq!(strip_temp_suffix(temp), Some(real), "{text}");
            assert!(is_rsync_temp(temp), "{text}");
        }
    }

    #[test]
    fn names_that_only_look_temporary_stay() {
        let names: [&[u8]; 24] = [
            b"report.config",
            b"App.Config",
            b"build.gradle",
            b".data.sqlite",
            b"data.sqlite",
            b"file.sha256",
            b"photo.jpg.sha512",
            b"nginx.conf.sample",
            b".env.sample",
            b"notes.Monday",
            b"chapter.Part01",
            b"result.abc123",
            b"data.202401",
            b"app.log.202401",
            b"plain",
            b"photo.jpg",
            b".bashrc",
            b"",
            b".",
            b"..",
            b".aB3dE9",
            b"..aB3dE9",
            b"x.aB3dE",
            b"x.aB3dE-",
        ];
        for name in names {
            assert_eq!(strip_temp_suffix(name), None, "{}", String::from_utf8_lossy(name));
        }
    }

    #[test]
    fn words_are_told_from_random_letters() {
        for word in ["config", "CONFIG", "Config", "abc123", "ABC123", "Abc123", "123456", "A12345"]
        {
            assert!(is_word(word.as_bytes()), "{word}");
        }
        for random in ["aB3dE9", "aBcdef", "1abcde", "ab1cde", "ABcdef", "abcdeF"] {
            assert!(!is_word(random.as_bytes()), "{random}");
        }
    }
}
