//! Walks the parsed file and collects problems with their places. Nothing here knows what the settings mean.
//!
//! The walk goes over toml's own tree with spans rather than through derived deserialisation, which ends at the first problem.

use crate::config::codec::{Complaint, RawValue};
use crate::config::environment::{Environment, fill_in, is_variable};
use crate::config::keys::Key;
use crate::config::problem::{Problem, ProblemKind, ProblemPlace, Severity, locate};
use crate::config::secrets::{FilePolicy, SecretFile, check_file, read_secret};
use crate::types::Secret;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Bytes of the file.
pub(in crate::config) type Span = Range<usize>;

/// Where each key was written that has a say in a section.
pub(in crate::config) type Origins = HashMap<&'static str, Span>;

/// What the file is read with, and what was found so far.
pub(in crate::config) struct Reader<'a> {
    /// The file's text.
    pub(in crate::config) text: &'a str,
    /// Its name.
    pub(in crate::config) name: &'a str,
    /// Environment variables.
    pub(in crate::config) environment: &'a Environment<'a>,
    /// Whether files that are named may be looked at.
    pub(in crate::config) files: FilePolicy,
    /// What relative paths are relative to.
    pub(in crate::config) folder: &'a Path,
    /// Whether every user of the machine can read the file itself.
    pub(in crate::config) readable_by_others: bool,
    /// A literal password of the file, if there is one.
    pub(in crate::config) literal_secret: Option<Span>,
    found: Vec<(Span, Problem)>,
    secrets: Vec<Span>,
}

/// A text that is something else altogether has a problem in every line; the first ones say so.
const MOST_PROBLEMS: usize = 100;

/// A table of the file with what it is called in messages.
#[derive(Clone, Copy)]
pub(in crate::config) struct Section<'t, 'i> {
    /// The table.
    pub(in crate::config) table: &'t DeTable<'i>,
    /// Such as `[databases.app]`, or empty for the top of the file.
    pub(in crate::config) title: &'t str,
}

impl<'t, 'i> Section<'t, 'i> {
    /// The value of a key.
    pub(in crate::config) fn get(&self, key: &str) -> Option<&'t Spanned<DeValue<'i>>> {
        self.table.get(key)
    }

    /// Where a key is written, if it is.
    pub(in crate::config) fn key_span(&self, key: &str) -> Option<Span> {
        self.table.get_key_value(key).map(|(key, _)| key.span())
    }

    /// Keys and values in the order of the file.
    pub(in crate::config) fn entries(&self) -> Vec<(&'t str, Span, &'t Spanned<DeValue<'i>>)> {
        let mut entries: Vec<_> = self.table.iter().map(|(key, value)| (key.get_ref().as_ref(), key.span(), value)).collect();
        entries.sort_by_key(|(_, span, _)| span.start);
        entries
    }
}

impl<'a> Reader<'a> {
    /// A reader of `text`.
    pub(in crate::config) fn new(text: &'a str, name: &'a str, environment: &'a Environment<'a>) -> Self {
        let secrets = crate::config::secrets::guess(text);
        let files = FilePolicy::Assume;
        let folder = Path::new("");
        Reader {
            text,
            name,
            environment,
            files,
            folder,
            readable_by_others: false,
            literal_secret: None,
            found: Vec::new(),
            secrets,
        }
    }

    /// Notes an error.
    pub(in crate::config) fn error(&mut self, kind: ProblemKind, span: Span, complaint: Complaint) {
        self.note(Severity::Error, kind, span, complaint);
    }

    /// Notes a warning.
    pub(in crate::config) fn warn(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.note(Severity::Warning, ProblemKind::Risk, span, Complaint::new(message, help));
    }

    /// Notes an error unless it is `Ok`.
    pub(in crate::config) fn accept<T>(&mut self, kind: ProblemKind, span: &Span, result: Result<T, Complaint>) -> Option<T> {
        result.map_err(|complaint| self.error(kind, span.clone(), complaint)).ok()
    }

    fn note(&mut self, severity: Severity, kind: ProblemKind, span: Span, complaint: Complaint) {
        let place = ProblemPlace::File { name: self.name.to_owned(), spot: None };
        let help = Some(complaint.help).filter(|help| !help.is_empty());
        self.found.push((span, Problem { severity, kind, place, message: complaint.message, help }));
    }

