//! `[[access]]`, `[user_maps.NAME]` and `[peers]`, and what is wrong with rules taken together.

use super::reader::{Origins, Reader, Section, Span};
use super::section;
use super::unknown::check_unknown;
use crate::config::access::{AccessMethod, AccessRule, ClientCertRule, ConnectionKind, NamePattern, UserMap};
use crate::config::codec::{Complaint, RawValue};
use crate::config::keys::{self, names, plain_names};
use crate::config::peers::{PeerAddress, PeerSettings};
use crate::config::problem::ProblemKind;
use crate::config::settings::{ListenAddress, Settings};
use crate::config::url::parse_host;
use toml::de::DeValue;

/// Rules that a list may have: it is walked for every log-in.
const RULES_MAX: usize = 1000;

/// Reads rules, maps and peers into the settings of the front door.
pub(super) fn read(reader: &mut Reader, top: Section, settings: &mut Settings) {
    settings.front.user_maps = read_maps(reader, top);
    let rules = read_rules(reader, top);
    check_rules(reader, &rules, settings);
    settings.front.access = rules.into_iter().map(|(rule, _)| rule).collect();
    settings.front.peers = read_peers(reader, top);
}

fn read_rules(reader: &mut Reader, top: Section) -> Vec<(AccessRule, Span)> {
    let Some(value) = top.get("access") else { return Vec::new() };
    let help = "begin each rule with a line [[access]]";
    let DeValue::Array(entries) = value.get_ref() else {
        reader.error(ProblemKind::BadValue, value.span(), Complaint::new("access has to be a list of rules", help));
        return Vec::new();
    };
    if entries.is_empty() || entries.len() > RULES_MAX {
        let message = format!("the access list has {} rules", entries.len());
        let help = format!("write from 1 to {RULES_MAX}, or take it out: without a list, everybody may come who can log in");
        reader.error(ProblemKind::BadValue, value.span(), Complaint::new(message, help));
    }
    let known: Vec<&str> = names(keys::ACCESS).collect();
    let mut rules = Vec::new();
    for entry in entries {
        let DeValue::Table(table) = entry.get_ref() else {
            reader.error(ProblemKind::BadValue, entry.span(), Complaint::new("a rule has to be a table", help));
            continue;
        };
        let section = Section { table, title: "[[access]]" };
        check_unknown(reader, section, &known);
        let (mut rule, mut origins) = (AccessRule::default(), Origins::new());
        reader.read_keys(section, keys::ACCESS, &mut rule, &mut origins);
        let span = section.entries().first().map_or(entry.span(), |(_, span, _)| span.clone());
        rules.push((rule, span));
    }
    rules
}

fn check_rules(reader: &mut Reader, rules: &[(AccessRule, Span)], settings: &Settings) {
    for (index, (rule, span)) in rules.iter().enumerate() {
        if let Some(complaint) = contradiction(rule, settings) {
            reader.error(ProblemKind::Contradiction, span.clone(), complaint);
        }
        if let Some(earlier) = rules[..index].iter().position(|(earlier, _)| earlier.covers(rule)) {
            let message = format!("this rule never decides anything: rule {} takes everything before it", earlier + 1);
            reader.warn(span.clone(), message, "the first rule that matches decides: put the narrower one first, or take it out");
        }
        if rule.connection == ConnectionKind::Tls && settings.tls.is_none() {
            reader.warn(span.clone(), "this rule never matches: there is no [tls]", "add [tls] with certificate and key");
        }
        if rule.connection == ConnectionKind::Unix && !settings.listen.iter().any(|l| matches!(l, ListenAddress::Unix { .. })) {
            let help = "add \"unix:/run/pgyard\" to listen, or take the rule out";
            reader.warn(span.clone(), "this rule never matches: pgyard listens on no Unix socket", help);
        }
        if rule.method == AccessMethod::Trust && rule.client_cert != ClientCertRule::VerifyFull {
            let message = "this rule lets in anybody it matches, as any role that it names, without a password";
            reader.warn(span.clone(), message, "use method = \"scram\", \"cert\" or \"peer\"");
        }
    }
}

fn contradiction(rule: &AccessRule, settings: &Settings) -> Option<Complaint> {
    let tls_only = rule.connection == ConnectionKind::Tls;
    let map = rule.map.as_ref().filter(|name| !settings.front.user_maps.iter().any(|map| map.name == **name));
    let names_somebody = rule.method == AccessMethod::Peer || rule.method == AccessMethod::Cert;
    Some(match rule.method {
        _ if rule.connection == ConnectionKind::Unix && !rule.addresses.is_empty() => {
            Complaint::new("clients on Unix sockets have no address", "take addresses out of this rule")
        }
        AccessMethod::Peer if rule.connection != ConnectionKind::Unix => Complaint::new(
            "method \"peer\" asks the kernel who is at the other end of a Unix socket",
            "write connection = \"unix\"",
        ),
        _ if rule.wants_certificate() && !tls_only => {
            Complaint::new("only clients with TLS can show a certificate", "write connection = \"tls\"")
        }
        _ if rule.wants_certificate() && settings.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none()) => {
            Complaint::new("this rule wants a certificate, but none can be verified", "write client_ca in [tls]")
        }
        AccessMethod::Plain if rule.connection == ConnectionKind::Plain => {
            Complaint::new("method \"plain\" would send the password in clear over the network", "write method = \"scram\"")
        }
        _ if map.is_some() => Complaint::new(
            format!("there is no user map `{}`", rule.map.as_deref().unwrap_or_default()),
            "write it as [user_maps.NAME] with lines such as \"alice@example.com\" = \"alice\"",
        ),
        _ if rule.map.is_some() && !names_somebody && rule.client_cert != ClientCertRule::VerifyFull => {
            let help = "a map is for method \"cert\" and \"peer\", and for client_cert = \"verify-full\"";
            Complaint::new("map has no effect in this rule", help)
        }
        _ => return None,
    })
}

