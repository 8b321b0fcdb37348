//! The house rules that a compiler does not check. Each violation is named by file and line.
//!
//! - a folder is a layer and imports only lower layers
//! - files, and functions in them, stay short; no `mod.rs`, no module called util, helper or common
//! - public types have names of their own
//! - no `unwrap` or `expect` outside tests, nothing unfinished, no mutable static, no unbounded channel

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Layers of the top modules under `src`. Modules of one layer do not know each other, except as listed below.
const LAYERS: &[(&str, u8)] = &[
    ("types", 0),
    ("wire", 1),
    ("sql", 1),
    ("config", 1),
    ("metrics", 1),
    ("shard", 1),
    ("runtime", 1),
    ("net", 2),
    ("auth", 2),
    ("gather", 2),
    ("server", 3),
    ("route", 3),
    ("plan", 3),
    ("pool", 4),
    ("cluster", 5),
    ("database", 6),
    ("twophase", 6),
    ("coordinator", 6),
    ("reshard", 6),
    ("sequences", 6),
    ("session", 7),
    ("sharded", 8),
    ("admin", 8),
    ("http", 7),
    ("demo", 7),
    ("inspection", 7),
    ("app", 9),
];
/// Uses within a layer: the console serves what a session has logged in, and settings say where rows live.
const NEIGHBOURS: &[(&str, &str)] = &[("admin", "session"), ("config", "shard")];
/// Roots that may use everything.
const TOPS: &[&str] = &["main", "lib"];
const FILE_LINES_MAX: usize = 450;
const FILE_LINES_WITH_TESTS_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 90;
const BANNED_MODULES: &[&str] = &["mod", "util", "utils", "helper", "helpers", "common", "misc"];
/// Written in two parts, so that this file does not break its own rules.
const BANNED_WORDS: &[(&str, &str)] = &[
    (concat!("tod", "o!"), "unfinished"),
    (concat!("unimpl", "emented!"), "unfinished"),
    (concat!("TO", "DO"), "unfinished"),
    (concat!("FIX", "ME"), "unfinished"),
    (concat!("unbounded_", "channel"), "a queue without a limit"),
    (concat!("channel::", "unbounded"), "a queue without a limit"),
    (concat!("static ", "mut "), "a mutable static"),
];
/// In the library only: `std::sync::mpsc::channel` has no limit either.
const BANNED_IN_SOURCES: &[(&str, &str)] = &[
    (concat!(".unw", "rap()"), "unwrap outside tests"),
    (concat!(".exp", "ect("), "expect outside tests"),
    (concat!("mpsc::chan", "nel()"), "a queue without a limit"),
];

/// A file, with a second text in which comments and strings are blank: rules about code look at that one.
struct Source {
    path: PathBuf,
    lines: Vec<String>,
    code: Vec<String>,
    /// Lines before the first `#[cfg(test)] mod`.
    without_tests: usize,
}

impl Source {
    fn new(path: PathBuf, text: &str) -> Source {
        let blanked = blank(text);
        let code: Vec<String> = blanked.lines().map(str::to_owned).collect();
        let test_module = (0..code.len()).find(|&index| {
            code[index].trim() == "#[cfg(test)]"
                && code[index + 1..].iter().find(|line| !line.trim().starts_with("#[")).is_some_and(|line| is_module(line))
        });
        let without_tests = test_module.unwrap_or(code.len());
        Source { path, lines: text.lines().map(str::to_owned).collect(), code, without_tests }
    }

    fn stem(&self) -> &str {
        self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
    }

    /// Whether all of it is test code: below `tests`, the file of a `#[cfg(test)] mod tests;`, or one that says so itself.
    fn is_test(&self) -> bool {
        self.code.iter().any(|line| line.trim() == "#![cfg(test)]")
            || self.path.starts_with("tests")
            || self.stem() == "tests"
            || self.path.iter().any(|part| part == "tests")
    }

    fn at(&self, index: usize) -> String {
        format!("{}:{}", self.path.display(), index + 1)
    }
}

fn is_module(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("mod ") || line.starts_with("pub mod ") || line.starts_with("pub(crate) mod ")
}

