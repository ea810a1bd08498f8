//! Every numbered sentence of `docs/SEMANTICS.md` is quoted by a test.
//!
//! A quote is a comment or doc comment at a test, in tests/ or in the tests of src/, that says
//! `SEMANTICS §N.M`; `//!` does not count, because a module proves nothing. Whether the test proves
//! the sentence is for whoever reviews it.

use std::collections::BTreeSet;

use crate::source::SourceFile;

/// What a quote begins with.
const QUOTE: &str = "SEMANTICS §";

/// Section and sentence.
type Number = (u32, u32);

/// Sentences without a quote, quotes without a sentence, and numbers out of order.
pub fn bad_quotes(semantics: &str, files: &[SourceFile]) -> Vec<String> {
    let (sentences, mut bad) = sentences(semantics);
    let mut quoted = BTreeSet::new();
    for file in files {
        for (at, line) in file.lines.iter().enumerate() {
            let place = format!("{}:{}", file.path, at + 1);
            for number in quotes(line) {
                match number {
                    Ok(number) if sentences.contains(&number) => {
                        if is_at_a_test(file, at) {
                            quoted.insert(number);
                        } else {
                            bad.push(format!("{place}: a quote stands at a test, as a comment"));
                        }
                    }
                    Ok((section, sentence)) => {
                        bad.push(format!("{place}: there is no §{section}.{sentence}"));
                    }
                    Err(text) => bad.push(format!("{place}: §{text} is no number of a sentence")),
                }
            }
        }
    }
    let missing = sentences.difference(&quoted);
    bad.extend(missing.map(|(section, sentence)| {
        format!("docs/SEMANTICS.md: §{section}.{sentence} is quoted by no test")
    }));
    bad
}

/// Numbers of all sentences, and complaints about those that are not 1, 2, 3 …
fn sentences(text: &str) -> (BTreeSet<Number>, Vec<String>) {
    let (mut found, mut bad) = (BTreeSet::new(), Vec::new());
    let (mut section, mut last) = (0, 0);
    for line in text.lines() {
        if let Some(number) = line.strip_prefix("## ").and_then(leading_number) {
            (section, last) = (number, 0);
        } else if let Some(number) = leading_number(line).filter(|_| is_sentence(line)) {
            last += 1;
            if number != last {
                bad.push(format!("docs/SEMANTICS.md: §{section}.{number} should be {last}"));
            }
            found.insert((section, number));
        }
    }
    (found, bad)
}

/// True for `12. Text`.
fn is_sentence(line: &str) -> bool {
    line.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(". ")
}

fn leading_number(line: &str) -> Option<u32> {
    let end = line.find(|c: char| !c.is_ascii_digit()).unwrap_or(line.len());
    line[..end].parse().ok()
}

/// Numbers quoted in a line, or what stands in their place.
fn quotes(line: &str) -> impl Iterator<Item = Result<Number, String>> {
    line.split(QUOTE).skip(1).map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let text = rest[..end].trim_end_matches('.');
        let number = text
            .split_once('.')
            .and_then(|(section, sentence)| Some((section.parse().ok()?, sentence.parse().ok()?)));
        number.ok_or_else(|| text.to_owned())
    })
}

/// True for a comment that belongs to a test.
fn is_at_a_test(file: &SourceFile, line: usize) -> bool {
    let text = file.lines[line].trim_start();
    file.test_lines[line] && text.starts_with("//") && !text.starts_with("//!")
}

#[test]
fn what_nobody_proves_is_named() {
    let semantics = "# T\n\n## 1 One\n\n1. A sentence\n   over two lines.\n2. Another.\n\n\
                     ## 2 Two\n\n1. Third, 1965. It says more.\n10. is out of order\n- a point\n";
    let file = |path: &str, text: &str| SourceFile::new(path.to_owned(), text.to_owned());
    let test = |text: &str| bad_quotes(semantics, &[file("tests/it/a.rs", text)]);
    let missing = |number: &str| format!("docs/SEMANTICS.md: §{number} is quoted by no test");
    let order = "docs/SEMANTICS.md: §2.10 should be 2".to_owned();

    let some = test("/// SEMANTICS §1.1: it is. SEMANTICS §2.1.\n// SEMANTICS §2.10\nfn f() {}");
    assert_eq!(some, [order.clone(), missing("1.2")]);
    let wrong = "// SEMANTICS §1.3, SEMANTICS §1\n//! SEMANTICS §1.2\nlet s = \"SEMANTICS §1.1\";";
    let wrong = test(wrong);
    assert_eq!(wrong[1], "tests/it/a.rs:1: there is no §1.3");
    assert_eq!(wrong[2], "tests/it/a.rs:1: §1 is no number of a sentence");
    assert_eq!(wrong[3], "tests/it/a.rs:2: a quote stands at a test, as a comment");
    assert_eq!(wrong[4], "tests/it/a.rs:3: a quote stands at a test, as a comment");
    assert_eq!(wrong.len(), 9, "four sentences are quoted by nobody: {wrong:?}");

    let code = "// SEMANTICS §1.1\nfn f() {}\n#[cfg(test)]\nmod tests {\n// SEMANTICS §1.2\n}\n";
    let bad = bad_quotes(semantics, &[file("src/vfs/a.rs", code)]);
    assert!(bad.contains(&"src/vfs/a.rs:1: a quote stands at a test, as a comment".to_owned()));
    assert!(bad.contains(&missing("1.1")) && !bad.contains(&missing("1.2")), "{bad:?}");
}
