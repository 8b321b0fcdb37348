//! Run-time parameters: what a session has set, what a server reports, and the SQL that turns one set into another.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Parameters that differ from the server's own defaults, by lower-case name; values are SQL text that can stand behind
/// `SET name = `.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ParameterSet {
    values: BTreeMap<Arc<str>, Arc<str>>,
    /// Lists of names as a start-up packet gave them, which servers show as they were written.
    written: BTreeMap<Arc<str>, Arc<str>>,
}

/// Set before all others, in this order: they change what may be set, or reset one another.
const FIRST: [&str; 2] = ["session_authorization", "role"];

impl ParameterSet {
    /// The SQL text of a value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.as_ref())
    }

    /// Sets a value, as SQL text.
    pub fn set(&mut self, name: Arc<str>, value: Arc<str>) {
        if &*name == "session_authorization" {
            self.values.remove("role");
        }
        self.written.remove(&name);
        self.values.insert(name, value);
    }

    /// Sets a value given as plain text.
    ///
    /// A start-up packet gives some parameters as a list of names in one text, which SET would take for one name.
    pub fn set_text(&mut self, name: &str, value: &str) {
        let is_list = NAME_LISTS.contains(&name);
        let names = if is_list { split_names(value) } else { None };
        let sql = match names {
            Some(names) => names.iter().map(|name| quote_literal(name)).collect::<Vec<_>>().join(", "),
            None => quote_literal(value),
        };
        self.set(name.into(), sql.into());
        if is_list {
            self.written.insert(name.into(), value.into());
        }
    }

    /// Sets what the other set has, or nothing.
    pub fn set_as_in(&mut self, name: &str, other: &ParameterSet) {
        self.unset(name);
        if let Some((name, value)) = other.values.get_key_value(name) {
            self.set(name.clone(), value.clone());
        }
        if let Some((name, written)) = other.written.get_key_value(name) {
            self.written.insert(name.clone(), written.clone());
        }
    }

    /// Back to the server's default.
    pub fn unset(&mut self, name: &str) {
        if name == "session_authorization" {
            self.values.remove("role");
        }
        self.written.remove(name);
        self.values.remove(name);
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value without its quotes, if it is one literal.
    pub fn text(&self, name: &str) -> Option<String> {
        let literal = self.get(name)?.trim();
        let (escapes, quoted) = literal.strip_prefix('E').map_or((false, literal), |quoted| (true, quoted));
        let text = quoted.strip_prefix('\'')?.strip_suffix('\'')?.replace("''", "'");
        Some(if escapes { text.replace("\\\\", "\\") } else { text })
    }

    /// The value without its quotes, lower-cased: for the few parameters that pgyard itself obeys.
    pub fn plain(&self, name: &str) -> Option<String> {
        let text = self.get(name)?.trim();
        let inner = text.strip_prefix('\'').and_then(|t| t.strip_suffix('\''));
        Some(inner.map_or_else(|| text.to_owned(), |t| t.replace("''", "'")).to_lowercase())
    }

    /// Whether a boolean parameter is on.
    pub fn is_on(&self, name: &str) -> Option<bool> {
        match self.plain(name)?.as_str() {
            "on" | "true" | "yes" | "1" | "t" | "y" => Some(true),
            "off" | "false" | "no" | "0" | "f" | "n" => Some(false),
            _ => None,
        }
    }

    /// The SQL that turns a server with `self` into one with `wanted`: several statements, or nothing.
    pub fn change_to(&self, wanted: &ParameterSet) -> String {
        let mut sql = String::new();
        let identity_changes = FIRST.iter().any(|name| self.get(name) != wanted.get(name));
        if identity_changes {
            // A role that may set nothing must not be in the way of what follows.
            sql.push_str("RESET SESSION AUTHORIZATION;RESET ROLE;");
        }
        let of_server = |name: &&Arc<str>| !is_identity(name) && !is_own(name);
        for name in self.values.keys().filter(of_server).filter(|name| !wanted.values.contains_key(*name)) {
            let _ = write!(sql, "RESET {};", quote_name(name));
        }
        for (name, value) in wanted.values.iter().filter(|(name, _)| of_server(name)) {
            let present = self.values.get(name);
            let (written, before) = (wanted.written.get(name), self.written.get(name));
            if let Some(written) = written.filter(|written| before != Some(*written)) {
                let _ = write!(sql, "SELECT pg_catalog.set_config('{name}', {}, false);", quote_literal(written));
            } else if present != Some(value) || written != before {
                if &**name == DATE_STYLE && present.is_some() {
                    sql.push_str("RESET datestyle;");
                }
                let _ = write!(sql, "SET {} = {value};", quote_name(name));
            }
        }
        if identity_changes {
            for name in FIRST {
                if let Some(value) = wanted.get(name) {
                    let _ = write!(sql, "SET {name} = {value};");
                }
            }
        }
        sql
    }
}

