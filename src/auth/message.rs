//! The authentication messages as bytes.
//!
//! Spec: PostgreSQL documentation, "Message Formats": AuthenticationOk to AuthenticationSASLFinal, PasswordMessage, SASLInitialResponse,
//! SASLResponse.

/// The largest SASL body that PostgreSQL takes: `PG_MAX_SASL_MESSAGE_LENGTH`. Bytes.
pub const MAX_SASL_BODY: usize = 1024;

/// The largest password body that PostgreSQL takes: `PG_MAX_AUTH_TOKEN_LENGTH`. Bytes.
pub const MAX_PASSWORD_BODY: usize = 65535;

/// SCRAM without channel binding.
pub const SCRAM_SHA_256: &[u8] = b"SCRAM-SHA-256";

/// SCRAM with channel binding.
pub const SCRAM_SHA_256_PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";

/// An authentication message of a server, decoded. Borrowed from its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerAsks<'a> {
    /// AuthenticationOk.
    Ok,
    /// AuthenticationCleartextPassword.
    ClearText,
    /// AuthenticationMD5Password with its salt.
    Md5([u8; 4]),
    /// AuthenticationSASL.
    Sasl {
        /// `SCRAM-SHA-256` is among the mechanisms.
        scram: bool,
        /// `SCRAM-SHA-256-PLUS` is among the mechanisms.
        scram_plus: bool,
    },
    /// AuthenticationSASLContinue.
    SaslContinue(&'a [u8]),
    /// AuthenticationSASLFinal.
    SaslFinal(&'a [u8]),
    /// Kerberos, GSSAPI, SSPI and whatever comes later, by code.
    Other(u32),
}

/// Decodes the body of an `R` message; `None` if it has the wrong shape.
pub fn decode_server_asks(body: &[u8]) -> Option<ServerAsks<'_>> {
    let (code, rest) = body.split_first_chunk::<4>()?;
    Some(match u32::from_be_bytes(*code) {
        0 if rest.is_empty() => ServerAsks::Ok,
        3 if rest.is_empty() => ServerAsks::ClearText,
        5 => ServerAsks::Md5(rest.try_into().ok()?),
        10 => {
            let names = rest.strip_suffix(b"\0\0")?;
            let has = |name: &[u8]| names.split(|b| *b == 0).any(|offered| offered == name);
            ServerAsks::Sasl { scram: has(SCRAM_SHA_256), scram_plus: has(SCRAM_SHA_256_PLUS) }
        }
        11 => ServerAsks::SaslContinue(rest),
        12 => ServerAsks::SaslFinal(rest),
        0 | 3 => return None,
        code => ServerAsks::Other(code),
    })
}

/// AuthenticationOk.
pub fn authentication_ok() -> Vec<u8> {
    authentication(0, &[])
}

/// AuthenticationCleartextPassword.
pub fn clear_text_password() -> Vec<u8> {
    authentication(3, &[])
}

/// AuthenticationMD5Password.
pub fn md5_password(salt: [u8; 4]) -> Vec<u8> {
    authentication(5, &salt)
}

/// AuthenticationSASL; the mechanism with channel binding first, as PostgreSQL lists them.
pub fn sasl(with_channel_binding: bool) -> Vec<u8> {
    let mut names = Vec::new();
    if with_channel_binding {
        names.extend_from_slice(SCRAM_SHA_256_PLUS);
        names.push(0);
    }
    names.extend_from_slice(SCRAM_SHA_256);
    names.extend_from_slice(&[0, 0]);
    authentication(10, &names)
}

/// AuthenticationSASLContinue.
pub fn sasl_continue(data: &[u8]) -> Vec<u8> {
    authentication(11, data)
}

/// AuthenticationSASLFinal.
pub fn sasl_final(data: &[u8]) -> Vec<u8> {
    authentication(12, data)
}

/// PasswordMessage, with a password in clear or hashed.
pub fn password(text: &str) -> Vec<u8> {
    message(b'p', &[text.as_bytes(), &[0]])
}

/// SASLInitialResponse.
pub fn sasl_initial_response(mechanism: &[u8], data: &[u8]) -> Vec<u8> {
    message(b'p', &[mechanism, &[0], &length(data.len()), data])
}

/// SASLResponse.
pub fn sasl_response(data: &[u8]) -> Vec<u8> {
    message(b'p', &[data])
}

fn authentication(code: u32, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), data])
}

