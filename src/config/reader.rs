//! Reads values out of a parsed TOML text and says exactly where one is wrong.
//!
//! The parsed tree with its byte spans is walked by hand: a message from a derive knows the key but
//! neither the section nor the class or rule it belongs to.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::size::{SIZE_FORMS, parse_size, show_size};
use crate::error::{Error, Result};

/// The file a configuration comes from, for messages.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// Where it lies.
    pub path: &'a Path,
    /// What is in it.
    pub text: &'a str,
}

impl Source<'_> {
    /// Line, from 1, of the byte at `at`.
    pub fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().iter().take(at);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    /// `problem` at byte `at`, and what to do.
    pub fn error(&self, at: usize, problem: impl Display, advice: impl Display) -> Error {
        let (path, line) = (self.path.display(), self.line(at));
        Error::Config { what: format!("{problem} of {path}, line {line}; {advice}") }
    }
}

/// One table of the file and what it is called in messages.
pub(super) struct Section<'a> {
    source: Source<'a>,
    title: String,
    table: &'a DeTable<'a>,
    at: usize,
}

impl<'a> Section<'a> {
    /// `table`, which starts at byte `at`; `title` as in "section [limits]".
    pub fn new(source: Source<'a>, title: String, table: &'a DeTable<'a>, at: usize) -> Self {
        Self { source, title, table, at }
    }

    /// The table `value`, called `title`.
    pub fn from_value(
        source: Source<'a>,
        title: String,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Result<Self> {
        let at = value.span().start;
        let Some(table) = value.get_ref().as_table() else {
            let problem = format!("A {} instead of {title}", type_name(value.get_ref()));
            return Err(source.error(at, problem, "it has to be a table"));
        };
        Ok(Self::new(source, title, table, at))
    }

    /// The line this section starts in, from 1.
    pub fn line(&self) -> usize {
        self.source.line(self.at)
    }

    /// Key, place and value of every entry, in key order.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, usize, &'a Spanned<DeValue<'a>>)> {
        self.table.iter().map(|(key, value)| (key.get_ref().as_ref(), key.span().start, value))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.entries().find_map(|(name, _, value)| (name == key).then_some(value))
    }

    /// Refuses the first key that is not in `valid`.
    pub fn refuse_unknown(&self, valid: &[&str]) -> Result<()> {
        match self.entries().find(|(key, _, _)| !valid.contains(key)) {
            None => Ok(()),
            Some((key, at, _)) => Err(self.source.error(
                at,
                format!("Unknown key \"{}\" in {}", key.escape_debug(), self.title),
                format!("valid keys are {}", valid.join(", ")),
            )),
        }
    }

    /// An error about `key`, or about the section if it has no such key.
    pub fn error(&self, key: &str, problem: impl Display, advice: impl Display) -> Error {
        let place = self.entries().find(|(name, _, _)| *name == key);
        let at = place.map_or(self.at, |(_, at, _)| at);
        self.source.error(at, format!("{problem} in {}", self.title), advice)
    }

    /// The whole number at `key`, which has to be within `range`.
    pub fn integer(&self, key: &str, range: RangeInclusive<i64>) -> Result<Option<i64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match integer_of(value.get_ref()) {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(self.wrong(
                key,
                value.get_ref(),
                format!("a whole number from {} to {}", range.start(), range.end()),
            )),
        }
    }

    /// The truth value at `key`.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Boolean(flag) => Ok(Some(*flag)),
            other => Err(self.wrong(key, other, "true or false")),
        }
    }

    /// The size at `key`, which has to be within `range`.
    pub fn size(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<u64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let bytes = match value.get_ref() {
            DeValue::String(text) => parse_size(text),
            other => integer_of(other).and_then(|number| u64::try_from(number).ok()),
        };
        let Some(bytes) = bytes else {
            return Err(self.wrong(key, value.get_ref(), SIZE_FORMS));
        };
        if range.contains(&bytes) {
            return Ok(Some(bytes));
        }
        let valid = if *range.end() < u64::MAX {
            format!("{} to {}", show_size(*range.start()), show_size(*range.end()))
        } else {
            format!("{} or more", show_size(*range.start()))
        };
        Err(self.wrong(key, value.get_ref(), valid))
    }

    /// The text at `key`.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.get_ref().as_str() {
            Some(text) if !text.is_empty() => Ok(Some(text)),
            _ => Err(self.wrong(key, value.get_ref(), "a text that is not empty")),
        }
    }

    /// The text at `key`, which has to be one of `valid`.
    pub fn choice(&self, key: &str, valid: &[&str]) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.get_ref().as_str() {
            Some(text) if valid.contains(&text) => Ok(Some(text)),
            _ => Err(self.wrong(key, value.get_ref(), format!("\"{}\"", valid.join("\" or \"")))),
        }
    }

    /// The text, or the list of texts, at `key`; an empty list if there is no such key.
    pub fn texts(&self, key: &str) -> Result<Vec<String>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let texts: Option<Vec<String>> = match value.get_ref() {
            DeValue::String(text) => Some(vec![text.to_string()]),
            DeValue::Array(list) => {
                list.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
            }
            _ => None,
        };
        match texts {
            Some(texts) if !texts.is_empty() && texts.iter().all(|text| !text.is_empty()) => {
                Ok(texts)
            }
            _ => Err(self.wrong(key, value.get_ref(), "a text or a list of texts, none empty")),
        }
    }

    /// The error for a value of the wrong kind or out of bounds; `valid` says what would do.
    pub fn wrong(&self, key: &str, value: &DeValue<'_>, valid: impl Display) -> Error {
        let problem = format!("Value {} of key \"{key}\" is not valid", show(value));
        self.error(key, problem, format!("valid is {valid}"))
    }
}

/// The number, if `value` is one that fits.
pub(super) fn integer_of(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A short form of `value` for messages.
fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", text.escape_debug()),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        other => format!("(a {})", type_name(other)),
    }
}

/// What kind of value this is, in words.
fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::Array(_) => "list",
        DeValue::Table(_) => "table",
        DeValue::Datetime(_) => "date",
        DeValue::String(_) => "text",
        DeValue::Boolean(_) => "truth value",
        DeValue::Integer(_) | DeValue::Float(_) => "number",
    }
}
