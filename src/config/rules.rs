//! The rules of a configuration: which files belong to which class.

use toml::Spanned;
use toml::de::DeValue;

use crate::config::classes::ClassSpec;
use crate::config::reader::{Section, Source};
use crate::error::Result;
use crate::limits::MAGIC_BYTES;
use crate::types::ClassId;

/// Bytes that a file has to have at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MagicSpec {
    /// Offset of the first one; `offset + bytes.len() <= MAGIC_BYTES`.
    pub offset: usize,
    /// The bytes, at least one.
    pub bytes: Vec<u8>,
}

/// One `[[rule]]`: all conditions given have to hold, and at least one is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// Place among the rules, from 1.
    pub number: usize,
    /// Line in the file, from 1.
    pub line: usize,
    /// The class of files it holds for.
    pub class: ClassId,
    /// Globs on the name, one of which has to match; empty is no condition. Whether they are well
    /// formed shows when the classifier compiles them.
    pub globs: Vec<String>,
    /// Globs on the path from the root, likewise.
    pub paths: Vec<String>,
    /// First bytes.
    pub magic: Option<MagicSpec>,
    /// Owner.
    pub owner: Option<u32>,
    /// Group.
    pub group: Option<u32>,
    /// Smallest size.
    pub min_bytes: Option<u64>,
    /// Largest size.
    pub max_bytes: Option<u64>,
}

const KEYS: [&str; 9] =
    ["class", "glob", "path", "magic", "magic_offset", "owner", "group", "min_bytes", "max_bytes"];

/// The rules in `value`, the list that `[[rule]]` makes.
pub(super) fn read<'a>(
    source: Source<'a>,
    value: &'a Spanned<DeValue<'a>>,
    classes: &[ClassSpec],
) -> Result<Vec<RuleSpec>> {
    let Some(list) = value.get_ref().as_array() else {
        let problem = "Section [rule] is not a list in the top level";
        return Err(source.error(value.span().start, problem, "write each rule as [[rule]]"));
    };
    let mut rules = Vec::with_capacity(list.len());
    for (place, value) in list.iter().enumerate() {
        let number = place + 1;
        let table = Section::from_value(source, format!("[[rule]] {number}"), value)?;
        rules.push(read_rule(number, &table, classes)?);
    }
    Ok(rules)
}

fn read_rule(number: usize, table: &Section<'_>, classes: &[ClassSpec]) -> Result<RuleSpec> {
    table.refuse_unknown(&KEYS)?;
    let names = || classes.iter().map(|class| class.name.as_str()).collect::<Vec<_>>().join(", ");
    let Some(name) = table.text("class")? else {
        let advice = format!("valid classes are {}", names());
        return Err(table.error("", "Key \"class\" is missing", advice));
    };
    let Some(class) = classes.iter().find(|class| class.name == name) else {
        let problem = format!("Unknown class \"{}\"", name.escape_debug());
        return Err(table.error("class", problem, format!("valid classes are {}", names())));
    };
    let rule = RuleSpec {
        number,
        line: table.line(),
        class: class.id,
        globs: table.texts("glob")?,
        paths: table.texts("path")?,
        magic: read_magic(table)?,
        owner: read_owner(table, "owner")?,
        group: read_owner(table, "group")?,
        min_bytes: table.size("min_bytes", 0..=u64::MAX)?,
        max_bytes: table.size("max_bytes", 0..=u64::MAX)?,
    };
    check(&rule, table)?;
    Ok(rule)
}

/// What no single key can show to be wrong.
fn check(rule: &RuleSpec, table: &Section<'_>) -> Result<()> {
    if let Some(glob) = rule.globs.iter().find(|glob| glob.contains('/')) {
        let problem = format!("Glob \"{}\" has a slash, but names have none", glob.escape_debug());
        return Err(table.error("glob", problem, "use the key path for folders"));
    }
    if let Some(path) = rule.paths.iter().find(|path| path.starts_with('/')) {
        let problem = format!("Path \"{}\" starts with a slash", path.escape_debug());
        return Err(table.error("path", problem, "paths are from the root, without it"));
    }
    if rule.min_bytes.is_some_and(|min| rule.max_bytes.is_some_and(|max| min > max)) {
        let problem = "Key \"min_bytes\" is above \"max_bytes\", so no file fits";
        return Err(table.error("min_bytes", problem, "swap them"));
    }
    let free = rule.globs.is_empty()
        && rule.paths.is_empty()
        && rule.magic.is_none()
        && rule.owner.is_none()
        && rule.group.is_none()
        && rule.min_bytes.is_none()
        && rule.max_bytes.is_none();
    if free {
        let advice = format!("give at least one of {}", KEYS[1..].join(", "));
        return Err(table.error("", "No condition", advice));
    }
    Ok(())
}

fn read_owner(table: &Section<'_>, key: &str) -> Result<Option<u32>> {
    let number = table.integer(key, 0..=i64::from(u32::MAX))?;
    Ok(number.map(|number| u32::try_from(number).expect("within 0..=u32::MAX")))
}

fn read_magic(table: &Section<'_>) -> Result<Option<MagicSpec>> {
    let last = i64::try_from(MAGIC_BYTES).expect("a small constant") - 1;
    let offset = table.integer("magic_offset", 0..=last)?;
    let Some(text) = table.text("magic")? else {
        return match offset {
            None => Ok(None),
            Some(_) => Err(table.error(
                "magic_offset",
                "Key \"magic_offset\" means nothing without \"magic\"",
                "add the bytes to look for",
            )),
        };
    };
    let bytes = match text.strip_prefix("hex:") {
        None => Some(text.as_bytes().to_vec()),
        Some(digits) => parse_hex(digits),
    };
    let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
        let problem = format!("\"{}\" for key \"magic\" is not hexadecimal", text.escape_debug());
        return Err(table.error("magic", problem, "valid is a text, or like \"hex:89504e47\""));
    };
    let offset = usize::try_from(offset.unwrap_or(0)).expect("within 0..MAGIC_BYTES");
    if offset + bytes.len() > MAGIC_BYTES {
        let problem = "Key \"magic\" looks too far into the file";
        let advice = format!("only the first {MAGIC_BYTES} bytes of a file are looked at");
        return Err(table.error("magic", problem, advice));
    }
    Ok(Some(MagicSpec { offset, bytes }))
}

/// Bytes written as pairs of hexadecimal digits.
fn parse_hex(digits: &str) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    let pairs = digits.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(value(*high)? * 16 + value(*low)?).ok(),
        _ => None,
    });
    pairs.collect()
}
