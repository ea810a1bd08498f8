//! One pattern: for names, or for paths.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use globset::{GlobBuilder, GlobMatcher};

use crate::error::{Error, Result};

/// A pattern as in `daily-*`: `*`, `?`, `[a-z]`, `{a,b}`; letter case counts.
#[derive(Clone, Debug)]
pub struct NameGlob(GlobMatcher);

impl NameGlob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// `Invalid` that says what is wrong with it.
    pub fn new(pattern: &str) -> Result<Self> {
        let built = GlobBuilder::new(pattern).build();
        let glob = built.map_err(|e| {
            Error::invalid(format!("Bad pattern {pattern:?}: {}; escape with \\", e.kind()))
        })?;
        Ok(Self(glob.compile_matcher()))
    }

    /// True if the whole name is as the pattern says.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        self.0.is_match(OsStr::from_bytes(name))
    }
}

/// A pattern for names, or for paths if it has a slash. `*` does not cross a slash, `**` does.
#[derive(Clone, Debug)]
pub struct PathGlob {
    whole: GlobMatcher,
    /// What the last part of a path must match, if the pattern says so for itself.
    last: Option<GlobMatcher>,
    by_path: bool,
}

impl PathGlob {
    /// Reads a pattern. A slash at the beginning says that it is one for paths, and no more.
    ///
    /// # Errors
    /// `Invalid` that says what is wrong with it.
    pub fn new(pattern: &str, ignore_case: bool) -> Result<Self> {
        let build = |text: &str| {
            let mut builder = GlobBuilder::new(text);
            builder.literal_separator(true).backslash_escape(true).case_insensitive(ignore_case);
            let glob = builder.build().map_err(|e| {
                Error::invalid(format!("Bad pattern {pattern:?}: {}; escape with \\", e.kind()))
            })?;
            Ok(glob.compile_matcher())
        };
        if pattern.is_empty() {
            return Err(Error::invalid("Bad pattern \"\": it matches nothing"));
        }
        let by_path = pattern.contains('/');
        let last = pattern.rsplit('/').next().unwrap_or_default();
        // What may reach over a slash is not taken apart.
        let plain = !last.is_empty() && !pattern.contains(['{', '[', '\\']) && !last.contains("**");
        Ok(Self {
            whole: build(pattern.strip_prefix('/').unwrap_or(pattern))?,
            last: if plain { Some(build(last)?) } else { None },
            by_path,
        })
    }

    /// False if no path that ends with this name is meant.
    #[must_use]
    pub fn may_match_name(&self, name: &[u8]) -> bool {
        let glob = if self.by_path { self.last.as_ref() } else { Some(&self.whole) };
        glob.is_none_or(|glob| glob.is_match(OsStr::from_bytes(name)))
    }

    /// True if a path, without a slash in front, whose name may match is meant.
    #[must_use]
    pub fn matches_path(&self, path: &[u8]) -> bool {
        !self.by_path || self.whole.is_match(OsStr::from_bytes(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let glob = NameGlob::new("daily-*").unwrap();
        assert!(glob.matches(b"daily-") && glob.matches(b"daily-\xff"));
        assert!(!glob.matches(b"a-daily-1") && !glob.matches(b"Daily-1"));
        assert!(NameGlob::new("{a,b}?").unwrap().matches(b"b1"));
        assert!(NameGlob::new("[").unwrap_err().to_string().contains("Bad pattern"));
    }

    #[test]
    fn patterns_with_a_slash_match_whole_paths() {
        let matches = |pattern: &str, path: &str| {
            let glob = PathGlob::new(pattern, false).unwrap();
            let name = path.rsplit('/').next().unwrap().as_bytes();
            glob.may_match_name(name) && glob.matches_path(path.as_bytes())
        };
        let yes = [
            ("*.c", "a/b.c"),
            ("a/*.c", "a/b.c"),
            ("/b.c", "b.c"),
            ("**/b.c", "b.c"),
            ("**/b.c", "x/y/b.c"),
            ("a/**", "a/b/c"),
            ("{a/b,c}", "a/b"),
            ("a/[bc]", "a/c"),
            ("*", "a/b"),
        ];
        for (pattern, path) in yes {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        let no = [("a/*.c", "a/x/b.c"), ("a/*.c", "x/a/b.c"), ("/b.c", "a/b.c"), ("*.C", "b.c")];
        for (pattern, path) in no {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
        let glob = PathGlob::new("*.JPG", true).unwrap();
        assert!(glob.may_match_name(b"\xff.jpg") && !glob.may_match_name(b"jpg"));
        for bad in ["[", "a/{b", ""] {
            let refused = PathGlob::new(bad, false).unwrap_err().to_string();
            assert!(refused.contains("Bad pattern"), "{refused}");
        }
    }
}