/// Replaces what stands in comments, strings and character literals by spaces; lines and columns stay.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The end of the comment or literal that begins here, or `at` itself.
fn skip(chars: &[char], at: usize) -> usize {
    let starts = |text: &str| text.chars().enumerate().all(|(index, c)| chars.get(at + index) == Some(&c));
    let find = |from: usize, what: &[char]| {
        (from..chars.len()).find(|&index| chars[index..].starts_with(what)).map_or(chars.len(), |index| index + what.len())
    };
    let inside_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    if starts("//") {
        return (at..chars.len()).find(|&index| chars[index] == '\n').unwrap_or(chars.len());
    }
    if starts("/*") {
        return find(at + 2, &['*', '/']);
    }
    if chars[at] == '"' {
        return string_end(chars, at + 1);
    }
    if !inside_word && (starts("r\"") || starts("r#") || starts("br\"") || starts("br#")) {
        let hashes_at = at + if chars[at] == 'b' { 2 } else { 1 };
        let hashes = chars[hashes_at..].iter().take_while(|c| **c == '#').count();
        if chars.get(hashes_at + hashes) == Some(&'"') {
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            return find(hashes_at + hashes + 1, &close);
        }
    }
    if chars[at] == '\'' {
        // A lifetime has no closing quote two characters on.
        if chars.get(at + 1) == Some(&'\\') {
            return find(at + 3, &['\'']);
        }
        if chars.get(at + 2) == Some(&'\'') {
            return at + 3;
        }
    }
    at
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["src", "tests", "benches", "examples", "fuzz"] {
        collect(root, &root.join(folder), &mut found);
    }
    found.sort_by(|one: &Source, two| one.path.cmp(&two.path));
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("node_modules") && !path.ends_with("target") {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push(Source::new(path.strip_prefix(root).unwrap().to_owned(), &text));
        }
    }
}

/// The top module that a file under `src` belongs to.
fn top_module(path: &Path) -> Option<&str> {
    let first = path.strip_prefix("src").ok()?.iter().next()?.to_str()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// The top modules named behind `crate::` in a line, also in braces.
fn crate_modules(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (index, _) in line.match_indices("crate::") {
        let before = line[..index].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &line[index + "crate::".len()..];
        let word = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut begin = true;
            for (offset, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => begin = true,
                    _ if begin && !c.is_whitespace() => {
                        let name = &group[offset..];
                        found.push(&name[..word(name)]);
                        begin = false;
                    }
                    _ => {}
                }
            }
        } else {
            found.push(&rest[..word(rest)]);
        }
    }
    found
}

fn check_layers(source: &Source, violations: &mut Vec<String>) {
    let Some(module) = top_module(&source.path) else { return };
    if TOPS.contains(&module) {
        return;
    }
    let Some(own) = layer(module) else {
        violations
            .push(format!("{}: the module `{module}` has no layer; give it one in tests/tidy.rs and src/lib.rs", source.at(0)));
        return;
    };
    for (index, used, theirs) in uses(source, source.code.len()) {
        if used != module && theirs >= own && !NEIGHBOURS.contains(&(module, used.as_str())) {
            let at = source.at(index);
            violations.push(format!(
                "{at}: `{module}` (layer {own}) uses `{used}` (layer {theirs}): only lower layers may be imported"
            ));
        }
    }
}

/// Every top module used: line index, name, layer. A `use crate::{` may go over several lines.
fn uses(source: &Source, lines: usize) -> Vec<(usize, String, u8)> {
    let mut found = Vec::new();
    let mut index = 0;
    while index < lines {
        let mut statement = source.code[index].clone();
        let begin = index;
        while statement.contains("crate::{") && !statement.contains(';') && index + 1 < lines {
            index += 1;
            statement.push_str(&source.code[index]);
        }
        for name in crate_modules(&statement) {
            if let Some(layer) = layer(name) {
                found.push((begin, name.to_owned(), layer));
            }
        }
        index += 1;
    }
    found
}