/// `SET datestyle = ymd` changes one half of the value and leaves the other.
///
/// Spec: `check_datestyle` in `src/backend/commands/variable.c`.
pub const DATE_STYLE: &str = "datestyle";

/// Parameters whose value is a list of names.
///
/// Spec: `GUC_LIST_QUOTE` in `src/backend/utils/misc/guc_tables.c`, those that a session may set.
const NAME_LISTS: [&str; 4] = ["search_path", "temp_tablespaces", "session_preload_libraries", "local_preload_libraries"];

/// The names of a list: unquoted ones are folded to lower case. `None` when it is not well formed or empty.
///
/// Spec: `SplitIdentifierString` in `src/backend/utils/adt/varlena.c`.
fn split_names(list: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = list.trim_start();
    loop {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => take_quoted(quoted)?,
            None => {
                let end = rest.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(rest.len());
                (rest[..end].to_lowercase(), &rest[end..])
            }
        };
        if name.is_empty() {
            return None;
        }
        names.push(name);
        let after = after.trim_start();
        match after.strip_prefix(',') {
            Some(next) => rest = next.trim_start(),
            None => return after.is_empty().then_some(names),
        }
    }
}

/// A quoted name whose opening quote was taken, and what follows its closing one.
fn take_quoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, rest)),
        }
    }
}

fn is_identity(name: &str) -> bool {
    FIRST.contains(&name)
}

/// Settings that pgyard obeys: servers need not know them, but for the moment at which one is shown.
fn is_own(name: &str) -> bool {
    name.starts_with("pgyard.")
}

/// A string literal that reads the same whatever `standard_conforming_strings` is.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

fn quote_name(name: &str) -> String {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if name.split('.').all(plain) {
        return name.to_owned();
    }
    name.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect::<Vec<_>>().join(".")
}

/// What a server has said in ParameterStatus messages, in the order in which it said it first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportedParameters {
    values: Vec<(Box<str>, Box<str>)>,
    mark: u32,
}

/// What describes a server rather than its session: a session whose statements run on several is told once.
const OF_SERVER: [&str; 5] =
    ["in_hot_standby", "server_version", "server_encoding", "integer_datetimes", "default_transaction_read_only"];

