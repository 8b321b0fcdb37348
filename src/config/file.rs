//! The TOML file: from text to checked settings, with every problem that can be found in one go.
//!
//! It never guesses: a key that it does not know is an error, with what was probably meant. It does not open connections or look up
//! names; hosts that do not exist are found by the probes.

pub(super) mod reader;
pub(super) mod suggest;

mod access;
mod check;
mod database;
mod host;
mod sharding;
mod syntax;
mod unknown;

pub(super) use host::resolve as resolve_host;

use super::codec::{Codec, Complaint, Flag};
use super::keys::{self, names, plain_names};
use super::problem::{Problem, ProblemKind};
use super::secrets::PemContent;
use super::settings::{AdminUser, ClientTlsSettings, Settings};
use reader::{Origins, Reader, Section};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use unknown::check_unknown;

/// The sections of the file.
const SECTIONS: [&str; 9] = ["tls", "log", "limits", "access", "user_maps", "peers", "admin", "defaults", "databases"];

/// Reads the reader's text. The settings are there only if there is no error.
pub(super) fn read(mut reader: Reader) -> (Option<Settings>, Vec<Problem>) {
    let text = reader.text;
    let (document, errors) = DeTable::parse_recoverable(text);
    let broken: Vec<_> = errors.iter().map(|error| syntax::note(&mut reader, error)).collect();
    let settings = read_document(&mut reader, document.get_ref());
    if !broken.is_empty() {
        reader.keep_independent_of(&broken);
    }
    let settings = (!reader.has_errors()).then_some(settings);
    (settings, reader.into_problems())
}

fn read_document(reader: &mut Reader, document: &DeTable) -> Settings {
    let mut settings = Settings::default();
    let mut origins = Origins::new();
    let top = Section { table: document, title: "" };
    let known: Vec<&str> = names(keys::TOP).chain(SECTIONS).collect();
    check_unknown(reader, top, &known);
    reader.read_keys(top, keys::TOP, &mut settings, &mut origins);
    if let Some(log) = section(reader, top, "log", "[log]") {
        check_unknown(reader, log, &names(keys::LOG).collect::<Vec<_>>());
        reader.read_keys(log, keys::LOG, &mut settings, &mut origins);
    }
    if let Some(limits) = section(reader, top, "limits", "[limits]") {
        check_unknown(reader, limits, &names(keys::LIMITS).collect::<Vec<_>>());
        reader.read_keys(limits, keys::LIMITS, &mut settings, &mut origins);
    }
    settings.tls = read_tls(reader, top);
    settings.admin.users = read_admin(reader, top);
    access::read(reader, top, &mut settings);
    check::front(reader, &settings, &origins, top);
    settings.databases = database::read_all(reader, top, &settings);
    settings
}

/// The section under `key`, if it is there and is one.
fn section<'t, 'i>(reader: &mut Reader, parent: Section<'t, 'i>, key: &str, title: &'t str) -> Option<Section<'t, 'i>> {
    let value: &'t Spanned<DeValue<'i>> = parent.get(key)?;
    reader.table_of(value, title).map(|table| Section { table, title })
}

fn read_tls(reader: &mut Reader, top: Section) -> Option<ClientTlsSettings> {
    let tls = section(reader, top, "tls", "[tls]")?;
    check_unknown(reader, tls, &plain_names(keys::TLS).collect::<Vec<_>>());
    let certificate = reader.path_of(tls, "certificate");
    let key = reader.path_of(tls, "key");
    let client_ca = reader.path_of(tls, "client_ca");
    let mut required = false;
    if let Some(value) = tls.get("required")
        && let Some(raw) = reader.raw(value)
    {
        required = reader.accept(ProblemKind::BadValue, &value.span(), Flag::read(&raw)).unwrap_or(false);
    }
    let header = top.key_span("tls").unwrap_or(0..0);
    for (name, found) in [("certificate", tls.get("certificate")), ("key", tls.get("key"))] {
        if found.is_none() {
            let complaint = Complaint::new(
                format!("[tls] has no `{name}`"),
                "TLS needs both: certificate = \"server.crt\" and key = \"server.key\"",
            );
            reader.error(ProblemKind::MissingKey, header.clone(), complaint);
        }
    }
    for (file, content) in
        [(&certificate, PemContent::Certificate), (&key, PemContent::PrivateKey), (&client_ca, PemContent::Certificate)]
    {
        if let Some((path, span)) = file {
            reader.check_file(path, span.clone(), content);
        }
    }
    let client_cert_optional = client_cert_optional(reader, tls);
    let client_ca = client_ca.map(|(path, _)| path);
    let (certificate, key) = (certificate?.0, key?.0);
    let files = [Some(&certificate), Some(&key), client_ca.as_ref()];
    let content = reader.content_of(files.into_iter().flatten());
    Some(ClientTlsSettings { certificate, key, client_ca, required, client_cert_optional, content })
}

/// `client_cert` of `[tls]`.
fn client_cert_optional(reader: &mut Reader, tls: Section) -> bool {
    let Some((text, span)) = reader.text_of(tls, "client_cert") else { return false };
    if !["required", "optional"].contains(&text.as_str()) {
        let complaint = Complaint::new(format!("`{text}` is not known"), "write \"required\" or \"optional\"");
        reader.error(ProblemKind::BadValue, span, complaint);
    } else if tls.get("client_ca").is_none() {
        reader.error(
            ProblemKind::Contradiction,
            span,
            Complaint::new("client_cert has no effect without client_ca", "add client_ca"),
        );
    }
    text == "optional"
}

fn read_admin(reader: &mut Reader, top: Section) -> Vec<AdminUser> {
    let Some(admin) = section(reader, top, "admin", "[admin]") else { return Vec::new() };
    check_unknown(reader, admin, &["users"]);
    let Some(users) = section(reader, admin, "users", "[admin.users.NAME]") else { return Vec::new() };
    let mut found = Vec::new();
    for (name, name_span, value) in users.entries() {
        let secret = if let DeValue::Table(table) = value.get_ref() {
            let title = format!("[admin.users.{name}]");
            let section = Section { table, title: &title };
            check_unknown(reader, section, &plain_names(keys::ADMIN_USER).collect::<Vec<_>>());
            if section.get("password").is_none() && section.get("password_file").is_none() {
                let complaint = Complaint::new(
                    format!("the console user `{name}` has no password"),
                    "write password = \"${NAME}\" or password_file = \"/run/secrets/...\"",
                );
                reader.error(ProblemKind::MissingKey, name_span.clone(), complaint);
            }
            reader.secret_of(section, "password", "password_file")
        } else {
            reader.secret_value(value, name)
        };
        check::secret(reader, secret.as_ref(), &name_span, None);
        found.extend(secret.map(|secret| AdminUser { name: name.to_owned(), secret }));
    }
    found
}
