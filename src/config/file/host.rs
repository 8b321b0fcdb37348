//! The hosts of one database: as they were written, and with everything filled in.

use super::reader::{Reader, Section, Span};
use super::unknown::check_unknown;
use crate::config::choice::NamedChoice;
use crate::config::codec::{Choice, Codec, Complaint, RawValue};
use crate::config::defaults::DEFAULT_SERVER_PORT;
use crate::config::keys::{self, plain_names};
use crate::config::problem::ProblemKind;
use crate::config::secrets::{PemContent, guess};
use crate::config::settings::{ControlCredentials, HostSettings, RoleSetting, ServerTlsMode, ServerTlsSettings};
use crate::config::url::{Connection, HostDraft, check_address, parse_host, parse_port, parse_sslmode, parse_weight};
use std::path::PathBuf;
use toml::Spanned;
use toml::de::DeValue;

/// A host as it was written, with the place.
pub(super) struct HostSource {
    pub(super) draft: HostDraft,
    pub(super) span: Span,
}

/// Reads one host, a text or a table.
pub(super) fn read(reader: &mut Reader, value: &Spanned<DeValue>) -> Option<HostSource> {
    let span = value.span();
    let draft = match value.get_ref() {
        DeValue::String(text) => {
            let parsed = parse_host(text, reader.environment);
            note_password(reader, &span);
            reader.accept(ProblemKind::BadValue, &span, parsed)?
        }
        DeValue::Table(table) => read_table(reader, Section { table, title: "a host" }, &span)?,
        _ => {
            let complaint = Complaint::new(
                "a host is a text or a table",
                "write \"postgres://user@10.0.0.1/app\" or { host = \"10.0.0.1\", weight = 2 }",
            );
            reader.error(ProblemKind::BadValue, span, complaint);
            return None;
        }
    };
    let draft = finish(reader, draft, &span);
    Some(HostSource { draft, span })
}

/// Remembers that a URL has a password in it.
fn note_password(reader: &mut Reader, span: &Span) {
    let literal = reader.text.get(span.clone()).is_some_and(|text| !guess(text).is_empty());
    if literal {
        reader.literal_secret.get_or_insert(span.clone());
    }
}

/// Says what has no effect, and makes the paths of a URL relative to the file.
fn finish(reader: &mut Reader, mut draft: HostDraft, span: &Span) -> HostDraft {
    for remark in std::mem::take(&mut draft.remarks) {
        reader.warn(span.clone(), remark.message, remark.help);
    }
    let folder = reader.folder;
    let settle = |path: &mut PathBuf| *path = folder.join(&*path);
    let connection = &mut draft.connection;
    connection.sslrootcert.iter_mut().flatten().for_each(settle);
    connection.sslcert.iter_mut().for_each(settle);
    connection.sslkey.iter_mut().for_each(settle);
    check_files(reader, &draft.connection, span);
    draft
}

fn read_table(reader: &mut Reader, section: Section, span: &Span) -> Option<HostDraft> {
    let known: Vec<&str> = plain_names(keys::HOST).chain(plain_names(keys::CONNECTION)).collect();
    check_unknown(reader, section, &known);
    let mut draft = HostDraft::default();
    if let Some(value) = section.get("url") {
        let text = value.get_ref().as_str().map(|text| parse_host(text, reader.environment));
        let parsed = text.unwrap_or_else(|| Err(Complaint::new("url is not text", "write url = \"postgres://...\"")));
        note_password(reader, &value.span());
        draft = reader.accept(ProblemKind::BadValue, &value.span(), parsed)?;
        if let (Some(_), Some(host_span)) = (&draft.address, section.key_span("host")) {
            let complaint = Complaint::new("both url and host are given", "keep one of them");
            reader.error(ProblemKind::Contradiction, host_span, complaint);
        }
    }
    if let Some((host, span)) = reader.text_of(section, "host") {
        draft.address = reader.accept(ProblemKind::BadValue, &span, check_address(host)).or(draft.address);
    }
    draft.port = read_value(reader, section, "port", |raw| match raw {
        RawValue::Integer(port) => parse_port(&port.to_string()),
        RawValue::Text(port) => parse_port(port),
        other => Err(Complaint::new(format!("{} is not a port", other.describe()), "write such as port = 5432")),
    })
    .or(draft.port);
    draft.name = reader.text_of(section, "name").map(|(name, _)| name).or(draft.name);
    draft.weight = read_value(reader, section, "weight", parse_weight).or(draft.weight);
    draft.role = read_value(reader, section, "role", Choice::<RoleSetting>::read).or(draft.role);
    let mut connection = read_connection(reader, section);
    connection.inherit(&draft.connection);
    draft.connection = connection;
    if section.get("host").is_none() && section.get("url").is_none() {
        let complaint =
            Complaint::new("this host has no `host`", "write { host = \"10.0.0.1\", ... } or { url = \"postgres://...\", ... }");
        reader.error(ProblemKind::MissingKey, span.clone(), complaint);
    }
    draft.address.is_some().then_some(draft)
}

