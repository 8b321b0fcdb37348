//! Keys that mean nothing where they stand, and what was probably meant.

use super::reader::{Reader, Section};
use super::suggest::{closest, translate};
use super::{SECTIONS, keys};
use crate::config::codec::Complaint;
use crate::config::keys::{names, plain_names};
use crate::config::problem::ProblemKind;

/// Notes every key of the section that is not among `known`.
pub(super) fn check_unknown(reader: &mut Reader, section: Section, known: &[&str]) {
    for (name, span, _) in section.entries() {
        if !known.contains(&name) {
            let place = if section.title.is_empty() { String::new() } else { format!(" in {}", section.title) };
            let complaint = Complaint::new(format!("unknown key `{name}`{place}"), help(name, known));
            reader.error(ProblemKind::UnknownKey, span, complaint);
        }
    }
}

fn help(name: &str, known: &[&str]) -> String {
    if let Some(ours) = translate(name).find(|ours| known.contains(ours)) {
        return format!("here it is called `{ours}`");
    }
    if let Some(place) = home_of(name) {
        return format!("`{name}` belongs {place}");
    }
    if let Some(meant) = closest(name, known) {
        return format!("did you mean `{meant}`?");
    }
    let moved =
        translate(name).find_map(|ours| home_of(ours).map(|place| format!("here it is called `{ours}`, and belongs {place}")));
    moved.unwrap_or_else(|| {
        let everywhere: Vec<&str> = homes().into_iter().flat_map(|(_, names)| names).collect();
        match closest(name, &everywhere).and_then(|meant| home_of(meant).map(|place| (meant, place))) {
            Some((meant, place)) => format!("did you mean `{meant}`? It belongs {place}"),
            None => format!("known here: {}", known.join(", ")),
        }
    })
}

/// Where a key belongs.
fn home_of(name: &str) -> Option<&'static str> {
    homes().into_iter().find(|(_, names)| names.contains(&name)).map(|(place, _)| place)
}

/// Every place for keys, with its keys.
fn homes() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        ("at the top of the file, before the first [section]", names(keys::TOP).collect()),
        ("in [defaults] or [databases.NAME]", names(keys::DATABASE).chain(plain_names(keys::CONNECTION)).collect()),
        ("in [databases.NAME]", plain_names(keys::HOSTS).chain(plain_names(keys::SHARDS)).chain(names(keys::SHARDING)).collect()),
        ("below a line [[databases.NAME.sharded_tables]]", plain_names(keys::SHARDED_TABLES).collect()),
        ("in [log]", names(keys::LOG).collect()),
        ("in [limits]", names(keys::LIMITS).collect()),
        ("in a rule, below a line [[access]]", names(keys::ACCESS).collect()),
        ("in [peers]", names(keys::PEERS).chain(plain_names(keys::PEER_LIST)).collect()),
        ("in [tls]", plain_names(keys::TLS).collect()),
        ("in a host's table, such as { host = \"10.0.0.1\", weight = 2 }", plain_names(keys::HOST).collect()),
        ("in [databases.NAME.users.ROLE]", plain_names(keys::USER_SECRETS).collect()),
        ("at the top level, as a [section]", SECTIONS.to_vec()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explains_what_was_meant() {
        let top: Vec<&str> = names(keys::TOP).chain(SECTIONS).collect();
        let database: Vec<&str> = names(keys::DATABASE).chain(plain_names(keys::HOSTS)).collect();
        for (name, known, expect) in [
            ("max_lagg", &database, "did you mean `max_lag`?"),
            ("default_pool_size", &database, "here it is called `pool_size`"),
            ("max_lag", &top, "`max_lag` belongs in [defaults] or [databases.NAME]"),
            ("default_pool_size", &top, "here it is called `pool_size`, and belongs in [defaults] or [databases.NAME]"),
            ("max_lagg", &top, "did you mean `max_lag`? It belongs in [defaults] or [databases.NAME]"),
            ("database", &top, "`database` belongs in [defaults] or [databases.NAME]"),
            ("http", &database, "`http` belongs at the top of the file, before the first [section]"),
            ("listn", &top, "did you mean `listen`?"),
        ] {
            assert_eq!(help(name, known), expect, "{name}");
        }
        assert!(help("colour", &top).starts_with("known here: listen, http, "));
    }

    #[test]
    fn every_translation_leads_to_a_key() {
        for (theirs, ours) in super::super::suggest::FOREIGN {
            assert!(home_of(ours).is_some(), "{theirs} is called {ours}, which is nowhere");
            assert!(help(theirs, &[ours]).contains(ours));
        }
    }
}
