//! What is asked of an import, and which files it is about.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::classify::TransferGlob;
use crate::error::Result;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Change nothing; only say what would change.
    pub dry_run: bool,
    /// Remove entries of imported directories that the source does not have.
    pub delete: bool,
    /// Do not enter directories of other file systems.
    pub one_file_system: bool,
    /// Of directories with a valid CACHEDIR.TAG take only that.
    pub exclude_caches: bool,
    /// Of directories with a file of such a name take only that.
    pub exclude_if_present: Vec<Vec<u8>>,
    /// What is left out.
    pub rules: Rules,
}

/// One rule as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Take what matches, instead of leaving it out.
    pub include: bool,
    /// See [`TransferGlob`].
    pub pattern: String,
}

/// Rules in order: the first that matches decides; without one, everything is taken.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<(bool, TransferGlob)>);

impl Rules {
    /// Reads rules.
    ///
    /// # Errors
    /// `Invalid` for a pattern that is none.
    pub fn new(rules: &[Rule]) -> Result<Self> {
        let read = |rule: &Rule| Ok((rule.include, TransferGlob::new(&rule.pattern)?));
        rules.iter().map(read).collect::<Result<_>>().map(Self)
    }

    /// True if this path, from the root of the transfer on, is left out.
    pub(super) fn exclude(&self, path: &[u8], is_directory: bool) -> bool {
        let first = self.0.iter().find(|(_, glob)| glob.matches(path, is_directory));
        first.is_some_and(|(include, _)| !include)
    }

    /// True if the directory `path`, or one on the way to it, is left out.
    pub(super) fn exclude_below(&self, path: &Path) -> bool {
        let ways = path.ancestors().filter(|way| !way.as_os_str().is_empty());
        ways.into_iter().any(|way| self.exclude(way.as_os_str().as_bytes(), true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(lines: &[&str]) -> Rules {
        let rule = |line: &&str| Rule {
            include: line.starts_with('+'),
            pattern: line[1..].trim_start().to_owned(),
        };
        Rules::new(&lines.iter().map(rule).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = rules(&["+ keep.o", "- *.o", "- /build/"]);
        assert!(!rules.exclude(b"a/keep.o", false) && rules.exclude(b"a/b.o", false));
        assert!(rules.exclude(b"build", true) && !rules.exclude(b"build", false));
        assert!(!rules.exclude(b"a/build", true) && !rules.exclude(b"c", false));
    }

    #[test]
    fn what_lies_in_an_excluded_directory_is_excluded() {
        let rules = rules(&["- /backup/"]);
        assert!(rules.exclude_below(Path::new("backup/vol")));
        assert!(!rules.exclude_below(Path::new("other/backup")));
        assert!(!rules.exclude_below(Path::new("")));
    }
}
