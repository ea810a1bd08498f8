//! The rules of the configuration, ready to run.

use std::borrow::Cow;
use std::sync::Arc;

use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::classify::Facts;
use crate::classify::temp::Names;
use crate::config::{Config, MagicSpec, RuleSpec};
use crate::error::{Error, Result};
use crate::types::ClassId;

/// Folders in which rsync keeps files it is not done with (`--delay-updates`, and what the manual
/// suggests for `--partial-dir`): the file belongs to the folder above.
const RSYNC_FOLDERS: [&[u8]; 2] = [b".~tmp~", b".rsync-partial"];

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    /// The class of files it holds for.
    pub class: ClassId,
    /// Which rule it is, for people.
    pub text: Arc<str>,
    spec: RuleSpec,
    names: Option<GlobSet>,
    /// Those of `names` that begin with a dot and a certain letter.
    dotted_names: GlobSet,
    paths: Option<GlobSet>,
}

impl Rule {
    /// Compiles one rule of `config`.
    pub fn new(config: &Config, spec: &RuleSpec) -> Result<Self> {
        let dotted = spec.globs.iter().filter(|glob| {
            let mut chars = glob.chars();
            chars.next() == Some('.') && chars.next().is_some_and(|c| !"*?[{\\.".contains(c))
        });
        let is_wanted = |globs: &[String]| !globs.is_empty();
        let all = |globs: &[String], name: bool| globs_of(config, spec, globs.iter(), name);
        Ok(Self {
            class: spec.class,
            text: describe(config, spec).into(),
            names: is_wanted(&spec.globs).then(|| all(&spec.globs, true)).transpose()?,
            dotted_names: globs_of(config, spec, dotted, true)?,
            paths: is_wanted(&spec.paths).then(|| all(&spec.paths, false)).transpose()?,
            spec: spec.clone(),
        })
    }

    /// True if it looks at paths.
    pub fn needs_path(&self) -> bool {
        self.paths.is_some()
    }

    /// True if all its conditions hold.
    pub fn matches(&self, facts: &Facts<'_>, names: &Names<'_>) -> bool {
        let spec = &self.spec;
        spec.owner.is_none_or(|uid| uid == facts.uid)
            && spec.group.is_none_or(|gid| gid == facts.gid)
            && spec.min_bytes.is_none_or(|min| facts.size >= min)
            && spec.max_bytes.is_none_or(|max| facts.size <= max)
            && spec.magic.as_ref().is_none_or(|magic| has_magic(facts.head, magic))
            && self.names.as_ref().is_none_or(|globs| self.matches_name(globs, names))
            && self.paths.as_ref().is_none_or(|globs| matches_path(globs, facts, names))
    }

    fn matches_name(&self, globs: &GlobSet, names: &Names<'_>) -> bool {
        let matches = |set: &GlobSet, name| set.is_match_candidate(&Candidate::from_bytes(name));
        matches(globs, names.real)
            || (names.doubtful && matches(globs, names.full))
            || names.dotted.is_some_and(|name| matches(&self.dotted_names, name))
    }
}

fn has_magic(head: &[u8], magic: &MagicSpec) -> bool {
    head.get(magic.offset..).is_some_and(|rest| rest.starts_with(&magic.bytes))
}

fn matches_path(globs: &GlobSet, facts: &Facts<'_>, names: &Names<'_>) -> bool {
    facts.path.is_some_and(|path| {
        globs.is_match_candidate(&Candidate::from_bytes(&real_path(path, names)))
            || (names.doubtful && globs.is_match_candidate(&Candidate::from_bytes(path)))
    })
}

/// `path` as it will be when rsync is done with the file.
fn real_path<'a>(path: &'a [u8], names: &Names<'_>) -> Cow<'a, [u8]> {
    let folder_len = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let folder = &path[..folder_len];
    let real_folder = RSYNC_FOLDERS.iter().find_map(|name| {
        let above = folder.strip_suffix(b"/")?.strip_suffix(*name)?;
        (above.is_empty() || above.ends_with(b"/")).then_some(above)
    });
    match real_folder {
        None if names.real.len() == names.full.len() => Cow::Borrowed(path),
        _ => Cow::Owned([real_folder.unwrap_or(folder), names.real].concat()),
    }
}

/// Compiles globs: on names without regard to letter case as built-in extensions; on paths exact,
/// with `*` stopping at a slash and `**` crossing it.
fn globs_of<'a>(
    config: &Config,
    spec: &RuleSpec,
    globs: impl Iterator<Item = &'a String>,
    name: bool,
) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    let (number, place) = (spec.number, config.place(spec.line));
    for glob in globs {
        let built = GlobBuilder::new(glob).literal_separator(!name).case_insensitive(name).build();
        set.add(built.map_err(|e| Error::Config {
            what: format!(
                "Bad {} \"{}\" in [[rule]] {number} of {place}; {}, escape special characters \
                 with \\",
                if name { "glob" } else { "path" },
                glob.escape_debug(),
                e.kind()
            ),
        })?);
    }
    set.build().map_err(|e| Error::Config {
        what: format!("Globs too large in [[rule]] {number} of {place}; {e}"),
    })
}

/// `rule 3 of config.toml (glob "*.raw", owner 1000)`.
fn describe(config: &Config, spec: &RuleSpec) -> String {
    let file = config.path.as_ref().and_then(|path| path.file_name());
    let file = file.map_or_else(|| "config.toml".into(), |name| name.to_string_lossy());
    let quoted = |globs: &[String]| {
        let quoted: Vec<String> = globs.iter().map(|glob| format!("\"{glob}\"")).collect();
        (!globs.is_empty()).then(|| quoted.join(" or "))
    };
    let conditions = [
        ("glob", quoted(&spec.globs)),
        ("path", quoted(&spec.paths)),
        ("magic", spec.magic.as_ref().map(|magic| format!("\"{}\"", magic.bytes.escape_ascii()))),
        ("owner", spec.owner.map(|uid| uid.to_string())),
        ("group", spec.group.map(|gid| gid.to_string())),
        ("min_bytes", spec.min_bytes.map(|bytes| bytes.to_string())),
        ("max_bytes", spec.max_bytes.map(|bytes| bytes.to_string())),
    ];
    let given = conditions.into_iter().filter_map(|(key, value)| Some(format!("{key} {}", value?)));
    let given: Vec<String> = given.collect();
    format!("rule {} of {file} ({})", spec.number, given.join(", "))
}