fn read_maps(reader: &mut Reader, top: Section) -> Vec<UserMap> {
    let Some(maps) = section(reader, top, "user_maps", "[user_maps.NAME]") else { return Vec::new() };
    let mut found = Vec::new();
    for (name, _, value) in maps.entries() {
        let title = format!("[user_maps.{name}]");
        let Some(table) = reader.table_of(value, &title) else { continue };
        let mut map = UserMap { name: name.to_owned(), entries: Vec::new() };
        for (from, span, value) in (Section { table, title: &title }).entries() {
            let Some(raw) = reader.raw(value) else { continue };
            let entries = read_entry(from, &raw);
            map.entries.extend(reader.accept(ProblemKind::BadValue, &span, entries).unwrap_or_default());
        }
        found.push(map);
    }
    found
}

fn read_entry(from: &str, raw: &RawValue) -> Result<Vec<(NamePattern, NamePattern)>, Complaint> {
    let example = "write \"alice@example.com\" = \"alice\", or a list of roles";
    let complain = |help: String| Complaint::new(format!("the entry `{from}` can't be used"), help);
    let pattern = NamePattern::parse(from).map_err(complain)?;
    let one = std::slice::from_ref(raw);
    let roles = if let RawValue::List(roles) = raw { roles.as_slice() } else { one };
    let read = |role: &RawValue| {
        let RawValue::Text(role) = role else { return Err(complain(example.to_owned())) };
        let role = NamePattern::parse(role).map_err(complain)?;
        if role.is_wild() && !pattern.is_wild() {
            return Err(complain("`*` in the role is what `*` stands for in the name: the name has none".to_owned()));
        }
        Ok((pattern.clone(), role))
    };
    roles.iter().map(read).collect()
}

fn read_peers(reader: &mut Reader, top: Section) -> PeerSettings {
    let Some(peers) = section(reader, top, "peers", "[peers]") else { return PeerSettings::default() };
    let known: Vec<&str> = names(keys::PEERS).chain(plain_names(keys::PEER_LIST)).collect();
    check_unknown(reader, peers, &known);
    let mut settings = Settings::default();
    reader.read_keys(peers, keys::PEERS, &mut settings, &mut Origins::new());
    let mut found = settings.front.peers;
    let header = top.key_span("peers").unwrap_or(0..0);
    if peers.get("id").is_none() {
        let help = "write id = 1, and another number in each process behind the same address";
        reader.error(ProblemKind::MissingKey, header, Complaint::new("[peers] has no `id`", help));
    }
    let Some(addresses) = section(reader, peers, "addresses", "[peers.addresses]") else { return found };
    for (name, span, value) in addresses.entries() {
        let id = name.parse::<u8>().ok().filter(|id| *id > 0);
        let help = "write such as 2 = \"10.0.0.2:6432\": a peer's id, from 1 to 255, and where it listens";
        let complaint = || Complaint::new(format!("`{name}` is not the id of a peer"), help);
        let Some(id) = reader.accept(ProblemKind::BadValue, &span, id.ok_or_else(complaint)) else { continue };
        let Some(raw) = reader.raw(value) else { continue };
        let address = read_peer(&raw, reader);
        if let Some((address, port)) = reader.accept(ProblemKind::BadValue, &value.span(), address)
            && usize::from(id) != found.id
        {
            found.others.push(PeerAddress { id, address, port });
        }
    }
    found
}

/// A peer's address, as a host's is written; every process may have the same list, itself included.
fn read_peer(raw: &RawValue, reader: &Reader) -> Result<(String, u16), Complaint> {
    let help = "write \"10.0.0.2:6432\", or the directory of a Unix socket";
    let RawValue::Text(text) = raw else { return Err(Complaint::new(format!("{} is not an address", raw.describe()), help)) };
    if text.contains("://") {
        return Err(Complaint::new("a peer is an address, not a URL", help));
    }
    let draft = parse_host(&text.replace("${", "$${"), reader.environment)?;
    let address = draft.address.ok_or_else(|| Complaint::new("the peer has no address", help))?;
    Ok((address, draft.port.unwrap_or(crate::config::DEFAULT_LISTEN_PORT)))
}
