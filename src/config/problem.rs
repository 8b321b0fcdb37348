//! What is wrong with a configuration, told as a compiler tells it: place, what is wrong, the line, what would be right.
//!
//! Secrets never appear: where a line of the file is shown, they are replaced by `***`.

use std::fmt;
use std::ops::Range;

/// Whether pgyard can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// pgyard refuses to start (at a reload: keeps the old settings).
    Error,
    /// pgyard starts; somebody should look.
    Warning,
}

/// What sort of problem it is, for programs that look at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The text is not TOML.
    Syntax,
    /// A key that means nothing.
    UnknownKey,
    /// A key that has to be there and is not.
    MissingKey,
    /// A value that cannot be used.
    BadValue,
    /// Values that exclude each other.
    Contradiction,
    /// A file that is missing, unreadable or not what it should be.
    File,
    /// An environment variable that is not set.
    Variable,
    /// Legal, but dangerous or without effect.
    Risk,
}

/// Where a problem is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProblemPlace {
    /// In a file, or of the file as a whole.
    File {
        /// The file as it was named.
        name: String,
        /// The spot, unless the file as a whole is meant.
        spot: Option<ProblemSpot>,
    },
    /// In an option of the command line, named as it is written there.
    Argument(String),
}

/// A spot in a file, with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProblemSpot {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// The line with its secrets masked, tabs as spaces.
    pub excerpt: String,
    /// What to underline in the excerpt, in characters.
    pub underline: Range<usize>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// Its sort.
    pub kind: ProblemKind,
    /// Where.
    pub place: ProblemPlace,
    /// What is wrong, one line, lower case.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

/// Everything that was found wrong; at least one error. Its `Display` is the listing for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigReport {
    /// Errors and warnings in the order of the file.
    pub problems: Vec<Problem>,
}

impl Problem {
    /// The problem on one line, for a log.
    pub fn summary(&self) -> String {
        match &self.help {
            Some(help) => format!("{}: {} ({help})", self.place, self.message),
            None => format!("{}: {}", self.place, self.message),
        }
    }
}

impl ConfigReport {
    /// How many errors there are.
    pub fn error_count(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count()
    }
}

impl std::error::Error for ConfigReport {}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

impl fmt::Display for ProblemPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProblemPlace::File { name, spot: Some(spot) } => write!(f, "{name}:{}:{}", spot.line, spot.column),
            ProblemPlace::File { name, spot: None } => f.write_str(name),
            ProblemPlace::Argument(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.severity, self.message)?;
        let mut margin = String::from(" ");
        if let ProblemPlace::File { spot: Some(spot), .. } = &self.place {
            let number = spot.line.to_string();
            margin = " ".repeat(number.len() + 1);
            let indent = " ".repeat(spot.underline.start);
            let carets = "^".repeat(spot.underline.len().max(1));
            write!(f, "\n{margin}|\n{number} | {}\n{margin}| {indent}{carets}", spot.excerpt)?;
        }
        match &self.help {
            Some(help) => write!(f, "\n{margin}= help: {}", help.replace('\n', &format!("\n{margin}        "))),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ConfigReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            write!(f, "{problem}\n\n")?;
        }
        let errors = self.error_count();
        let warnings = self.problems.len() - errors;
        write!(f, "{errors} error{}", if errors == 1 { "" } else { "s" })?;
        match warnings {
            0 => Ok(()),
            1 => write!(f, ", 1 warning"),
            _ => write!(f, ", {warnings} warnings"),
        }
    }
}

