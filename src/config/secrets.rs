//! Files that the configuration names: passwords, certificates and keys. And what looks like a secret in a text that could not be read.

use super::codec::Complaint;
use super::environment::is_variable;
use crate::types::Secret;
use std::hash::{Hash, Hasher};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Whether files that the configuration names are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FilePolicy {
    /// They are read and checked.
    Read,
    /// They are taken to be there and right. Secrets in them are stood in for by a text that no server accepts.
    Assume,
}

/// What a PEM file has to contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PemContent {
    Certificate,
    PrivateKey,
}

/// A secret out of a file.
#[derive(Debug)]
pub(super) struct SecretFile {
    pub(super) secret: Secret,
    pub(super) readable_by_others: bool,
}

/// No password, verifier or PEM file is larger; a mistaken path to a device or a disk image must not be read whole.
const LARGEST_FILE: u64 = 1 << 20;

/// Reads a secret; one line end after it is not part of it.
pub(super) fn read_secret(path: &Path, policy: FilePolicy) -> Result<SecretFile, Complaint> {
    if policy == FilePolicy::Assume {
        return Ok(SecretFile { secret: Secret::new(format!("(in {})", path.display())), readable_by_others: false });
    }
    let text = read(path)?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err(Complaint::new(format!("the file {} is empty", path.display()), "write the password into it, on one line"));
    }
    if secret.contains('\n') {
        return Err(Complaint::new(format!("the file {} has several lines", path.display()), "a secret is one line"));
    }
    Ok(SecretFile { secret: Secret::new(secret), readable_by_others: readable_by_others(path) })
}

/// Looks whether a PEM file is there and holds what it should; may have a remark.
pub(super) fn check_file(path: &Path, expect: PemContent, policy: FilePolicy) -> Result<Option<Complaint>, Complaint> {
    if policy == FilePolicy::Assume {
        return Ok(None);
    }
    let text = read(path)?;
    let (wanted, words) = match expect {
        PemContent::Certificate => ("CERTIFICATE-----", "certificate"),
        PemContent::PrivateKey => ("PRIVATE KEY-----", "private key"),
    };
    if !text.contains(wanted) {
        let message = format!("the file {} holds no PEM {words}", path.display());
        let help = if text.contains("PRIVATE KEY-----") {
            "it holds a private key: are the two files the other way round?".to_owned()
        } else if text.contains("CERTIFICATE-----") {
            "it holds a certificate: are the two files the other way round?".to_owned()
        } else {
            format!("a PEM {words} has a line -----BEGIN ... {wanted}")
        };
        return Err(Complaint::new(message, help));
    }
    if expect == PemContent::PrivateKey && readable_by_others(path) {
        let message = format!("the private key {} can be read by every user of this machine", path.display());
        return Ok(Some(Complaint::new(message, format!("chmod 600 {}", path.display()))));
    }
    Ok(None)
}

/// A number that is another one when the content of one of the files is. A file that can't be read counts as empty: whoever needs it says so.
pub(super) fn content_of<'p>(files: impl Iterator<Item = &'p PathBuf>, policy: FilePolicy) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    if policy == FilePolicy::Read {
        files.for_each(|path| read(path).unwrap_or_default().hash(&mut hasher));
    }
    hasher.finish()
}

fn read(path: &Path) -> Result<String, Complaint> {
    let complain = |error: &io::Error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "is the path right? Relative paths start at the configuration file's folder".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "the user that pgyard runs as needs to read it, and to enter its folders".to_owned()
            }
            _ => "it has to be a readable text file".to_owned(),
        };
        Complaint::new(format!("cannot read the file {}: {error}", path.display()), help)
    };
    let metadata = std::fs::metadata(path).map_err(|error| complain(&error))?;
    if !metadata.is_file() || metadata.len() > LARGEST_FILE {
        let message = format!("{} is not a file of at most 1MiB", path.display());
        return Err(Complaint::new(message, "name the file itself"));
    }
    std::fs::read_to_string(path).map_err(|error| complain(&error))
}

/// Whether every user may read it. Secrets that an orchestrator mounts for one container are readable by all in it, and only there.
pub(super) fn readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let mounted = ["/run/secrets", "/var/run/secrets"].iter().any(|folder| path.starts_with(folder));
    !mounted && std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// Byte ranges of `text` that look like secrets, for texts of which no more is known: passwords in URLs, values of keys
/// called password. Too much rather than too little.
pub(super) fn guess(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut line_start = 0;
    let mut among_users = false;
    for line in text.split_inclusive('\n') {
        let code = line.trim_start();
        if code.starts_with('[') {
            among_users = code.split(']').next().is_some_and(|title| title.contains("users"));
        }
        guess_in_line(line, among_users || code.starts_with("users"), |range| {
            found.push(line_start + range.start..line_start + range.end);
        });
        line_start += line.len();
    }
    found
}

