//! The parameters that a session has set: what a leg is told when it is opened later, or was not asked when they were set.

use crate::sql::SessionEffect;

/// Changes of parameters in SQL, one for each parameter that was changed.
#[derive(Debug, Default)]
pub struct SetLog {
    committed: Vec<ParameterChange>,
    version: u64,
    /// Of any kind, also those that were undone.
    changes: u64,
    /// In the open transaction, in order.
    pending: Vec<PendingChange>,
    /// Names of its savepoints, with the number of pending changes before each.
    savepoints: Vec<(Box<str>, usize)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ParameterChange {
    /// Empty: all of them.
    name: Box<str>,
    sql: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PendingChange {
    change: ParameterChange,
    local: bool,
}

impl SetLog {
    /// Notes what a statement did. `sql` is its text, for those whose values the effect does not say.
    pub fn note(&mut self, effect: &SessionEffect, sql: &str) {
        self.changes += 1;
        let (name, sql, local) = match effect {
            SessionEffect::Set { name, value } => {
                let value = value.as_deref().unwrap_or("DEFAULT");
                (name, format!("SET {} = {value}", quote_name(name)), false)
            }
            SessionEffect::SetLocal { name, .. } => (name, sql.to_owned(), true),
            SessionEffect::Reset(name) => (name, format!("RESET {}", quote_name(name)), false),
            SessionEffect::ResetAll | SessionEffect::DiscardAll => {
                self.pending
                    .push(PendingChange { change: ParameterChange { name: "".into(), sql: "RESET ALL".into() }, local: false });
                return;
            }
            _ => return,
        };
        let change = ParameterChange { name: (&**name).into(), sql };
        self.pending.push(PendingChange { change, local });
    }

    /// A savepoint was made.
    pub fn savepoint(&mut self, name: &str) {
        self.savepoints.push((name.into(), self.pending.len()));
    }

    /// The last savepoint of this name and those after it are gone.
    pub fn release(&mut self, name: &str) {
        if let Some(place) = self.savepoints.iter().rposition(|(known, _)| **known == *name) {
            self.savepoints.truncate(place);
        }
    }

    /// What came after the last savepoint of this name is undone; it stays.
    pub fn roll_back_to(&mut self, name: &str) {
        self.changes += 1;
        if let Some(place) = self.savepoints.iter().rposition(|(known, _)| **known == *name) {
            self.pending.truncate(self.savepoints[place].1);
            self.savepoints.truncate(place + 1);
        }
    }

    /// The transaction has been committed. Answers whether that changed anything.
    pub fn commit(&mut self) {
        self.savepoints.clear();
        self.changes += u64::from(!self.pending.is_empty());
        let mut changed = false;
        for PendingChange { change, local } in std::mem::take(&mut self.pending) {
            if local {
                continue;
            }
            changed = true;
            match change.name.is_empty() {
                true => self.committed.clear(),
                false => self.committed.retain(|known| known.name != change.name),
            }
            self.committed.push(change);
        }
        self.version += u64::from(changed);
    }

    /// The transaction has been rolled back.
    pub fn roll_back(&mut self) {
        self.savepoints.clear();
        self.changes += u64::from(!self.pending.is_empty());
        self.pending.clear();
    }

    /// Whether there is a savepoint of this name.
    pub fn has_savepoint(&self, name: &str) -> bool {
        self.savepoints.iter().any(|(known, _)| **known == *name)
    }

    /// What the last SET of a parameter set it to, as its SQL, if one did.
    pub fn set_value(&self, name: &str) -> Option<&str> {
        let pending = self.pending.iter().rev().map(|pending| &pending.change);
        let all = pending.chain(self.committed.iter().rev());
        let last = all.into_iter().find(|change| *change.name == *name || change.name.is_empty())?;
        value_of(&last.sql)
    }

    /// The number of changes of any kind so far, made or undone.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The number of committed changes so far.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What a leg must be told that has seen none of the committed changes, or not the last.
    pub fn committed(&self) -> String {
        join(self.committed.iter().filter(|change| !is_own(&change.name)).map(|change| &change.sql))
    }

    /// What a leg must be told that comes into the transaction now: its SETs and its savepoints, in order.
    pub fn in_transaction(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut savepoints = self.savepoints.iter().peekable();
        for (index, pending) in self.pending.iter().enumerate() {
            while let Some((name, _)) = savepoints.next_if(|(_, before)| *before <= index) {
                parts.push(format!("SAVEPOINT {}", quote_name(name)));
            }
            if !is_own(&pending.change.name) {
                parts.push(pending.change.sql.clone());
            }
        }
        parts.extend(savepoints.map(|(name, _)| format!("SAVEPOINT {}", quote_name(name))));
        join(parts.iter())
    }
}

/// What stands behind `=` or TO.
pub fn value_of(sql: &str) -> Option<&str> {
    if let Some((_, value)) = sql.split_once('=') {
        return Some(value.trim().trim_end_matches(';').trim_end());
    }
    let place = sql.to_ascii_lowercase().find(" to ")?;
    Some(sql[place + 4..].trim().trim_end_matches(';').trim_end())
}

/// Settings that servers need not know.
fn is_own(name: &str) -> bool {
    name.starts_with("pgyard.shard")
}

fn join<'a>(parts: impl Iterator<Item = &'a String>) -> String {
    let parts: Vec<&str> = parts.map(|sql| sql.trim().trim_end_matches(';')).collect();
    parts.join("; ")
}

/// A name in double quotes; the parts of a custom parameter's name one by one.
pub fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> SessionEffect {
        SessionEffect::Set { name: name.into(), value: Some(value.into()) }
    }

    #[test]
    fn later_changes_replace_earlier_ones_and_roll_backs_undo_them() {
        let mut log = SetLog::default();
        log.note(&set("work_mem", "'1MB'"), "");
        log.commit();
        assert_eq!((log.version(), log.committed().as_str()), (1, "SET \"work_mem\" = '1MB'"));
        log.note(&set("work_mem", "'2MB'"), "");
        log.roll_back();
        log.commit();
        assert_eq!((log.version(), log.committed().as_str()), (1, "SET \"work_mem\" = '1MB'"));
        log.note(&set("a.b", "'x'"), "");
        log.savepoint("s");
        log.note(&set("work_mem", "'3MB'"), "");
        log.note(&SessionEffect::SetLocal { name: "geqo".into(), value: None }, "SET LOCAL geqo = off");
        assert_eq!(log.in_transaction(), "SET \"a.b\" = 'x'; SAVEPOINT \"s\"; SET \"work_mem\" = '3MB'; SET LOCAL geqo = off");
        log.roll_back_to("s");
        assert_eq!(log.in_transaction(), "SET \"a.b\" = 'x'; SAVEPOINT \"s\"");
        assert_eq!((log.set_value("a.b"), log.set_value("geqo")), (Some("'x'"), None));
        assert_eq!(value_of("set local a.b to 'y' ;"), Some("'y'"));
        log.release("s");
        log.commit();
        assert_eq!(log.committed(), "SET \"work_mem\" = '1MB'; SET \"a.b\" = 'x'");
        log.note(&SessionEffect::ResetAll, "RESET ALL");
        log.commit();
        assert_eq!(log.committed(), "RESET ALL");
        assert_eq!(log.version(), 3);
    }
}
