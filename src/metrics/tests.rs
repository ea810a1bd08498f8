//! The list against the documents, and the form.

use std::collections::BTreeSet;

use super::{METRICS, escape};

/// Every word of a text that is a name of a metric.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !is_part(c)).filter(|word| word.starts_with("stratafs_"));
    words.map(str::to_owned).collect()
}

fn known() -> BTreeSet<String> {
    METRICS.iter().map(|metric| metric.name.to_owned()).collect()
}

#[test]
fn every_metric_is_named_once_and_well() {
    assert_eq!(known().len(), METRICS.len());
    for metric in METRICS {
        let is_total = metric.name.ends_with("_total");
        assert_eq!(metric.kind == super::Kind::Counter, is_total, "{}", metric.name);
        assert_eq!(names(metric.name).len(), 1, "{}", metric.name);
        assert!(!metric.meaning.contains(['\n', '\\']), "{}", metric.name);
        let in_bytes = metric.unit == "bytes";
        assert_eq!(in_bytes, metric.name.contains("_bytes"), "{}", metric.name);
    }
}

#[test]
fn the_documents_have_the_same_metrics() {
    let operations = include_str!("../../docs/OPERATIONS.md");
    for metric in METRICS {
        let row = format!(
            "| `{}` | {} | {} | {} | {} |",
            metric.name,
            metric.kind.name(),
            metric.label,
            metric.unit,
            metric.meaning
        );
        let row = row.replace("|  |", "| |");
        assert!(operations.lines().any(|line| line == row), "docs/OPERATIONS.md lacks\n{row}");
    }
    let drawn = names(include_str!("../../docs/grafana.json"));
    let known = known();
    let unknown: Vec<_> = drawn.difference(&known).collect();
    assert!(unknown.is_empty(), "docs/grafana.json draws what there is not: {unknown:?}");
    assert!(drawn.len() > 15, "{drawn:?}");
    let rows = operations.lines().filter(|line| line.starts_with("| `stratafs_"));
    let documented: BTreeSet<String> =
        rows.flat_map(|row| names(row.split('|').nth(1).unwrap())).collect();
    assert_eq!(documented, known);
}

#[test]
fn labels_are_escaped() {
    assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
}
