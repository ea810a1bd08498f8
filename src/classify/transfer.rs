//! Patterns as rsync's `--exclude` and `--include` have them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use globset::{GlobBuilder, GlobMatcher};

use crate::error::{Error, Result};

/// What stands for "anything, slashes too" inside a name.
const ANYTHING: &str = "{*,*/**/*}";

/// One pattern. With a slash at its beginning it is anchored at the root of the transfer; with one
/// at its end it is for directories only; with one elsewhere, or with `**`, it is compared with the
/// end of the path, else with the name. `*` and `?` do not cross a slash, `**` does, `DIR/***` is
/// the directory and all below it.
#[derive(Clone, Debug)]
pub struct TransferGlob {
    glob: GlobMatcher,
    /// For `DIR/***`: what lies below.
    below: Option<GlobMatcher>,
    by_path: bool,
    directories: bool,
}

impl TransferGlob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// `Invalid` that says what is wrong with it.
    pub fn new(pattern: &str) -> Result<Self> {
        let (stem, with_below) = match pattern.strip_suffix("/***") {
            Some(stem) => (stem, true),
            None => (pattern, false),
        };
        let (stem, directories) = match stem.strip_suffix('/') {
            Some(stem) if !with_below => (stem, true),
            _ => (stem, with_below),
        };
        let (text, anchored) = match stem.strip_prefix('/') {
            Some(text) => (text, true),
            None => (stem, false),
        };
        if text.is_empty() {
            return Err(Error::invalid(format!("Bad pattern {pattern:?}: it names nothing")));
        }
        let by_path = anchored || with_below || text.contains('/') || text.contains("**");
        let mut translated = translated(text).map_err(|why| bad(pattern, why))?;
        if by_path && !anchored && !translated.starts_with("**") {
            translated.insert_str(0, "**/");
        }
        let build = |text: &str| {
            let mut builder = GlobBuilder::new(text);
            builder.literal_separator(true).backslash_escape(true).empty_alternates(true);
            let glob = builder.build().map_err(|e| bad(pattern, &e.kind().to_string()))?;
            Ok::<_, Error>(glob.compile_matcher())
        };
        let below = with_below.then(|| build(&format!("{translated}/**"))).transpose()?;
        Ok(Self { glob: build(&translated)?, below, by_path, directories })
    }

    /// True if it is one for this path from the root of the transfer on, without a slash at its
    /// beginning.
    #[must_use]
    pub fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        let subject = if self.by_path {
            path
        } else {
            path.rsplit(|b| *b == b'/').next().unwrap_or_default()
        };
        let is = |glob: &GlobMatcher| glob.is_match(OsStr::from_bytes(subject));
        ((is_directory || !self.directories) && is(&self.glob))
            || self.below.as_ref().is_some_and(is)
    }
}

fn bad(pattern: &str, why: &str) -> Error {
    Error::invalid(format!("Bad pattern {pattern:?}: {why}"))
}

/// The same for `globset`: it has alternatives in braces, which rsync has not, and takes `**` only
/// as a whole name.
fn translated(text: &str) -> Result<String, &'static str> {
    let wild = text.contains(['*', '?', '[']);
    let mut out = String::with_capacity(text.len() + 8);
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '{' | '}' | ',' => out.extend(['\\', c]),
            // Without wildcards a backslash is one.
            '\\' if !wild => out.push_str("\\\\"),
            '\\' => match chars.next() {
                Some((_, escaped)) => out.extend(['\\', escaped]),
                None => return Err("a backslash ends it"),
            },
            '[' => {
                out.push('[');
                let inner = &text[at + 1..];
                if inner.starts_with("[:") || inner.contains("[[:") {
                    return Err("classes as [:alpha:] are not known");
                }
                let begin = inner.find(|c| !matches!(c, '!' | '^')).unwrap_or(0);
                let close = inner.char_indices().skip_while(|(i, _)| *i <= begin);
                let close = close.into_iter().find(|(_, c)| *c == ']');
                let Some((close, _)) = close else { return Err("a [ is not closed") };
                for _ in 0..=inner[..close].chars().count() {
                    out.extend(chars.next().map(|(_, c)| c));
                }
            }
            '*' => {
                let mut stars = 1;
                while chars.next_if(|(_, c)| *c == '*').is_some() {
                    stars += 1;
                }
                let begins = at == 0 || text[..at].ends_with('/');
                let ends = chars.peek().is_none_or(|(_, c)| *c == '/');
                out.push_str(match (stars, begins && ends) {
                    (1, _) => "*",
                    (_, true) => "**",
                    (_, false) => ANYTHING,
                });
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pattern, path (with a slash at its end: a directory), and what rsync 3.5 says.
    const TABLE: &[(&str, &str, bool)] = &[
        ("*.o", "a.o", true),
        ("*.o", "deep/down/a.o", true),
        ("*.o", "a.o.c", false),
        ("foo", "foo", true),
        ("foo", "a/foo/", true),
        ("foo", "a/foobar", false),
        ("/foo", "foo", true),
        ("/foo", "a/foo", false),
        ("foo/", "foo/", true),
        ("foo/", "a/foo/", true),
        ("foo/", "foo", false),
        ("a/foo", "a/foo", true),
        ("a/foo", "x/a/foo", true),
        ("a/foo", "xa/foo", false),
        ("/a/foo", "x/a/foo", false),
        ("/a/*/c", "a/b/c", true),
        ("/a/*/c", "a/b/x/c", false),
        ("/a/**/c", "a/b/x/c", true),
        ("/a/**", "a/b", true),
        ("/a/**", "a/", false),
        ("a**z", "ab/cz", true),
        ("a**z", "abz", true),
        ("a**z", "ab/cy", false),
        ("**/cache", "cache/", true),
        ("**/cache", "x/y/cache/", true),
        ("dir/***", "dir/", true),
        ("dir/***", "dir/a/b", true),
        ("dir/***", "dir", false),
        ("dir/***", "dirx/a", false),
        ("?ab", "xab", true),
        ("?ab", "x/ab", false),
        ("[a-c]x", "bx", true),
        ("[!a-c]x", "bx", false),
        ("[^a-c]x", "dx", true),
        ("[]]x", "]x", true),
        ("a{b,c}", "ab", false),
        ("a{b,c}", "a{b,c}", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("a\\b", "a\\b", true),
    ];

    #[test]
    fn patterns_mean_what_they_mean_to_rsync() {
        for (pattern, path, expected) in TABLE {
            let glob = TransferGlob::new(pattern).unwrap();
            let plain = path.trim_end_matches('/');
            let found = glob.matches(plain.as_bytes(), plain.len() < path.len());
            assert_eq!(found, *expected, "{pattern} {path}");
        }
    }

    #[test]
    fn bad_patterns_are_refused_with_a_reason() {
        for pattern in ["", "/", "a[b", "[[:alpha:]]", "*\\"] {
            let said = TransferGlob::new(pattern).unwrap_err().to_string();
            assert!(said.starts_with("Bad pattern"), "{pattern}: {said}");
        }
    }

    #[test]
    fn names_need_not_be_text() {
        assert!(TransferGlob::new("*.o").unwrap().matches(b"\xff/\xfe.o", false));
    }
}