/// The value of `key`, read by `read`.
fn read_value<T>(
    reader: &mut Reader,
    section: Section,
    key: &str,
    read: impl Fn(&RawValue) -> Result<T, Complaint>,
) -> Option<T> {
    let value = section.get(key)?;
    let raw = reader.raw(value)?;
    let result = read(&raw).map_err(|complaint| Complaint { message: format!("{key}: {}", complaint.message), ..complaint });
    reader.accept(ProblemKind::BadValue, &value.span(), result)
}

/// Reads the keys that say how hosts are reached.
pub(super) fn read_connection(reader: &mut Reader, section: Section) -> Connection {
    let sslmode = read_value_with(reader, section, "sslmode", parse_sslmode);
    let connection = Connection {
        user: reader.text_of(section, "user").map(|(user, _)| user),
        password: reader.secret_of(section, "password", "password_file"),
        database: reader.text_of(section, "database").map(|(database, _)| database),
        sslmode,
        sslrootcert: reader.text_of(section, "sslrootcert").map(|(text, _)| (text != "system").then(|| reader.folder.join(text))),
        sslcert: reader.path_of(section, "sslcert").map(|(path, _)| path),
        sslkey: reader.path_of(section, "sslkey").map(|(path, _)| path),
    };
    let span = ["sslcert", "sslkey", "sslrootcert"].iter().find_map(|key| section.get(key).map(Spanned::span));
    if let Some(span) = span {
        check_files(reader, &connection, &span);
    }
    connection
}

fn read_value_with<T>(
    reader: &mut Reader,
    section: Section,
    key: &str,
    mut read: impl FnMut(&str) -> Result<T, Complaint>,
) -> Option<T> {
    let (text, span) = reader.text_of(section, key)?;
    reader.accept(ProblemKind::BadValue, &span, read(&text))
}

fn check_files(reader: &mut Reader, connection: &Connection, span: &Span) {
    let files = [
        (connection.sslrootcert.clone().flatten(), PemContent::Certificate),
        (connection.sslcert.clone(), PemContent::Certificate),
        (connection.sslkey.clone(), PemContent::PrivateKey),
    ];
    for (path, content) in files {
        if let Some(path) = path {
            reader.check_file(&path, span.clone(), content);
        }
    }
}

/// The settings of a host whose connection has inherited all that it can. `database` is what probes connect to if nothing says otherwise.
pub(in crate::config) fn resolve(draft: HostDraft, database: &str) -> Result<HostSettings, Complaint> {
    let HostDraft { address, port, name, role, weight, connection, .. } = draft;
    let address = address.ok_or_else(|| Complaint::new("this host has no address", "write \"postgres://user@10.0.0.1/app\""))?;
    let port = port.unwrap_or(DEFAULT_SERVER_PORT);
    let user = connection.user.ok_or_else(|| {
        Complaint::new(
            "no user is given to probe this host with",
            "write it into the first host's URL, \"postgres://pgyard:${PGPASSWORD}@host/app\", or write user = \"pgyard\" in its section",
        )
    })?;
    let certificate = match (connection.sslcert, connection.sslkey) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => return Err(Complaint::new("sslcert is given without sslkey", "give both, or none")),
        (None, Some(_)) => return Err(Complaint::new("sslkey is given without sslcert", "give both, or none")),
    };
    let tls = server_tls(connection.sslmode, connection.sslrootcert, certificate)?;
    let label = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
    let name = name.unwrap_or(label);
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Complaint::new("a host's name is empty or has spaces in it", "write such as name = \"replica-1\""));
    }
    Ok(HostSettings {
        name,
        address,
        port,
        role: role.unwrap_or(RoleSetting::Auto),
        weight: weight.unwrap_or(1),
        tls,
        control: ControlCredentials {
            user,
            password: connection.password,
            database: connection.database.unwrap_or_else(|| database.to_owned()),
        },
    })
}

/// As libpq: the system's roots are those of everybody, so that nothing but verify-full makes sense with them.
fn server_tls(
    mode: Option<ServerTlsMode>,
    root: Option<Option<PathBuf>>,
    certificate: Option<(PathBuf, PathBuf)>,
) -> Result<ServerTlsSettings, Complaint> {
    let system = root == Some(None);
    let mode = mode.unwrap_or(if system { ServerTlsMode::VerifyFull } else { ServerTlsMode::Prefer });
    if system && mode != ServerTlsMode::VerifyFull {
        let message = format!("sslmode \"{}\" is too weak for sslrootcert \"system\"", mode.name());
        return Err(Complaint::new(message, "write sslmode \"verify-full\", or the file of your own authority as sslrootcert"));
    }
    Ok(ServerTlsSettings { mode, ca: root.flatten(), certificate, content: 0 })
}
