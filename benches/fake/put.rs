//! Messages of a server, as bytes.

use super::answers::Format;

/// What the log-in reports: what drivers, pgbench and proxies look at.
const PARAMETERS: [(&str, &str); 13] = [
    ("application_name", ""),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("default_transaction_read_only", "off"),
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("IntervalStyle", "postgres"),
    ("is_superuser", "on"),
    ("server_encoding", "UTF8"),
    ("server_version", "15.0"),
    ("session_authorization", "bench"),
    ("standard_conforming_strings", "on"),
    ("TimeZone", "UTC"),
];

/// Appends a message.
pub fn message(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
}

/// Appends everything from AuthenticationOk to the first ReadyForQuery.
pub fn welcome(out: &mut Vec<u8>) {
    message(out, b'R', &[0; 4]);
    for (name, value) in PARAMETERS {
        message(out, b'S', format!("{name}\0{value}\0").as_bytes());
    }
    message(out, b'K', &[0, 0, 0, 1, 0, 0, 0, 1]);
    message(out, b'Z', b"I");
}

/// The format that a Bind asks results in; `bind` begins behind its two names.
pub fn result_format(bind: &[u8]) -> Format {
    let mut place = 0;
    let mut number = |length: usize| {
        let bytes = bind.get(place..place + length).unwrap_or_default();
        place += length;
        bytes.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte))
    };
    for _ in 0..number(2) {
        number(2);
    }
    for _ in 0..number(2) {
        let length = number(4);
        if length != u32::MAX {
            number(length as usize);
        }
    }
    // One code stands for all columns; nobody asks for a mixture here.
    let codes = number(2);
    if codes > 0 && number(2) == 1 { Format::Binary } else { Format::Text }
}
