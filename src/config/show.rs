//! The whole of a configuration as it counts, and where each value comes from.
//!
//! Guarantees: what is shown, read again, is the same configuration (a test).

use std::collections::BTreeMap;
use std::path::Path;

use toml::Value;
use toml::de::{DeTable, DeValue};

use crate::config::reader::Source;
use crate::config::size::show_size;
use crate::config::{ADDED_IDS, ClassSpec, CodecSetting, Config, RuleSpec};

/// One value that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its section as TOML has it: `[limits]`, `[classes.media]`, `[[rule]]`.
    pub section: String,
    /// Which of the rules, from 1; 0 for everything else.
    pub rule: usize,
    /// Its key.
    pub key: &'static str,
    /// Its value as TOML has it.
    pub value: String,
    /// The line of the file that gives it; 0 for a default.
    pub line: usize,
}

/// Lines of keys, by section, number of the rule, and key.
type Lines = BTreeMap<(String, usize, String), usize>;

impl Config {
    /// All values in the order of the documentation. `text` is the file they were read from.
    #[must_use]
    pub fn shown(&self, text: &str) -> Vec<Shown> {
        let mut list = List { lines: lines(text), shown: Vec::new() };
        let l = &self.limits;
        let at = "[limits]";
        list.add(at, "commit_interval_secs", l.commit_interval_secs.to_string());
        list.add(at, "dirty_bytes", size(l.dirty_bytes));
        list.add(at, "file_dirty_bytes", size(l.file_dirty_bytes));
        list.add(at, "overlay_bytes", size(l.overlay_bytes));
        list.add(at, "cache_bytes", size(l.cache_bytes));
        list.add(at, "block_cache_bytes", size(l.block_cache_bytes));
        list.add(at, "write_buffer_bytes", size(l.write_buffer_bytes));
        list.add(at, "queue_bytes", size(l.queue_bytes));
        list.add(at, "append_bytes", size(l.append_bytes));
        list.add(at, "open_files", l.open_files.to_string());
        list.add(at, "reserve_bytes", size(l.reserve_bytes));
        list.add(at, "workers", l.workers.to_string());
        list.add(at, "container_bytes", size(l.container_bytes));
        let (g, at) = (&self.gc, "[gc]");
        list.add(at, "auto", g.auto.to_string());
        list.add(at, "auto_bytes", size(g.auto_bytes));
        list.add(at, "delay_secs", g.delay_secs.to_string());
        list.add(at, "interval_mins", g.interval_mins.to_string());
        list.add(at, "min_dead_percent", g.min_dead_percent.to_string());
        list.add(at, "repack_bytes_per_sec", size(g.repack_bytes_per_sec));
        list.add("[scrub]", "rate", size(self.scrub.rate_bytes));
        list.add("[scrub]", "interval_days", self.scrub.interval_days.to_string());
        if let Some(listen) = self.metrics.listen {
            list.add("[metrics]", "listen", text_value(&listen.to_string()));
        }
        list.add("[metrics]", "remote", self.metrics.remote.to_string());
        self.classes.iter().for_each(|class| list.class(class));
        for rule in &self.rules {
            let class = self.classes.iter().find(|class| class.id == rule.class);
            list.rule(rule, class.map_or("other", |class| &class.name));
        }
        list.shown
    }
}

struct List {
    lines: Lines,
    shown: Vec<Shown>,
}

impl List {
    fn add(&mut self, section: &str, key: &'static str, value: String) {
        self.add_in(section, 0, key, value);
    }

    fn add_in(&mut self, section: &str, rule: usize, key: &'static str, value: String) {
        let place = (section.to_owned(), rule, key.to_owned());
        let line = self.lines.get(&place).copied().unwrap_or(0);
        self.shown.push(Shown { section: place.0, rule, key, value, line });
    }

    fn class(&mut self, class: &ClassSpec) {
        let at = format!("[classes.{}]", class.name);
        if ADDED_IDS.contains(&class.id.0) {
            self.add(&at, "id", class.id.0.to_string());
        }
        self.add(&at, "chunking", text_value(class.chunking.kind()));
        self.add(&at, "avg_bytes", size(class.chunking.nominal().into()));
        match class.codec {
            CodecSetting::None => self.add(&at, "codec", text_value("none")),
            CodecSetting::Auto => self.add(&at, "codec", text_value("auto")),
            CodecSetting::Zstd { level } => {
                self.add(&at, "codec", text_value("zstd"));
                self.add(&at, "level", level.to_string());
            }
        }
        self.add(&at, "group_bytes", size(class.group_bytes.into()));
        if !class.shards.is_empty() {
            let weight =
                |(name, weight): &(String, u32)| format!("{} = {weight}", text_value(name));
            let weights: Vec<_> = class.shards.iter().map(weight).collect();
            self.add(&at, "shards", format!("{{ {} }}", weights.join(", ")));
        }
        let fallback = class.fallback.as_deref();
        self.add(&at, "fallback", fallback.map_or_else(|| "false".to_owned(), text_value));
    }