/// The spot of the byte range `span` in `text`, its line shown with the byte ranges `secrets` masked.
pub(super) fn locate(text: &str, span: Range<usize>, secrets: &[Range<usize>]) -> ProblemSpot {
    let start = floor_boundary(text, span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let line = text[line_start..line_end].trim_end_matches('\r');
    // A spot in the line's end is shown behind its last character.
    let start = start.min(line_start + line.len());
    let end = span.end.clamp(start, line_start + line.len());
    let mut excerpt = String::new();
    let mut length = 0;
    let mut underline = 0..0;
    for (offset, character) in line.char_indices() {
        let at = line_start + offset;
        if at <= start {
            underline.start = length;
        }
        let masked = secrets.iter().find(|secret| secret.contains(&at));
        match masked {
            // A masked range is shown once, at its beginning (or at the beginning of the line), whatever its length.
            Some(secret) if at == secret.start.max(line_start) => {
                excerpt.push_str("***");
                length += 3;
            }
            Some(_) => {}
            None => {
                excerpt.push(if character.is_control() { ' ' } else { character });
                length += 1;
            }
        }
        if at < end {
            underline.end = length;
        }
    }
    if start >= line_start + line.len() {
        underline = length..length + 1;
    }
    underline.end = underline.end.max(underline.start + 1);
    let line_number = text[..line_start].matches('\n').count() + 1;
    let column = text[line_start..start].chars().count() + 1;
    ProblemSpot { line: line_number, column, excerpt, underline }
}

/// The last character boundary at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str, span: Range<usize>, secrets: &[Range<usize>]) -> (usize, usize, String, Range<usize>) {
        let spot = locate(text, span, secrets);
        (spot.line, spot.column, spot.excerpt, spot.underline)
    }

    #[test]
    fn finds_lines_and_columns() {
        assert_eq!(shown("a = 1\nbcd = 2", 6..9, &[]), (2, 1, "bcd = 2".into(), 0..3));
        assert_eq!(shown("ä = 1\r\nb", 5..6, &[]), (1, 5, "ä = 1".into(), 4..5));
        assert_eq!(shown("", 0..0, &[]), (1, 1, String::new(), 0..1));
        assert_eq!(shown("a =\n", 3..4, &[]), (1, 4, "a =".into(), 3..4));
        assert_eq!(shown("[a\nb]", 0..5, &[]), (1, 1, "[a".into(), 0..2));
        assert_eq!(shown("\r", 1..1, &[]), (1, 1, String::new(), 0..1));
        assert_eq!(shown("a", 90..95, &[]), (1, 2, "a".into(), 1..2));
    }

    #[test]
    fn masks_secrets_and_keeps_the_underline() {
        let masks = vec![5..12; 1];
        assert_eq!(shown("p = \"hunter2\" x", 4..13, &masks), (1, 5, "p = \"***\" x".into(), 4..9));
        assert_eq!(shown("p = \"hunter2\" x", 14..15, &masks), (1, 15, "p = \"***\" x".into(), 10..11));
        assert_eq!(shown("p = \"hunter2\" x", 5..12, &masks), (1, 6, "p = \"***\" x".into(), 5..8));
    }

    #[test]
    fn prints_as_a_compiler_does() {
        let spot = locate("max_lagg = 1", 0..8, &[]);
        let problem = Problem {
            severity: Severity::Error,
            kind: ProblemKind::UnknownKey,
            place: ProblemPlace::File { name: "pgyard.toml".into(), spot: Some(spot) },
            message: "unknown key `max_lagg`".into(),
            help: Some("did you mean `max_lag`?".into()),
        };
        let expect = "pgyard.toml:1:1: error: unknown key `max_lagg`\n  |\n1 | max_lagg = 1\n  | ^^^^^^^^\n  = help: did you mean `max_lag`?";
        assert_eq!(problem.to_string(), expect);
        assert_eq!(problem.summary(), "pgyard.toml:1:1: unknown key `max_lagg` (did you mean `max_lag`?)");
        let report = ConfigReport { problems: vec![problem.clone(), Problem { severity: Severity::Warning, ..problem }] };
        assert!(report.to_string().ends_with("\n\n1 error, 1 warning"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a\u{e4}\u{1F600} \n\r\"=]{0,30}", start in 0usize..200, length in 0usize..50, mask in 0usize..20) {
            let _ = locate(&text, start..start + length, std::slice::from_ref(&(mask..mask + 5)));
        }
    }
}
