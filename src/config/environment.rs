//! `${NAME}` and `${NAME:-default}` in the strings of the file.

use super::codec::Complaint;

/// Looks up an environment variable.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// A text whose variables stand as placeholders, so that it can be taken apart without looking into their values: a password
/// with `@` or `/` in it cannot change what a URL means.
pub(super) struct Sealed {
    /// The text with a placeholder for each variable.
    pub(super) text: String,
    values: Vec<String>,
}

/// Placeholders are characters of a private-use plane, one for each variable of a text.
const FIRST_PLACEHOLDER: u32 = 0xF_0000;
const MOST_VARIABLES: usize = 1000;

impl Sealed {
    /// Finds the variables of `text` and looks them up.
    pub(super) fn new(text: &str, environment: &Environment) -> Result<Sealed, Complaint> {
        let mut sealed = Sealed { text: String::new(), values: Vec::new() };
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let before = &rest[..start];
            if let Some(literal) = before.strip_suffix('$') {
                // `$${` is a literal `${`.
                sealed.text.push_str(literal);
                sealed.text.push_str("${");
                rest = &rest[start + 2..];
                continue;
            }
            sealed.text.push_str(before);
            let inner = &rest[start + 2..];
            let Some(end) = inner.find('}') else {
                return Err(Complaint::new(
                    "`${` is never closed",
                    "write \"${NAME}\" or \"${NAME:-default}\"; a literal ${ is $${",
                ));
            };
            let value = look_up(&inner[..end], environment)?;
            sealed.text.extend(u32::try_from(sealed.values.len()).ok().and_then(|at| char::from_u32(FIRST_PLACEHOLDER + at)));
            sealed.values.push(value);
            if sealed.values.len() > MOST_VARIABLES {
                return Err(Complaint::new("there are too many variables in one text", "a text may use 1000"));
            }
            rest = &inner[end + 1..];
        }
        sealed.text.push_str(rest);
        Ok(sealed)
    }

    /// Puts the values into a part of the text.
    pub(super) fn open(&self, part: &str) -> String {
        if self.values.is_empty() {
            return part.to_owned();
        }
        let mut opened = String::new();
        for character in part.chars() {
            let at = (character as u32).checked_sub(FIRST_PLACEHOLDER).map(|at| at as usize);
            match at.and_then(|at| self.values.get(at)) {
                Some(value) => opened.push_str(value),
                None => opened.push(character),
            }
        }
        opened
    }

    /// The whole value, where the text is one variable and nothing else.
    pub(super) fn only_variable(&self) -> Option<&str> {
        match self.values.as_slice() {
            [value] if self.text.chars().count() == 1 => Some(value),
            _ => None,
        }
    }
}

/// `text` with its variables filled in.
pub(super) fn fill_in(text: &str, environment: &Environment) -> Result<String, Complaint> {
    let sealed = Sealed::new(text, environment)?;
    Ok(sealed.open(&sealed.text))
}

/// Whether `text` is `${NAME}` and nothing else, so that showing it shows no secret.
pub(super) fn is_variable(text: &str) -> bool {
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(is_name)
}

fn look_up(variable: &str, environment: &Environment) -> Result<String, Complaint> {
    let (name, default) = match variable.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (variable, None),
    };
    if !is_name(name) {
        return Err(Complaint::new(
            "`${` is not followed by the name of an environment variable",
            "write \"${NAME}\" or \"${NAME:-default}\"; a literal ${ is $${",
        ));
    }
    // As in a shell, `:-` also stands in for a variable that is set to nothing.
    let value = environment(name).filter(|value| default.is_none() || !value.is_empty());
    value.or(default.map(str::to_owned)).ok_or_else(|| {
        let help = format!("set it before pgyard starts, or give a default: \"${{{name}:-value}}\"");
        Complaint::new(format!("the environment variable `{name}` is not set"), help)
    })
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_') && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn check(text: &str, expect: Result<&str, &str>) {
        let got = fill_in(text, &environment).map_err(|complaint| complaint.message);
        assert_eq!(got.as_deref().map_err(String::as_str), expect, "{text}");
    }

    #[test]
    fn fills_in() {
        check("plain", Ok("plain"));
        check("${A}", Ok("one"));
        check("x${A}y${A}z", Ok("xoneyonez"));
        check("${B:-two}", Ok("two"));
        check("${EMPTY:-two}", Ok("two"));
        check("${EMPTY}", Ok(""));
        check("${B:-}", Ok(""));
        check("$A $1 $$", Ok("$A $1 $$"));
        check("$${A}", Ok("${A}"));
        check("SCRAM-SHA-256$4096:x$y:z", Ok("SCRAM-SHA-256$4096:x$y:z"));
        check("${B}", Err("the environment variable `B` is not set"));
        check("${A", Err("`${` is never closed"));
        check("${}", Err("`${` is not followed by the name of an environment variable"));
        check("${1A}", Err("`${` is not followed by the name of an environment variable"));
        assert!(fill_in(&"${A}".repeat(1200), &environment).is_err());
        assert!(is_variable("${PGPASSWORD}"));
        assert!(!is_variable("${PGPASSWORD:-secret}"));
        assert!(!is_variable("x"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[$\\{\\}:A\\-\u{F0000}\u{e4}]{0,30}") {
            let _ = fill_in(&text, &environment);
        }
    }
}
