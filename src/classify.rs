//! Which class a file is of, and which shard a class uses.
//!
//! Guarantees: the same facts give the same class; a file gets the class of its final name while
//! rsync still writes it under a temporary one; names are bytes and need not be UTF-8. Order: the
//! rules of the configuration, decisive first bytes, the name, weak first bytes, text, `other`.
//! Relies on: a [`Config`] that was loaded or is the default. Does not: read files, remember them,
//! or know what a shard is beyond its name. `globset` lives here.

mod glob;
mod magic;
mod names;
mod place;
mod rules;
mod temp;
#[cfg(test)]
mod tests;
mod transfer;

pub use crate::config::{Chunking, ClassSpec, CodecSetting};
pub use glob::{NameGlob, PathGlob};
pub use place::pick_shard;
pub use temp::{is_rsync_temp, strip_temp_suffix};
pub use transfer::TransferGlob;

use std::fmt;
use std::sync::Arc;

use crate::classify::names::NameMatch;
use crate::classify::rules::Rule;
use crate::classify::temp::{Names, last_name};
use crate::config::{Config, OTHER, SOURCE};
use crate::error::Result;
use crate::limits::MAGIC_BYTES;
use crate::types::ClassId;

/// What is known of a file when its data is cut first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// Its name now.
    pub name: &'a [u8],
    /// Its path from the root, without a leading slash, `name` included; `None` if not known, or if
    /// [`Classifier::needs_path`] is false.
    pub path: Option<&'a [u8]>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size as far as it is known, in bytes.
    pub size: u64,
    /// Its first bytes, up to [`Classifier::head_bytes`]; may be empty.
    pub head: &'a [u8],
}

/// What decided the class of a file. Prints as `built-in name *.jpg` or
/// `rule 3 of config.toml (…)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleRef {
    /// A rule of the configuration.
    Config(Arc<str>),
    /// The extension.
    Extension(&'static str),
    /// The whole name, or how it begins.
    Name(&'static str),
    /// A name like those of mails in a maildir.
    Maildir,
    /// The first bytes: what they are.
    Magic(&'static str),
    /// The first bytes are text.
    Text,
    /// Nothing.
    Default,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) => f.write_str(text),
            Self::Extension(extension) => write!(f, "built-in name *.{extension}"),
            Self::Name(name) => write!(f, "built-in name {name}"),
            Self::Maildir => f.write_str("built-in name of a mail in a maildir"),
            Self::Magic(label) => write!(f, "built-in magic {label}"),
            Self::Text => f.write_str("built-in magic text"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The class of a file and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The class.
    pub class: ClassId,
    /// What decided.
    pub rule: RuleRef,
}

/// Tells the classes of files.
#[derive(Debug)]
pub struct Classifier {
    /// In id order, `other` first.
    classes: Vec<ClassSpec>,
    rules: Vec<Rule>,
}

impl Classifier {
    /// One with the classes and rules of `config`.
    ///
    /// # Errors
    /// `Config` when a glob is not well formed.
    pub fn new(config: &Config) -> Result<Self> {
        let rules = config.rules.iter().map(|rule| Rule::new(config, rule));
        Ok(Self { classes: config.classes.clone(), rules: rules.collect::<Result<_>>()? })
    }

    /// The class of the file with these facts.
    #[must_use]
    pub fn classify(&self, facts: &Facts<'_>) -> Verdict {
        let names = Names::of(facts.name);
        if let Some(rule) = self.rules.iter().find(|rule| rule.matches(facts, &names)) {
            return Verdict { class: rule.class, rule: RuleRef::Config(Arc::clone(&rule.text)) };
        }
        let by_name = class_by_name(facts.name);
        if let Some(magic) = magic::decisive(facts.head)
            && !by_name.as_ref().is_some_and(|named| magic.yields_to(named.class))
        {
            return Verdict { class: magic.class, rule: RuleRef::Magic(magic.label) };
        }
        if let Some(verdict) = by_name {
            return verdict;
        }
        if let Some(magic) = magic::weak(facts.head) {
            return Verdict { class: magic.class, rule: RuleRef::Magic(magic.label) };
        }
        if magic::is_text(facts.head) {
            return Verdict { class: SOURCE, rule: RuleRef::Text };
        }
        Verdict { class: OTHER, rule: RuleRef::Default }
    }

    /// The class with this id; `other` if there is none (a class that the configuration dropped).
    #[must_use]
    pub fn class(&self, id: ClassId) -> &ClassSpec {
        match self.classes.binary_search_by_key(&id, |class| class.id) {
            Ok(place) => &self.classes[place],
            Err(_) => &self.classes[0],
        }
    }

    /// The class with this name.
    #[must_use]
    pub fn class_named(&self, name: &str) -> Option<&ClassSpec> {
        self.classes.iter().find(|class| class.name == name)
    }

    /// All classes in id order.
    #[must_use]
    pub fn classes(&self) -> &[ClassSpec] {
        &self.classes
    }

    /// True if a rule looks at paths; else [`Facts::path`] may stay empty.
    #[must_use]
    pub fn needs_path(&self) -> bool {
        self.rules.iter().any(Rule::needs_path)
    }

    /// How many first bytes of a file may matter.
    #[must_use]
    pub fn head_bytes(&self) -> usize {
        MAGIC_BYTES
    }
}

/// The class by the built-in names, seen through rsync's temporary ones.
fn class_by_name(name: &[u8]) -> Option<Verdict> {
    names::by_name(last_name(name)).map(|(class, found)| {
        let rule = match found {
            NameMatch::Extension(extension) => RuleRef::Extension(extension),
            NameMatch::Name(name) => RuleRef::Name(name),
            NameMatch::Maildir => RuleRef::Maildir,
        };
        Verdict { class, rule }
    })
}