    /// Everything found, in the order of the file, each with its line. Lines are cut out only now, when all secrets are known.
    pub(in crate::config) fn into_problems(mut self) -> Vec<Problem> {
        if let Some(span) = self.literal_secret.clone().filter(|_| self.readable_by_others) {
            let message = "this password can be read by every user of this machine";
            self.warn(
                span,
                message,
                format!("chmod 600 {}, or take the password from \"${{NAME}}\" or a password_file", self.name),
            );
        }
        let secrets = merge(self.secrets);
        let mut found = self.found;
        if found.len() > MOST_PROBLEMS {
            found.retain(|(_, problem)| problem.severity == Severity::Error);
        }
        found.sort_by_key(|(span, _)| span.start);
        found.truncate(MOST_PROBLEMS);
        let located = found.into_iter().map(|(span, mut problem)| {
            let spot = (!span.is_empty()).then(|| locate(self.text, span, &secrets));
            problem.place = ProblemPlace::File { name: self.name.to_owned(), spot };
            problem
        });
        let mut problems: Vec<Problem> = Vec::new();
        for problem in located {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        problems
    }

    /// Whether an error was found.
    pub(in crate::config) fn has_errors(&self) -> bool {
        self.found.iter().any(|(_, problem)| problem.severity == Severity::Error)
    }

    /// Whether an error was found in one of these places.
    pub(in crate::config) fn has_errors_in(&self, places: &[Span]) -> bool {
        let inside = |span: &Span| places.iter().any(|place| place.start <= span.start && span.end <= place.end);
        self.found.iter().any(|(span, problem)| problem.severity == Severity::Error && inside(span))
    }

    /// Drops what the rest of the walk says of lines that are not TOML, and what may only be missing because of them.
    pub(in crate::config) fn keep_independent_of(&mut self, broken: &[Span]) {
        let lines: Vec<usize> = broken.iter().map(|span| line_of(self.text, span.start)).collect();
        let text = self.text;
        self.found.retain(|(span, problem)| match problem.kind {
            ProblemKind::Syntax => true,
            ProblemKind::UnknownKey | ProblemKind::BadValue => !lines.contains(&line_of(text, span.start)),
            _ => false,
        });
    }

    /// A value with its variables filled in; `None` (and noted) where one is not set.
    pub(in crate::config) fn raw(&mut self, value: &Spanned<DeValue>) -> Option<RawValue> {
        Some(match value.get_ref() {
            DeValue::String(text) => {
                let filled = fill_in(text, self.environment);
                RawValue::Text(self.accept(ProblemKind::Variable, &value.span(), filled)?)
            }
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => RawValue::Integer(number),
                Err(_) => RawValue::Other("a number of this size"),
            },
            DeValue::Float(number) => RawValue::Float(number.as_str().to_owned()),
            DeValue::Boolean(value) => RawValue::Boolean(*value),
            DeValue::Datetime(_) => RawValue::Other("a date"),
            DeValue::Table(_) => RawValue::Other("a table"),
            DeValue::Array(values) => RawValue::List(values.iter().map(|value| self.raw(value)).collect::<Option<Vec<_>>>()?),
        })
    }

    /// Reads those of `keys` that the section has into `settings`, and notes in `origins` where they stand.
    pub(in crate::config) fn read_keys<S>(&mut self, section: Section, keys: &[Key<S>], settings: &mut S, origins: &mut Origins) {
        for key in keys {
            let Some(value) = section.get(key.name) else { continue };
            let Some(raw) = self.raw(value) else { continue };
            let result = (key.read)(settings, &raw)
                .map_err(|complaint| Complaint { message: format!("{}: {}", key.name, complaint.message), ..complaint });
            if self.accept(ProblemKind::BadValue, &value.span(), result).is_some() {
                origins.insert(key.name, value.span());
            }
        }
    }

    /// A text.
    pub(in crate::config) fn text_of(&mut self, section: Section, key: &str) -> Option<(String, Span)> {
        let value = section.get(key)?;
        match self.raw(value)? {
            RawValue::Text(text) if !text.is_empty() => Some((text, value.span())),
            other => {
                let message = match &other {
                    RawValue::Text(_) => format!("{key} is empty"),
                    other => format!("{key}: {} is not text", other.describe()),
                };
                self.error(ProblemKind::BadValue, value.span(), Complaint::new(message, format!("write {key} = \"...\"")));
                None
            }
        }
    }

