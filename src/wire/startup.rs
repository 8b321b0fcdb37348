//! The first packet of a connection: it has no type byte.

use super::{Cursor, WireError};

/// Longest first packet. Bytes, with its length field.
///
/// Spec: `MAX_STARTUP_PACKET_LENGTH` in `src/include/libpq/pqcomm.h`.
pub const STARTUP_MAX: usize = 10_000;

const CANCEL_CODE: u32 = 80_877_102;
const TLS_CODE: u32 = 80_877_103;
const GSS_CODE: u32 = 80_877_104;
/// A CancelRequest that one pgyard passes on to another. Not PostgreSQL's: it takes it for an unknown protocol, and closes.
const PEER_CANCEL_CODE: u32 = (1234 << 16) | 26_478;

/// A first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartupPacket {
    /// SSLRequest.
    Tls,
    /// GSSENCRequest.
    Gss,
    /// CancelRequest.
    Cancel {
        /// Which session.
        process: i32,
        /// Its key: 4 bytes under protocol 3.0, up to 256 under 3.2.
        key: Vec<u8>,
    },
    /// A CancelRequest that another pgyard has passed on: it is not passed on again.
    PeerCancel {
        /// Which session.
        process: i32,
        /// Its key.
        key: Vec<u8>,
    },
    /// StartupMessage.
    Start(StartupMessage),
}

/// A StartupMessage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartupMessage {
    /// Minor version of protocol 3.
    pub minor: u16,
    /// Names and values in order, without `_pq_.` options.
    pub parameters: Vec<(String, String)>,
    /// Names of `_pq_.` protocol options.
    pub protocol_options: Vec<String>,
}

impl StartupMessage {
    /// The last value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Checks the length field of a first packet and returns the packet's length. Bytes.
///
/// # Errors
/// It is under 8 or over [`STARTUP_MAX`].
pub fn packet_length(field: [u8; 4]) -> Result<usize, WireError> {
    let length = u32::from_be_bytes(field);
    if (8..=STARTUP_MAX as u32).contains(&length) { Ok(length as usize) } else { Err(WireError::Length { tag: b'0', length }) }
}

impl StartupPacket {
    /// Reads a packet without its length field.
    ///
    /// # Errors
    /// An unknown version, or a body of the wrong shape.
    pub fn read(body: &[u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::new(body);
        let code = cursor.int32()? as u32;
        match code {
            TLS_CODE => cursor.end().map(|()| StartupPacket::Tls),
            GSS_CODE => cursor.end().map(|()| StartupPacket::Gss),
            CANCEL_CODE | PEER_CANCEL_CODE => {
                let process = cursor.int32()?;
                let key = cursor.rest();
                if key.is_empty() || key.len() > 256 {
                    return Err(WireError::Field("cancel key"));
                }
                let key = key.to_vec();
                Ok(if code == CANCEL_CODE {
                    StartupPacket::Cancel { process, key }
                } else {
                    StartupPacket::PeerCancel { process, key }
                })
            }
            _ if code >> 16 == 3 => Self::start((code & 0xFFFF) as u16, cursor).map(StartupPacket::Start),
            _ => Err(WireError::Field("protocol version")),
        }
    }

    fn start(minor: u16, mut cursor: Cursor<'_>) -> Result<StartupMessage, WireError> {
        let mut message = StartupMessage { minor, parameters: Vec::new(), protocol_options: Vec::new() };
        loop {
            let name = cursor.string()?;
            if name.is_empty() {
                break;
            }
            let value = cursor.string()?;
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| WireError::Field("startup parameter"));
            let name = text(name)?;
            match name.starts_with("_pq_.") {
                true => message.protocol_options.push(name),
                false => message.parameters.push((name, text(value)?)),
            }
        }
        cursor.end()?;
        Ok(message)
    }
}

/// Appends a StartupMessage of protocol 3.0.
pub fn put_startup(out: &mut Vec<u8>, parameters: &[(&str, &str)]) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(3u32 << 16).to_be_bytes());
    for (name, value) in parameters {
        super::frame::put_string(out, name.as_bytes());
        super::frame::put_string(out, value.as_bytes());
    }
    out.push(0);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends an SSLRequest.
pub fn put_tls_request(out: &mut Vec<u8>) {
    out.extend_from_slice(&8u32.to_be_bytes());
    out.extend_from_slice(&TLS_CODE.to_be_bytes());
}

/// Appends a CancelRequest.
pub fn put_cancel(out: &mut Vec<u8>, process: i32, key: &[u8]) {
    put_cancel_code(out, CANCEL_CODE, process, key);
}

/// Appends a CancelRequest for another pgyard, which does not pass it on.
pub fn put_peer_cancel(out: &mut Vec<u8>, process: i32, key: &[u8]) {
    put_cancel_code(out, PEER_CANCEL_CODE, process, key);
}

fn put_cancel_code(out: &mut Vec<u8>, code: u32, process: i32, key: &[u8]) {
    out.extend_from_slice(&((12 + key.len()) as u32).to_be_bytes());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&process.to_be_bytes());
    out.extend_from_slice(key);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_kind_of_first_packet() {
        let mut out = Vec::new();
        put_startup(&mut out, &[("user", "a"), ("database", "b")]);
        assert_eq!(packet_length([out[0], out[1], out[2], out[3]]), Ok(out.len()));
        let Ok(StartupPacket::Start(start)) = StartupPacket::read(&out[4..]) else { panic!("not a start") };
        assert_eq!((start.minor, start.get("user"), start.get("none")), (0, Some("a"), None));
        for cut in 4..out.len() {
            assert!(StartupPacket::read(&out[4..cut]).is_err(), "cut at {cut}");
        }
        let mut out = Vec::new();
        put_tls_request(&mut out);
        assert_eq!(StartupPacket::read(&out[4..]), Ok(StartupPacket::Tls));
        let mut out = Vec::new();
        put_cancel(&mut out, 7, &[1, 2, 3, 4]);
        assert_eq!(StartupPacket::read(&out[4..]), Ok(StartupPacket::Cancel { process: 7, key: vec![1, 2, 3, 4] }));
        let mut out = Vec::new();
        put_peer_cancel(&mut out, 7, &[9; 32]);
        assert_eq!(StartupPacket::read(&out[4..]), Ok(StartupPacket::PeerCancel { process: 7, key: vec![9; 32] }));
    }

    #[test]
    fn refuses_impossible_packets() {
        for bad in [[0, 0, 0, 7], [0, 0, 0x27, 0x11], [0xff; 4]] {
            assert!(packet_length(bad).is_err());
        }
        for bad in
            [&b"\0\x02\0\0"[..], b"\0\x03\0\0user\0", b"\0\x03\0\0\0x", b"\x04\xd2\x16\x2f\0", b"", b"\0\x03\0\0\xff\0\xff\0\0"]
        {
            assert!(StartupPacket::read(bad).is_err(), "{bad:?}");
        }
    }
}