fn guess_in_line(line: &str, among_users: bool, mut report: impl FnMut(Range<usize>)) {
    for (at, _) in line.match_indices("://") {
        let start = at + 3;
        let end = start + line[start..].find(['"', '\'', ' ', '\t', '\n']).unwrap_or(line.len() - start);
        let token = &line[start..end];
        let sign = token.rfind('@');
        if let (Some(colon), Some(sign)) = (token.find(':'), sign)
            && colon < sign
            && !is_variable(&token[colon + 1..sign])
        {
            report(start + colon + 1..start + sign);
        }
        // What stands where the port should be, and is no port, may be a password that lost its place.
        let host_start = sign.map_or(0, |sign| sign + 1);
        let host = &token[host_start..];
        let host = &host[..host.find(['/', '?', '#']).unwrap_or(host.len())];
        if let Some(colon) = host.rfind(':').filter(|colon| !host[*colon..].contains(']')) {
            let port = &host[colon + 1..];
            if !port.is_empty() && !port.bytes().all(|b| b.is_ascii_digit()) && !is_variable(port) {
                report(start + host_start + colon + 1..start + host_start + host.len());
            }
        }
    }
    for (at, word) in line.match_indices("password").chain(line.match_indices("secret")) {
        let after = &line[at + word.len()..];
        let gap = after.len() - after.trim_start_matches(['"', '\'', ' ', '\t']).len();
        if after[gap..].starts_with(['=', ':']) {
            report_value(line, at + word.len() + gap + 1, &mut report);
        }
    }
    // Under users, `name = "password"` is a short form.
    if among_users && !line.trim_start().starts_with(['[', '#']) {
        for (at, _) in line.match_indices('=') {
            let key = line[..at].trim_end();
            let plain = ["pool_size", "pool_mode", "consistency", "max_clients", "_file", "users"];
            if !plain.iter().any(|name| key.ends_with(name)) {
                report_value(line, at + 1, &mut report);
            }
        }
    }
}

/// Reports the value that begins at `start`: between its quotes, or up to the end of the line.
fn report_value(line: &str, start: usize, report: &mut impl FnMut(Range<usize>)) {
    let rest = &line[start..];
    let value_start = start + (rest.len() - rest.trim_start().len());
    let value = line[value_start..].trim_end();
    let range = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let inner = &value[1..];
            value_start + 1..value_start + 1 + inner.find(quote).unwrap_or(inner.len())
        }
        Some('{' | '[') | None => return,
        // In a URL's query the value ends with the parameter.
        Some(_) => value_start..value_start + value.find(['&', '"', '\'']).unwrap_or(value.len()),
    };
    if !range.is_empty() && !is_variable(&line[range.clone()]) {
        report(range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn check(text: &str, expect: &[&str]) {
        let mut found: Vec<&str> = guess(text).into_iter().map(|range| &text[range]).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn guesses_what_is_secret() {
        check("a = \"postgres://u:p@h/d\"", &["p"]);
        check("a = \"postgres://u:p@q@h/d\" # x", &["p@q"]);
        check("a = \"postgres://u@h/d?password=x&a=b\"", &["x"]);
        check("a = \"postgres://u:${P}@h:5/d\"", &[]);
        check("a = \"postgres://h:5/d\"", &[]);
        check("a = \"postgres://h:x1/d\"", &["x1"]);
        check("a = \"postgres://[::1]/d\"", &[]);
        check("a = \"postgres://u:p@[::1]:5/d\"", &["p"]);
        check("a = \"postgres://h:${PORT}/d\"", &[]);
        check("password = \"x y\" # z", &["x y"]);
        check("password = hunter2", &["hunter2"]);
        check("password: 'x'", &["x"]);
        check("a = { user = \"u\", password = \"x\", port = 1 }", &["x"]);
        check("password = \"${P}\"", &[]);
        check("password = \"${P:-x}\"", &["${P:-x}"]);
        check("password_file = \"/run/x\"", &[]);
        check("password = \"unclosed", &["unclosed"]);
        check("[databases.a.users]\nbob = \"x\"\n[log]\nlevel = \"y\"", &["x"]);
        check("users = { bob = \"x\" }", &["x"]);
    }

    #[test]
    fn reads_secret_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let read = |content: &str, mode: u32| {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read_secret(&path, FilePolicy::Read).map(|file| (file.secret.reveal().to_owned(), file.readable_by_others))
        };
        assert_eq!(read("hunter2\n", 0o600), Ok(("hunter2".into(), false)));
        assert_eq!(read(" a b \r\n", 0o644), Ok((" a b ".into(), true)));
        assert!(read("", 0o600).unwrap_err().message.contains("is empty"));
        assert!(read("\n", 0o600).unwrap_err().message.contains("is empty"));
        assert!(read("a\nb\n", 0o600).unwrap_err().message.contains("several lines"));
        assert!(read_secret(folder.path(), FilePolicy::Read).unwrap_err().message.contains("is not a file"));
        let missing = read_secret(&folder.path().join("none"), FilePolicy::Read).unwrap_err();
        assert!(missing.message.contains("No such file"), "{}", missing.message);
    }

    #[test]
    fn looks_into_pem_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pem");
        let certificate = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n";
        let check = |content: &str, expect| {
            std::fs::write(&path, content).unwrap();
            check_file(&path, expect, FilePolicy::Read).map(|remark| remark.is_some()).map_err(|complaint| complaint.help)
        };
        assert_eq!(check(certificate, PemContent::Certificate), Ok(false));
        assert_eq!(check(key, PemContent::PrivateKey), Ok(true), "a new file is readable by all");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(check(key, PemContent::PrivateKey), Ok(false));
        assert!(check(key, PemContent::Certificate).unwrap_err().contains("other way round"));
        assert!(check(certificate, PemContent::PrivateKey).unwrap_err().contains("other way round"));
        assert!(check("x", PemContent::PrivateKey).unwrap_err().contains("-----BEGIN"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "(password|users|://|=|\"|'|:|@|\u{e4}| |\n|\\[|\\]|\\{|\\$){0,30}") {
            for range in guess(&text) {
                prop_assert!(text.get(range).is_some());
            }
        }
    }
}
