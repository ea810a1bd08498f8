//! Long answers: sorted as long as they are not too long, then as they come, in text or as one JSON
//! document. Memory: what is sorted.

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::output::Output;
use crate::error::{Error, Result};

/// Items that are sorted; of more the rest is printed as it comes.
const SORTED_MAX: usize = 100_000;
/// Bytes printed at once.
const PRINT_BYTES: usize = 64 * 1024;

/// What is listed, and how.
pub(super) struct Listing<T> {
    pub(super) output: Output,
    /// Name of the array in JSON.
    name: &'static str,
    text_of: fn(&T) -> String,
    order: fn(&T, &T) -> Ordering,
    kept: Vec<T>,
    sorts: bool,
    printed: u64,
    text: String,
}

impl<T: Serialize> Listing<T> {
    pub(super) fn new(
        output: Output,
        name: &'static str,
        text_of: fn(&T) -> String,
        order: fn(&T, &T) -> Ordering,
    ) -> Self {
        let (kept, text) = (Vec::new(), String::new());
        Self { output, name, text_of, order, kept, sorts: true, printed: 0, text }
    }

    /// One more.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub(super) fn take(&mut self, item: T) -> Result<()> {
        if !self.sorts {
            return self.print(&item);
        }
        self.kept.push(item);
        self.sorts = self.kept.len() <= SORTED_MAX;
        if self.sorts { Ok(()) } else { self.print_kept() }
    }

    /// Those were all. In JSON `last` follows the array.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub(super) fn end(mut self, last: Option<(&str, &Value)>) -> Result<()> {
        self.kept.sort_by(self.order);
        self.print_kept()?;
        if self.output.json() {
            if self.printed == 0 {
                self.begin();
                self.text += "]";
            } else {
                self.text += "\n  ]";
            }
            if let Some((name, value)) = last {
                let _ = write!(self.text, ",\n  \"{name}\": {value}");
            }
            self.text += "\n}\n";
        }
        self.flush()
    }

    fn begin(&mut self) {
        let _ = write!(self.text, "{{\n  \"{}\": [", self.name);
    }

    fn print_kept(&mut self) -> Result<()> {
        let kept = std::mem::take(&mut self.kept);
        kept.iter().try_for_each(|item| self.print(item))
    }

    fn print(&mut self, item: &T) -> Result<()> {
        if self.output.json() {
            if self.printed == 0 {
                self.begin();
            } else {
                self.text += ",";
            }
            let _ = write!(self.text, "\n    {}", json_of(item)?);
        } else {
            self.text += &(self.text_of)(item);
        }
        self.printed += 1;
        if self.text.len() < PRINT_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<()> {
        self.output.data(&std::mem::take(&mut self.text))
    }
}

/// As JSON.
///
/// # Errors
/// `Invalid`, which no answer of ours is.
pub(super) fn json_of(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value)
        .map_err(|e| Error::invalid(format!("Answer cannot be written as JSON: {e}")))
}