fn mark_of(name: &str, value: &str) -> u32 {
    if OF_SERVER.contains(&name) {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    (name, value).hash(&mut hasher);
    u32::try_from(hasher.finish() >> 32).unwrap_or(0)
}

impl ReportedParameters {
    /// Takes in one ParameterStatus; answers by what that changes the [mark](Self::mark).
    pub fn set(&mut self, name: &str, value: &str) -> u32 {
        let mut change = mark_of(name, value);
        match self.values.iter_mut().find(|(n, _)| &**n == name) {
            Some((_, old)) => {
                change ^= mark_of(name, old);
                *old = value.into();
            }
            None => self.values.push((name.into(), value.into())),
        }
        self.mark ^= change;
        change
    }

    /// All that a session is told of itself, as one number: the exclusive or of that of each value, so that a change of one changes it
    /// alike whatever the others are.
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// What a session is told of itself.
    pub fn of_session(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter(|(name, _)| !OF_SERVER.contains(name))
    }

    /// The last value reported.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(n, _)| &**n == name).map(|(_, v)| &**v)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(n, v)| (&**n, &**v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> ParameterSet {
        let mut set = ParameterSet::default();
        for (name, value) in pairs {
            set.set((*name).into(), (*value).into());
        }
        set
    }

    #[test]
    fn changes_are_the_least_that_is_needed() {
        let check = |from: &[(&str, &str)], to: &[(&str, &str)], sql: &str| assert_eq!(set(from).change_to(&set(to)), sql);
        check(&[], &[], "");
        check(&[("a", "1")], &[("a", "1")], "");
        check(&[("a", "1")], &[("a", "2"), ("b", "x, y")], "SET a = 2;SET b = x, y;");
        check(&[("a", "1"), ("app.tenant", "'7'")], &[], "RESET a;RESET app.tenant;");
        check(&[], &[("my.Odd", "1")], "SET \"my\".\"Odd\" = 1;");
        check(&[], &[("zone", "1"), ("role", "bob")], "RESET SESSION AUTHORIZATION;RESET ROLE;SET zone = 1;SET role = bob;");
        check(&[("datestyle", "dmy")], &[("datestyle", "iso")], "RESET datestyle;SET datestyle = iso;");
        check(&[("role", "bob")], &[("a", "1")], "RESET SESSION AUTHORIZATION;RESET ROLE;SET a = 1;");
    }

    #[test]
    fn equal_marks_are_equal_reports() {
        let mut one = ReportedParameters::default();
        let mut two = ReportedParameters::default();
        one.set("TimeZone", "UTC");
        one.set("DateStyle", "ISO, MDY");
        one.set("in_hot_standby", "off");
        two.set("in_hot_standby", "on");
        two.set("DateStyle", "German");
        two.set("TimeZone", "UTC");
        assert_ne!(one.mark(), two.mark());
        let before = two.mark();
        let change = two.set("DateStyle", "ISO, MDY");
        assert_eq!((one.mark(), before ^ change), (two.mark(), two.mark()));
        assert_eq!(two.set("DateStyle", "ISO, MDY"), 0);
        assert_eq!(two.of_session().collect::<Vec<_>>(), [("DateStyle", "ISO, MDY"), ("TimeZone", "UTC")]);
    }

    #[test]
    fn a_role_goes_with_its_session_authorization() {
        let mut parameters = set(&[("session_authorization", "alice"), ("role", "bob")]);
        assert_eq!(parameters.get("role"), Some("bob"));
        parameters.unset("session_authorization");
        assert_eq!(parameters, ParameterSet::default());
    }

    #[test]
    fn lists_of_names_stay_lists() {
        let check = |value: &str, sql: &str| {
            let mut parameters = ParameterSet::default();
            parameters.set_text("search_path", value);
            assert_eq!(parameters.get("search_path"), Some(sql), "{value}");
            let shown = format!("SELECT pg_catalog.set_config('search_path', {}, false);", quote_literal(value));
            assert_eq!(ParameterSet::default().change_to(&parameters), shown, "{value}");
            assert_eq!(parameters.change_to(&parameters.clone()), "", "{value}");
            let mut again = set(&[("search_path", "'other'")]);
            again.set_as_in("search_path", &parameters);
            assert_eq!(again, parameters, "{value}");
            // The same by SET is shown otherwise.
            let by_set = set(&[("search_path", sql)]);
            assert_eq!(parameters.change_to(&by_set), format!("SET search_path = {sql};"), "{value}");
        };
        check("yard, public", "'yard', 'public'");
        check("\"$user\",Public", "'$user', 'public'");
        check("\"a\"\"b, c\"", "'a\"b, c'");
        check("it's", "'it''s'");
        for odd in ["", "a b", "a,,b", "\"a", "a,"] {
            check(odd, &quote_literal(odd));
        }
    }

    #[test]
    fn plain_values_are_read_back() {
        let mut parameters = ParameterSet::default();
        parameters.set_text("application_name", "it's");
        parameters.set_text("x", "ON");
        assert_eq!(parameters.get("application_name"), Some("'it''s'"));
        for odd in ["it's", "'", "E", "a\\b'", ""] {
            parameters.set_text("x.y", odd);
            assert_eq!(parameters.text("x.y").as_deref(), Some(odd));
        }
        assert_eq!(parameters.plain("application_name").as_deref(), Some("it's"));
        assert_eq!(parameters.is_on("x"), Some(true));
        assert_eq!(parameters.is_on("application_name"), None);
        assert_eq!(quote_literal("a\\b'"), " E'a\\\\b'''");
    }
}
