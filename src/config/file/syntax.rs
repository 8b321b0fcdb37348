//! Texts that are not TOML: what the parser says, and what people usually meant.

use super::reader::{Reader, Span};
use crate::config::codec::Complaint;
use crate::config::problem::ProblemKind;

/// Notes an error of the parser and says where it is.
pub(super) fn note(reader: &mut Reader, error: &toml::de::Error) -> Span {
    let end = reader.text.len();
    let span = error.span().unwrap_or(0..end.min(1));
    // An error at the end of the text still has to point somewhere.
    let start = span.start.min(end.saturating_sub(1));
    let span = start..span.end.clamp(start + 1, end.max(start + 1));
    let line_start = reader.text.get(..start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let line = reader.text.get(line_start..).unwrap_or("").lines().next().unwrap_or("");
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    let secret = reader.shows_secret(line_start..line_start + line.len());
    reader.error(ProblemKind::Syntax, span.clone(), Complaint::new(message, help(line, secret)));
    span
}

/// What is right instead of a line, where its mistake is a common one; else empty. The value of a line with a secret is not repeated.
fn help(line: &str, secret: bool) -> String {
    let line = line.trim();
    if line.starts_with('[') && line.contains('*') && !line.contains("\"*\"") {
        return "the star needs quotes: [databases.\"*\"]".to_owned();
    }
    if line.starts_with(';') || line.starts_with("//") {
        return "a comment begins with #".to_owned();
    }
    let Some((key, value)) = line.split_once('=') else {
        if line.contains(": ") || line.ends_with(':') {
            return "this is TOML: write key = value, and [section] for what belongs together".to_owned();
        }
        return String::new();
    };
    let (key, value) = (key.trim(), value.split('#').next().unwrap_or("").trim());
    if value.is_empty() {
        return format!("write a value after {key} =");
    }
    for quote in ['"', '\''] {
        if value.starts_with(quote) && value.matches(quote).count() == 1 {
            return format!("the closing {quote} is missing");
        }
    }
    let bare = !value.starts_with(['"', '\'', '[', '{']) && !value.ends_with(['"', '\'']);
    if bare && !secret && value.len() < 60 {
        return match value {
            "True" | "False" | "TRUE" | "FALSE" => format!("write {key} = {}", value.to_ascii_lowercase()),
            _ => format!("text, durations and sizes need quotes: {key} = \"{value}\""),
        };
    }
    if bare {
        return format!("text needs quotes: {key} = \"...\"");
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helps_with_common_mistakes() {
        for (line, expect) in [
            ("max_lag = 1s", "text, durations and sizes need quotes: max_lag = \"1s\""),
            ("balance = random # x", "text, durations and sizes need quotes: balance = \"random\""),
            ("split = True", "write split = true"),
            ("password = hunter2", "text needs quotes: password = \"...\""),
            ("primary = postgres://u:p@h/d", "text needs quotes: primary = \"...\""),
            ("[databases.*]", "the star needs quotes: [databases.\"*\"]"),
            ("; comment", "a comment begins with #"),
            ("listen: x", "this is TOML: write key = value, and [section] for what belongs together"),
            ("max_lag =", "write a value after max_lag ="),
            ("max_lag = \"1s", "the closing \" is missing"),
            ("max_lag = \"1s\" x", ""),
            ("nonsense", ""),
        ] {
            let secret = line.contains("password") || line.contains("://");
            assert_eq!(help(line, secret), expect, "{line}");
        }
    }
}