fn message(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = Vec::with_capacity(5 + body);
    bytes.push(tag);
    bytes.extend_from_slice(&length(body + 4));
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// Passwords and SASL data were bounded on their way in (a password by the configuration, the rest by a frame), far below this limit.
fn length(bytes: usize) -> [u8; 4] {
    i32::try_from(bytes).unwrap_or(i32::MAX).to_be_bytes()
}

/// A client's answer to AuthenticationSASL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslInitialResponse<'a> {
    /// The mechanism it chose.
    pub mechanism: &'a [u8],
    /// Its first SASL message; `None` if it waits for an empty challenge first.
    pub data: Option<&'a [u8]>,
}

/// Decodes the body of a SASLInitialResponse; `None` if it has the wrong shape.
pub fn decode_sasl_initial_response(body: &[u8]) -> Option<SaslInitialResponse<'_>> {
    let end = body.iter().position(|b| *b == 0)?;
    let (mechanism, rest) = (&body[..end], &body[end + 1..]);
    let (length, data) = rest.split_first_chunk::<4>()?;
    match i32::from_be_bytes(*length) {
        -1 if data.is_empty() => Some(SaslInitialResponse { mechanism, data: None }),
        length if usize::try_from(length) == Ok(data.len()) => Some(SaslInitialResponse { mechanism, data: Some(data) }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_have_the_documented_bytes() {
        let check = |actual: Vec<u8>, expect: &[u8]| assert_eq!(actual, expect);
        check(authentication_ok(), b"R\0\0\0\x08\0\0\0\0");
        check(clear_text_password(), b"R\0\0\0\x08\0\0\0\x03");
        check(md5_password([1, 2, 3, 4]), b"R\0\0\0\x0c\0\0\0\x05\x01\x02\x03\x04");
        check(sasl(false), b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0");
        check(sasl(true), b"R\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
        check(sasl_continue(b"r=x"), b"R\0\0\0\x0b\0\0\0\x0br=x");
        check(sasl_final(b"v=x"), b"R\0\0\0\x0b\0\0\0\x0cv=x");
        check(password("abc"), b"p\0\0\0\x08abc\0");
        check(sasl_initial_response(b"M", b"n,,"), b"p\0\0\0\x0dM\0\0\0\0\x03n,,");
        check(sasl_response(b"c=x"), b"p\0\0\0\x07c=x");
    }

    #[test]
    fn decodes_what_servers_ask() {
        let check = |body: &[u8], expect: Option<ServerAsks<'_>>| assert_eq!(decode_server_asks(body), expect, "{body:?}");
        check(b"\0\0\0\0", Some(ServerAsks::Ok));
        check(b"\0\0\0\x03", Some(ServerAsks::ClearText));
        check(b"\0\0\0\x05abcd", Some(ServerAsks::Md5(*b"abcd")));
        check(&sasl(true)[5..], Some(ServerAsks::Sasl { scram: true, scram_plus: true }));
        check(&sasl(false)[5..], Some(ServerAsks::Sasl { scram: true, scram_plus: false }));
        check(b"\0\0\0\x0aOAUTHBEARER\0\0", Some(ServerAsks::Sasl { scram: false, scram_plus: false }));
        check(b"\0\0\0\x0bx", Some(ServerAsks::SaslContinue(b"x")));
        check(b"\0\0\0\x0c", Some(ServerAsks::SaslFinal(b"")));
        check(b"\0\0\0\x07", Some(ServerAsks::Other(7)));
        for bad in [
            &b""[..],
            b"\0\0\0",
            b"\0\0\0\0x",
            b"\0\0\0\x03x",
            b"\0\0\0\x05abc",
            b"\0\0\0\x05abcde",
            b"\0\0\0\x0aSCRAM",
            b"\0\0\0\x0a\0",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn decodes_initial_responses() {
        let check = |body: &[u8], expect: Option<(&[u8], Option<&[u8]>)>| {
            let expect = expect.map(|(mechanism, data)| SaslInitialResponse { mechanism, data });
            assert_eq!(decode_sasl_initial_response(body), expect, "{body:?}");
        };
        check(b"M\0\0\0\0\x03n,,", Some((b"M", Some(b"n,,"))));
        check(b"M\0\0\0\0\0", Some((b"M", Some(b""))));
        check(b"M\0\xff\xff\xff\xff", Some((b"M", None)));
        for bad in [
            &b""[..],
            b"M",
            b"M\0",
            b"M\0\0\0\0",
            b"M\0\0\0\0\x04n,,",
            b"M\0\0\0\0\x02n,,",
            b"M\0\xff\xff\xff\xffx",
            b"M\0\xff\xff\xff\xfe",
        ] {
            check(bad, None);
        }
        check(b"M\0\x7f\xff\xff\xffx", None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(body: Vec<u8>) {
            decode_server_asks(&body);
            decode_sasl_initial_response(&body);
        }
    }
}
