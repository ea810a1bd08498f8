//! One pattern for names.

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
        use std::os::unix::ffi::OsStrExt;
        self.0.is_match(std::ffi::OsStr::from_bytes(name))
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
}