fn check_size(source: &Source, violations: &mut Vec<String>) {
    let (all, plain) = (source.lines.len(), source.without_tests);
    if !source.is_test() && (plain > FILE_LINES_MAX || all > FILE_LINES_WITH_TESTS_MAX) {
        violations.push(format!(
            "{}: {plain} lines without tests, {all} with; the limits are {FILE_LINES_MAX} and {FILE_LINES_WITH_TESTS_MAX}",
            source.at(0)
        ));
    }
    if source.is_test() && all > FILE_LINES_WITH_TESTS_MAX {
        violations.push(format!("{}: {all} lines; the limit is {FILE_LINES_WITH_TESTS_MAX}", source.at(0)));
    }
    for (index, name, lines) in functions(source) {
        // A test's table may be as long as it needs to be.
        if lines > FUNCTION_LINES_MAX && !source.is_test() {
            violations.push(format!("{}: `{name}` has {lines} lines; the limit is {FUNCTION_LINES_MAX}", source.at(index)));
        }
    }
}

/// Functions with a body: line index, name, lines.
fn functions(source: &Source) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (index, line) in source.code.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let mut depth = 0_usize;
        'body: for (offset, line) in source.code[index..].iter().enumerate() {
            for c in line.chars() {
                match c {
                    ';' if depth == 0 => break 'body,
                    '{' => depth += 1,
                    '}' if depth == 1 => {
                        found.push((index, name.to_owned(), offset + 1));
                        break 'body;
                    }
                    '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("fn ")?;
    let modifiers = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern"];
    let declared = before.split_whitespace().all(|word| modifiers.contains(&word) || word.starts_with("pub(in"));
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    (declared && end > 0).then(|| &rest[..end])
}

fn check_names(sources: &[Source], violations: &mut Vec<String>) {
    let mut types: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for source in sources {
        if BANNED_MODULES.contains(&source.stem()) {
            violations.push(format!("{}: a module called `{}` says nothing of what is in it", source.at(0), source.stem()));
        }
        if source.is_test() {
            continue;
        }
        for (index, line) in source.code[..source.without_tests].iter().enumerate() {
            if let Some(name) = public_type(line) {
                types.entry(name).or_default().push(source.at(index));
            }
        }
    }
    for (name, places) in types.iter().filter(|(_, places)| places.len() > 1) {
        violations.push(format!("{}: the public type `{name}` exists {} times: {}", places[0], places.len(), places.join(", ")));
    }
}

fn public_type(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
    let rest = ["struct ", "enum ", "trait ", "union ", "type "].iter().find_map(|keyword| rest.strip_prefix(keyword))?;
    // Associated types are indented, and are not items of their own.
    let is_item = !line.starts_with(' ') || !line.trim_start().starts_with("pub type");
    is_item.then(|| &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())])
}

fn check_words(source: &Source, violations: &mut Vec<String>) {
    for (index, (code, line)) in source.code.iter().zip(&source.lines).enumerate() {
        // An unfinished thing is mostly said in a comment.
        for (word, why) in
            BANNED_WORDS.iter().filter(|(word, _)| code.contains(word) || (line.contains(word) && is_comment(line)))
        {
            violations.push(format!("{}: `{word}`: {why}", source.at(index)));
        }
        if source.is_test() || index >= source.without_tests {
            continue;
        }
        for (word, why) in BANNED_IN_SOURCES.iter().filter(|(word, _)| code.contains(word)) {
            violations.push(format!("{}: `{word}`: {why}", source.at(index)));
        }
    }
}

fn is_comment(line: &str) -> bool {
    line.contains("//")
}

#[test]
fn the_house_is_tidy() {
    let sources = sources();
    assert!(sources.iter().any(|source| source.path.ends_with("src/lib.rs")), "the sources are found");
    let mut violations = Vec::new();
    for source in &sources {
        check_layers(source, &mut violations);
        check_size(source, &mut violations);
        check_words(source, &mut violations);
    }
    check_names(&sources, &mut violations);
    let mut report = String::new();
    violations.iter().for_each(|violation| writeln!(report, "{violation}").unwrap());
    assert!(violations.is_empty(), "{} violations of the house rules:\n{report}", violations.len());
}

