//! A Rust file, with comments and literals blanked so that braces and words can be counted.

/// One Rust file.
#[derive(Debug)]
pub struct SourceFile {
    /// Path from the repository's root, with `/`.
    pub path: String,
    /// Its lines as they are.
    pub lines: Vec<String>,
    /// Its text with comments, strings and characters blanked; line breaks stay.
    pub code: String,
    /// Per line: it belongs to tests.
    pub test_lines: Vec<bool>,
    /// Byte ranges in `code` of inline modules' bodies.
    inline_modules: Vec<(usize, usize)>,
    line_starts: Vec<usize>,
}

impl SourceFile {
    /// Takes a file apart.
    pub fn new(path: String, text: String) -> Self {
        let code = blank(&text);
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let starts = code.match_indices('\n').map(|(at, _)| at + 1);
        let line_starts: Vec<usize> = std::iter::once(0).chain(starts).collect();
        let mut file = Self {
            test_lines: vec![is_test_path(&path); lines.len()],
            path,
            lines,
            code,
            inline_modules: Vec::new(),
            line_starts,
        };
        file.find_modules();
        file.find_tests();
        file
    }

    /// Line of a byte of `code`, from 1.
    pub fn line_of(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }

    /// True if the byte belongs to tests.
    pub fn is_test(&self, at: usize) -> bool {
        self.test_lines.get(self.line_of(at) - 1).copied().unwrap_or(false)
    }

    /// The room: `kv` of `src/kv.rs` and `src/kv/rocks.rs`; `None` outside `src`.
    pub fn room(&self) -> Option<&str> {
        let first = self.path.strip_prefix("src/")?.split('/').next()?;
        Some(first.strip_suffix(".rs").unwrap_or(first))
    }

    /// How deep the module around a byte of `code` lies; the crate's root is 0.
    pub fn depth(&self, at: usize) -> usize {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let file = match inside {
            "lib.rs" | "main.rs" => 0,
            _ => inside.matches('/').count() + 1,
        };
        file + self.inline_modules.iter().filter(|(from, to)| (*from..*to).contains(&at)).count()
    }

    /// Where `word` stands as a whole word.
    pub fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code.match_indices(word).map(|(at, _)| at).filter(move |at| {
            let before = self.code[..*at].chars().next_back();
            let after = self.code[at + word.len()..].chars().next();
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        })
    }

    /// The byte after the brace that closes the one at `open`.
    pub fn after_block(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for (at, byte) in self.code.bytes().enumerate().skip(open) {
            match byte {
                b'{' => depth += 1,
                b'}' if depth <= 1 => return at + 1,
                b'}' => depth -= 1,
                _ => {}
            }
        }
        self.code.len()
    }

    /// The first `{` or `;` from `from` that is not within parentheses or brackets.
    pub fn body_or_end(&self, from: usize) -> Option<(usize, u8)> {
        let mut depth = 0_i32;
        for (at, byte) in self.code.bytes().enumerate().skip(from) {
            match byte {
                b'(' | b'[' => depth += 1,
                b')' | b']' => depth -= 1,
                b'{' | b';' if depth == 0 => return Some((at, byte)),
                _ => {}
            }
        }
        None
    }

    fn find_modules(&mut self) {
        let mut found = Vec::new();
        for at in self.words("mod") {
            if let Some((open, b'{')) = self.body_or_end(at) {
                found.push((open, self.after_block(open)));
            }
        }
        self.inline_modules = found;
    }

    /// Marks what follows `#[cfg(test)]`, up to the end of the item.
    fn find_tests(&mut self) {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("#[cfg(") {
            let Some(len) = self.code[at..].find(']') else { continue };
            let attribute = &self.code[at..at + len];
            let tests = attribute.contains("test") && !attribute.contains("not(test");
            if !tests {
                continue;
            }
            match self.body_or_end(at + len + 1) {
                Some((open, b'{')) => found.push((at, self.after_block(open))),
                Some((end, _)) => found.push((at, end)),
                None => {}
            }
        }
        for (from, to) in found {
            let lines = self.line_of(from)..=self.line_of(to.saturating_sub(1));
            for line in lines {
                if let Some(test) = self.test_lines.get_mut(line - 1) {
                    *test = true;
                }
            }
        }
    }
}

/// True for letters, digits and `_`.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The word that `text` begins with.
pub fn first_word(text: &str) -> &str {
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    &text[..end]
}

/// `src/foo/tests.rs`, `src/foo/tests/…`, and everything outside `src`.
fn is_test_path(path: &str) -> bool {
    match path.strip_prefix("src/") {
        Some(inside) => inside.split('/').any(|part| part == "tests" || part == "tests.rs"),
        None => true,
    }
}

/// `text` with comments and the content of literals replaced by spaces.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let after_word = out.chars().next_back().is_some_and(is_word);
        let (keep, skip) = match skipped(rest, after_word) {
            Some(len) => (0, len),
            None => (rest.chars().next().map_or(1, char::len_utf8), 0),
        };
        out.push_str(&rest[..keep]);
        out.extend(rest[keep..keep + skip].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
        rest = &rest[keep + skip..];
    }
    out
}

/// Bytes of the comment or literal that `rest` begins with.
fn skipped(rest: &str, after_word: bool) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    if let Some(inside) = rest.strip_prefix('"') {
        return Some(1 + string_end(inside));
    }
    if rest.starts_with('\'') {
        return char_literal(rest);
    }
    if after_word {
        return None;
    }
    let prefix = ["br", "cr", "b", "c", "r"].into_iter().find(|p| {
        rest.strip_prefix(*p).is_some_and(|r| r.trim_start_matches('#').starts_with('"'))
    })?;
    let hashes = rest[prefix.len()..].bytes().take_while(|b| *b == b'#').count();
    let start = prefix.len() + hashes + 1;
    if prefix.ends_with('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len()));
    }
    (hashes == 0).then(|| start + string_end(&rest[start..]))
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let bytes = rest.as_bytes();
    let mut at = 0;
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Bytes up to and with the closing quote.
fn string_end(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Bytes of a character literal; `None` for a lifetime.
fn char_literal(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        let end = rest[3..].find('\'')?;
        return Some(3 + end + 1);
    }
    let (at, close) = chars.next()?;
    (close == '\'').then_some(at + 1)
}

#[test]
fn comments_and_literals_are_blanked() {
    let text = "let a = \"{ // }\"; // {\nlet c = '{'; /* { /* } */ { */ let l: &'a str;\n\
                let r = r#\"\"{\"#; let b = b\"\\\"{\"; let q = '\\''; for r in x {}";
    let code = blank(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(code.matches('\n').count(), 2);
    assert_eq!(code.matches('{').count(), 1, "{code}");
    assert!(code.contains("let l: &'a str;"), "{code}");
    assert!(code.contains("for r in x"), "{code}");
}

#[test]
fn tests_and_inline_modules_are_found() {
    let text =
        "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n#[cfg(not(test))]\nfn c() {}\n";
    let file = SourceFile::new("src/kv/rocks.rs".to_owned(), text.to_owned());
    assert_eq!(file.test_lines, [false, true, true, true, true, false, false]);
    let at = file.code.find("fn b").expect("it is there");
    assert_eq!((file.depth(0), file.depth(at), file.line_of(at)), (2, 3, 4));
    assert_eq!(file.room(), Some("kv"));
    assert!(is_test_path("src/kv/tests/model.rs") && is_test_path("tests/it/main.rs"));
}