    /// A path, made absolute by the file's folder, with where it stands.
    pub(in crate::config) fn path_of(&mut self, section: Section, key: &str) -> Option<(PathBuf, Span)> {
        self.text_of(section, key).map(|(text, span)| (self.folder.join(text), span))
    }

    /// The secret under `key`, or in the file under `file_key`.
    pub(in crate::config) fn secret_of(&mut self, section: Section, key: &str, file_key: &str) -> Option<Secret> {
        let file = self.path_of(section, file_key);
        if let Some(value) = section.get(key) {
            if file.is_some() {
                let span = section.key_span(file_key).unwrap_or(value.span());
                let complaint = Complaint::new(format!("both {key} and {file_key} are given"), "keep one of them");
                self.error(ProblemKind::Contradiction, span, complaint);
            }
            return self.secret_value(value, key);
        }
        let (path, span) = file?;
        let read = read_secret(&path, self.files);
        let SecretFile { secret, readable_by_others } = self.accept(ProblemKind::File, &span, read)?;
        if readable_by_others {
            let message = format!("the secret in {} can be read by every user of this machine", path.display());
            self.warn(span, message, format!("chmod 600 {}", path.display()));
        }
        Some(secret)
    }

    /// A value that is a secret: never shown.
    pub(in crate::config) fn secret_value(&mut self, value: &Spanned<DeValue>, key: &str) -> Option<Secret> {
        self.hide(value);
        let DeValue::String(text) = value.get_ref() else {
            let complaint =
                Complaint::new(format!("{key} is not text"), "write it in quotes, or take it from the environment: \"${NAME}\"");
            self.error(ProblemKind::BadValue, value.span(), complaint);
            return None;
        };
        let filled = fill_in(text, self.environment);
        let filled = self.accept(ProblemKind::Variable, &value.span(), filled)?;
        if filled.is_empty() {
            let complaint = Complaint::new(format!("{key} is empty"), "leave the key out if there is no password");
            self.error(ProblemKind::BadValue, value.span(), complaint);
            return None;
        }
        Some(Secret::new(filled))
    }

    /// Masks a value wherever its line is shown.
    pub(in crate::config) fn hide(&mut self, value: &Spanned<DeValue>) {
        let span = value.span();
        let literal = value.get_ref().as_str().is_none_or(|text| !is_variable(text));
        if literal && span.len() > 2 {
            self.secrets.push(span.start + 1..span.end - 1);
            self.literal_secret.get_or_insert(span);
        }
    }

    /// Whether a part of the text holds something that must not be shown.
    pub(in crate::config) fn shows_secret(&self, span: Span) -> bool {
        self.secrets.iter().any(|secret| secret.start < span.end && span.start < secret.end)
    }

    /// Notes a file that is missing or is not what it should be.
    pub(in crate::config) fn check_file(&mut self, path: &Path, span: Span, expect: crate::config::secrets::PemContent) {
        match check_file(path, expect, self.files) {
            Ok(None) => {}
            Ok(Some(remark)) => self.warn(span, remark.message, remark.help),
            Err(complaint) => self.error(ProblemKind::File, span, complaint),
        }
    }

    /// A number that is another one when the content of one of the files is.
    pub(in crate::config) fn content_of<'p>(&self, files: impl Iterator<Item = &'p PathBuf>) -> u64 {
        crate::config::secrets::content_of(files, self.files)
    }

    /// The table that is the value of `key`, or a note that it should be one.
    pub(in crate::config) fn table_of<'t, 'i>(
        &mut self,
        value: &'t Spanned<DeValue<'i>>,
        title: &str,
    ) -> Option<&'t DeTable<'i>> {
        if let DeValue::Table(table) = value.get_ref() {
            return Some(table);
        }
        let complaint =
            Complaint::new(format!("{title} has to be a section"), format!("write a line {title} and its keys below it"));
        self.error(ProblemKind::BadValue, value.span(), complaint);
        None
    }
}

/// Joins ranges that overlap, so that each is masked once.
fn merge(mut ranges: Vec<Span>) -> Vec<Span> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Span> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}
