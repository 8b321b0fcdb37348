//! The console's texts cut into words: enough of SQL's lexical rules for its commands and for what drivers send.

/// One word of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// As written: a keyword, a number, a host's name or address.
    Bare(String),
    /// `"..."`.
    Quoted(String),
    /// `'...'` or `$$...$$`.
    Text(String),
    /// `(`, `)`, `,`, `=`, `*`.
    Symbol(char),
    /// `$1`.
    Parameter,
}

impl Word {
    /// A bare word in lower case; nothing else is a keyword.
    pub(super) fn keyword(&self) -> Option<String> {
        match self {
            Word::Bare(word) => Some(word.to_ascii_lowercase()),
            _ => None,
        }
    }

    /// Whether it is this keyword.
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Word::Bare(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// What it names, if it can name something.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Word::Bare(name) | Word::Quoted(name) | Word::Text(name) => Some(name),
            Word::Symbol(_) | Word::Parameter => None,
        }
    }
}

/// A quote or comment that does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unterminated {0}")]
pub(super) struct Unterminated(&'static str);

/// The statements of a text, each as its words; empty ones are left out.
pub(super) fn statements(text: &str) -> Result<Vec<Vec<Word>>, Unterminated> {
    let (mut all, mut words, mut rest) = (Vec::new(), Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() {
            rest = &rest[first.len_utf8()..];
        } else if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = after_comment(comment)?;
        } else if first == ';' {
            rest = &rest[1..];
            all.push(std::mem::take(&mut words));
        } else {
            let (word, after) = next_word(rest, first)?;
            words.push(word);
            rest = after;
        }
    }
    all.push(words);
    all.retain(|words| !words.is_empty());
    Ok(all)
}

/// Comments nest.
fn after_comment(mut rest: &str) -> Result<&str, Unterminated> {
    let mut depth = 1;
    while depth > 0 {
        let at = rest.find(['*', '/']).ok_or(Unterminated("/* comment"))?;
        rest = &rest[at..];
        let step = match rest.as_bytes() {
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            _ => 1,
        };
        rest = &rest[step..];
    }
    Ok(rest)
}

fn next_word(rest: &str, first: char) -> Result<(Word, &str), Unterminated> {
    match first {
        '\'' => quoted(&rest[1..], '\'').map(|(text, after)| (Word::Text(text), after)).ok_or(Unterminated("quoted string")),
        '"' => quoted(&rest[1..], '"').map(|(name, after)| (Word::Quoted(name), after)).ok_or(Unterminated("quoted identifier")),
        '(' | ')' | ',' | '=' | '*' => Ok((Word::Symbol(first), &rest[1..])),
        '$' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
            let end = rest[1..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| end + 1);
            Ok((Word::Parameter, &rest[end..]))
        }
        '$' => dollar_quoted(rest),
        _ => {
            let ends = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '(' | ')' | ',' | '=' | '*' | ';' | '$');
            let (word, after) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
            Ok((Word::Bare(word.to_owned()), after))
        }
    }
}

/// What stands up to the closing quote; a doubled one stands for itself.
fn quoted(rest: &str, quote: char) -> Option<(String, &str)> {
    let (mut text, mut rest) = (String::new(), rest);
    loop {
        let (part, after) = rest.split_once(quote)?;
        text.push_str(part);
        match after.strip_prefix(quote) {
            Some(more) => {
                text.push(quote);
                rest = more;
            }
            None => return Some((text, after)),
        }
    }
}

fn dollar_quoted(rest: &str) -> Result<(Word, &str), Unterminated> {
    let tag_end = rest[1..].find(|c: char| !c.is_alphanumeric() && c != '_').map(|end| end + 1);
    match tag_end {
        Some(end) if rest[end..].starts_with('$') => {
            let (tag, body) = rest.split_at(end + 1);
            let (text, after) = body.split_once(tag).ok_or(Unterminated("dollar-quoted string"))?;
            Ok((Word::Text(text.to_owned()), after))
        }
        _ => Ok((Word::Bare("$".to_owned()), &rest[1..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expect: &[&str]) {
        let shown: Vec<String> = match statements(text) {
            Ok(all) => all
                .iter()
                .map(|words| {
                    let word = |word: &Word| match word {
                        Word::Bare(text) => text.clone(),
                        Word::Quoted(text) => format!("\"{text}\""),
                        Word::Text(text) => format!("'{text}'"),
                        Word::Symbol(symbol) => symbol.to_string(),
                        Word::Parameter => "$n".to_owned(),
                    };
                    words.iter().map(word).collect::<Vec<_>>().join(" ")
                })
                .collect(),
            Err(error) => vec![error.to_string()],
        };
        assert_eq!(shown, expect, "{text}");
    }

    #[test]
    fn cuts_texts_into_statements_and_words() {
        check("", &[]);
        check(" ; ;; ", &[]);
        check("SHOW HOSTS", &["SHOW HOSTS"]);
        check("show\n\thosts;show pools;", &["show hosts", "show pools"]);
        check("drain replica-1 in app", &["drain replica-1 in app"]);
        check("drain 10.0.0.1:5432", &["drain 10.0.0.1:5432"]);
        check("show route for 'a; ''b'' -- c'", &["show route for 'a; 'b' -- c'"]);
        check("show route for $$select ';'$$ in \"my \"\"db\"", &["show route for 'select ';'' in \"my \"db\""]);
        check("show route for $x$ $$ $x$", &["show route for ' $$ '"]);
        check("-- one\nshow /* two /* three */ */ hosts", &["show hosts"]);
        check("select 1, 'a' as b", &["select 1 , 'a' as b"]);
        check("select $1::int, $12", &["select $n ::int , $n"]);
        check("kill $", &["kill $"]);
        check("show route for 'a", &["unterminated quoted string"]);
        check("drain \"a", &["unterminated quoted identifier"]);
        check("show route for $a$ x $a", &["unterminated dollar-quoted string"]);
        check("/* a /* b */", &["unterminated /* comment"]);
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a$;'\"/*\\- é\n(1]{0,40}") {
            let _ = statements(&text);
        }
    }
}
