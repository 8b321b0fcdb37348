//! Writes into a configuration which database serves another one's clients, and changes nothing else. Pure.

const KEY: &str = "served_by";

/// The text with `served_by` of a database set to another one's name, or taken out.
///
/// A line is put behind the header of the database's own section; where there is none, a section is put before the first one below it. `None`: no
/// line of the text begins a section of the database.
pub fn set_served_by(text: &str, database: &str, other: Option<&str>) -> Option<String> {
    let line = other.map(|other| format!("{KEY} = {}", quoted(other)));
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let own = lines.iter().position(|line| header(line).is_some_and(|path| is_of(&path, database) && path.len() == 2));
    let Some(own) = own else {
        let below = lines.iter().position(|line| header(line).is_some_and(|path| is_of(&path, database)))?;
        let Some(line) = line else { return Some(text.to_owned()) };
        let section = format!("[databases.{}]\n{line}\n\n", quoted(database));
        return Some([lines[..below].concat(), section, lines[below..].concat()].concat());
    };
    let end =
        lines[own + 1..].iter().position(|line| line.trim_start().starts_with('[')).map_or(lines.len(), |end| own + 1 + end);
    let is_key = |line: &&str| line.trim_start().strip_prefix(KEY).is_some_and(|rest| rest.trim_start().starts_with('='));
    let kept: Vec<&str> = lines[own + 1..end].iter().copied().filter(|line| !is_key(line)).collect();
    let head = lines[..=own].concat();
    let head = if head.ends_with('\n') { head } else { head + "\n" };
    let line = line.map_or(String::new(), |line| line + "\n");
    Some([head, line, kept.concat(), lines[end..].concat()].concat())
}

fn is_of(path: &[String], database: &str) -> bool {
    path.len() >= 2 && path[0] == "databases" && path[1] == database
}

/// A name as a TOML string, which is also a quoted key.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The path in a line that begins a section.
fn header(line: &str) -> Option<Vec<String>> {
    let inside = line.trim().strip_prefix('[')?;
    let mut chars = inside.strip_prefix('[').unwrap_or(inside).chars();
    let (mut path, mut part, mut quote) = (Vec::new(), String::new(), None);
    loop {
        let c = chars.next()?;
        match quote {
            Some('"') if c == '\\' => part.push(chars.next()?),
            Some(open) if c == open => quote = None,
            Some(_) => part.push(c),
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '.' || c == ']' => {
                path.push(std::mem::take(&mut part));
                if c == ']' {
                    return Some(path);
                }
            }
            None if c.is_whitespace() => {}
            None => part.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, database: &str, other: Option<&str>, expect: Option<&str>) {
        assert_eq!(set_served_by(text, database, other).as_deref(), expect, "{text:?} {database} {other:?}");
    }

    #[test]
    fn one_line_is_put_behind_the_header() {
        let text = "a = 1\n[databases.shop] # ours\nunlisted_tables = 's0'\n[[databases.shop.shards]]\nname = 's0'\n";
        let moved = "a = 1\n[databases.shop] # ours\nserved_by = \"new\"\nunlisted_tables = 's0'\n[[databases.shop.shards]]\nname = 's0'\n";
        check(text, "shop", Some("new"), Some(moved));
        check(moved, "shop", None, Some(text));
        check(moved, "shop", Some("other"), Some(&moved.replace("new", "other")));
        check(text, "new", Some("x"), None);
        check("[databases.shop]", "shop", Some("new"), Some("[databases.shop]\nserved_by = \"new\"\n"));
    }

    #[test]
    fn a_section_is_made_where_there_is_none() {
        let text = "[[databases.shop.shards]]\nname = 's0'\n";
        check(
            text,
            "shop",
            Some("new"),
            Some("[databases.\"shop\"]\nserved_by = \"new\"\n\n[[databases.shop.shards]]\nname = 's0'\n"),
        );
        check(text, "shop", None, Some(text));
    }

    #[test]
    fn only_the_right_section_is_changed() {
        let text =
            "[databases.\"my shop\"]\nx = 1\n[databases.shop]\ny = 2\nserved_by='old'\n[databases.shopping]\nserved_by = 'z'\n";
        let expect = "[databases.\"my shop\"]\nx = 1\n[databases.shop]\ny = 2\n[databases.shopping]\nserved_by = 'z'\n";
        check(text, "shop", None, Some(expect));
        let quoted = set_served_by(text, "my shop", Some("a\"b")).unwrap();
        assert!(quoted.starts_with("[databases.\"my shop\"]\nserved_by = \"a\\\"b\"\nx = 1\n"), "{quoted}");
        assert_eq!(header("[ databases . 'a.b' ] # c"), Some(vec!["databases".to_owned(), "a.b".to_owned()]));
        assert_eq!(header("x = [1]"), None);
    }
}