/// The table of layers is written in `src/lib.rs` too, for readers.
#[test]
fn every_module_of_the_library_has_a_layer() {
    let lib = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    for module in lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')) {
        let layer = layer(module).unwrap_or_else(|| panic!("src/lib.rs: `{module}` has no layer"));
        let row =
            lib.lines().find(|line| line.starts_with(&format!("//! | {layer} |")) && line.contains(&format!("[`{module}`]")));
        assert!(row.is_some(), "src/lib.rs: the table does not show `{module}` in layer {layer}");
    }
}

/// The rules find what they are there to find.
#[test]
fn each_rule_finds_its_violation() {
    let check = |path: &str, text: &str, expect: Option<&str>| {
        let sources = [Source::new(PathBuf::from(path), text)];
        let mut violations = Vec::new();
        check_layers(&sources[0], &mut violations);
        check_size(&sources[0], &mut violations);
        check_words(&sources[0], &mut violations);
        check_names(&sources, &mut violations);
        match expect {
            None => assert_eq!(violations, Vec::<String>::new(), "{path}: {text}"),
            Some(part) => assert!(violations.iter().any(|violation| violation.contains(part)), "{path}: {text}: {violations:?}"),
        }
    };
    check("src/wire.rs", "use crate::types::Lsn;", None);
    check("src/wire/parse.rs", "use crate::wire::x;\n// use crate::session::y;\nconst S: &str = \"crate::app::z\";", None);
    check(
        "src/wire/parse.rs",
        "\nuse crate::session::Session;",
        Some("src/wire/parse.rs:2: `wire` (layer 1) uses `session` (layer 7)"),
    );
    check("src/admin.rs", "use crate::session::ConsoleClient;", None);
    check("src/session.rs", "use crate::admin::Console;", Some("uses `admin`"));
    check("src/wire.rs", "use crate::{types::Lsn, pool::{a, b}};", Some("uses `pool`"));
    check("src/wire.rs", "use crate::{\n    types::Lsn,\n    pool::Pool,\n};", Some("uses `pool`"));
    check("src/wire.rs", "fn f() -> crate::sql::Facts { g() }", Some("uses `sql`"));
    check("src/attic.rs", "", Some("has no layer"));
    check("src/wire.rs", &"\n".repeat(451), Some("451 lines"));
    check("src/wire.rs", &format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(400), "\n".repeat(150)), None);
    check("src/wire.rs", &format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(600)), Some("603 with"));
    check("src/wire.rs", &format!("fn long() {{\n{}}}\n", "    x();\n".repeat(90)), Some("`long` has 92 lines"));
    check("src/wire.rs", &format!("pub fn f(a: [u8; 3]) {{\n    '{{';\n}}\n{}", "x();\n".repeat(90)), None);
    check("src/wire/mod.rs", "", Some("a module called `mod`"));
    check("src/wire/helper.rs", "", Some("a module called `helper`"));
    check("src/wire.rs", "pub struct Same;\npub enum Same {}", Some("`Same` exists 2 times"));
    check("src/wire.rs", "impl T for S {\n    type Item = u8;\n}\npub struct Other<'a>(&'a str);", None);
    check("src/wire.rs", "fn f() { x.unwrap_or(1); }", None);
    check("src/wire.rs", concat!("fn f() { x.unw", "rap(); }"), Some("src/wire.rs:1: `.unw"));
    check("src/wire.rs", concat!("fn f() { x.exp", "ect(\"y\"); }"), Some("outside tests"));
    check("src/wire.rs", concat!("#[cfg(test)]\nmod tests {\n fn f() { x.unw", "rap(); }\n}"), None);
    check("src/wire.rs", concat!("// TO", "DO later"), Some("unfinished"));
    check("src/wire.rs", concat!("fn f() { unbounded_", "channel(); }"), Some("without a limit"));
    check("src/wire.rs", concat!("static ", "mut X: u8 = 0;"), Some("mutable static"));
    check("src/wire.rs", concat!("const S: &str = r#\"x.unw", "rap() \" \"#; // '\"'"), None);
}