    fn rule(&mut self, rule: &RuleSpec, class: &str) {
        let mut add = |key, value| self.add_in("[[rule]]", rule.number, key, value);
        add("class", text_value(class));
        if !rule.globs.is_empty() {
            add("glob", texts(&rule.globs));
        }
        if !rule.paths.is_empty() {
            add("path", texts(&rule.paths));
        }
        if let Some(magic) = &rule.magic {
            let hex: String =
                magic.bytes.iter().fold(String::new(), |hex, b| format!("{hex}{b:02x}"));
            add("magic", text_value(&format!("hex:{hex}")));
            add("magic_offset", magic.offset.to_string());
        }
        let numbers = [
            ("owner", rule.owner.map(u64::from)),
            ("group", rule.group.map(u64::from)),
            ("min_bytes", rule.min_bytes),
            ("max_bytes", rule.max_bytes),
        ];
        for (key, number) in numbers {
            if let Some(number) = number {
                add(key, if key.ends_with("bytes") { size(number) } else { number.to_string() });
            }
        }
    }
}

/// A size as a text where that is shorter than the number.
fn size(bytes: u64) -> String {
    if bytes > 0 && bytes.is_multiple_of(1024) {
        text_value(&show_size(bytes).replace(' ', ""))
    } else {
        bytes.to_string()
    }
}

fn text_value(text: &str) -> String {
    Value::from(text).to_string()
}

fn texts(list: &[String]) -> String {
    Value::Array(list.iter().map(|text| Value::from(text.as_str())).collect()).to_string()
}

fn lines(text: &str) -> Lines {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Source { path: Path::new(""), text };
    let mut lines = Lines::new();
    let Ok(top) = DeTable::parse(text) else { return lines };
    let mut note = |section: String, rule: usize, table: &DeTable<'_>| {
        for key in table.keys() {
            let line = source.line(key.span().start);
            lines.insert((section.clone(), rule, key.get_ref().to_string()), line);
        }
    };
    for (name, value) in top.get_ref() {
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("classes", DeValue::Table(classes)) => {
                for (name, class) in classes {
                    if let DeValue::Table(class) = class.get_ref() {
                        note(format!("[classes.{}]", name.get_ref()), 0, class);
                    }
                }
            }
            ("rule", DeValue::Array(rules)) => {
                for (at, rule) in rules.iter().enumerate() {
                    if let DeValue::Table(rule) = rule.get_ref() {
                        note("[[rule]]".to_owned(), at + 1, rule);
                    }
                }
            }
            (name, DeValue::Table(table)) => note(format!("[{name}]"), 0, table),
            _ => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// What is shown, as a file.
    fn file(shown: &[Shown]) -> String {
        let (mut text, mut last) = (String::new(), (String::new(), 0));
        for one in shown {
            if (&one.section, one.rule) != (&last.0, last.1) {
                let _ = writeln!(text, "{}", one.section);
                last = (one.section.clone(), one.rule);
            }
            let _ = writeln!(text, "{} = {}", one.key, one.value);
        }
        text
    }

    #[test]
    fn what_is_shown_is_what_counts() {
        let path = Path::new("/v/config.toml");
        let example = include_str!("../../docs/config.example.toml");
        let more = "[limits]\nreserve_bytes = 0\ncache_bytes = 10000001\n[gc]\nauto = false\n\
                    [metrics]\nlisten = \"127.0.0.1:1\"\n[classes.log]\ncodec = \"none\"\n\
                    fallback = false\nshards = { \"a b\" = 2, c = 1 }\n\
                    [[rule]]\nclass = \"log\"\nglob = [\"*.\\\"q\\\"\", \"\\\\x\"]\nowner = 0\n";
        for text in ["", example, more] {
            let config = Config::parse(text, path).unwrap();
            let shown = file(&config.shown(text));
            let mut again = Config::parse(&shown, path).unwrap();
            for (class, before) in again.classes.iter_mut().zip(&config.classes) {
                class.line = before.line;
                class.shards.sort();
            }
            for (rule, before) in again.rules.iter_mut().zip(&config.rules) {
                rule.line = before.line;
            }
            let mut config = config;
            config.classes.iter_mut().for_each(|class| class.shards.sort());
            assert_eq!(again, config, "{shown}");
        }
        let all = Config::parse(more, path).unwrap().shown(more);
        let line = |section: &str, key: &str| {
            all.iter().find(|s| s.section == section && s.key == key).map(|s| s.line)
        };
        assert_eq!(line("[limits]", "cache_bytes"), Some(3));
        assert_eq!(line("[limits]", "dirty_bytes"), Some(0));
        assert_eq!(line("[classes.log]", "fallback"), Some(10));
        assert_eq!(line("[[rule]]", "owner"), Some(15));
    }

    #[test]
    fn every_key_of_the_example_is_shown() {
        let example = include_str!("../../docs/config.example.toml");
        let shown = Config::parse(example, Path::new("/c")).unwrap().shown(example);
        let found: usize = shown.iter().filter(|one| one.line > 0).count();
        assert_eq!(found, lines(example).len(), "a key is read and not shown");
    }
}
