//! What lawfully differs between two servers' answers to one script, rule by rule.

use crate::integration::harness::client::Reply;

/// What is masked in one run.
#[derive(Debug)]
pub struct Mask {
    /// Objects with OIDs from here on were made by the script.
    pub first_fresh_oid: u32,
    seen: Vec<u32>,
}

impl Mask {
    /// For one run.
    pub fn new(first_fresh_oid: u32) -> Mask {
        Mask { first_fresh_oid, seen: Vec::new() }
    }

    /// Applies all rules.
    pub fn apply(&mut self, mut reply: Reply) -> Reply {
        match reply.tag {
            // `key`: a client's cancel key is its own.
            b'K' => reply.body.clear(),
            // `notifier`: the process that notifies is a server's, not the client's.
            b'A' => reply.body[..4].fill(0),
            // `source`: who ends a connection may be pgyard, which has no place in PostgreSQL's source.
            b'E' if reply.field(b'V').as_deref() == Some("FATAL") => without_source(&mut reply.body),
            // `aborted`: in a failed transaction, a statement that its server connection does not have is refused before its Bind.
            b'E' if reply.field(b'C').as_deref() == Some("25P02") => without_source(&mut reply.body),
            b'T' => self.row_description(&mut reply.body),
            b't' => self.parameter_description(&mut reply.body),
            _ => {}
        }
        reply
    }

    /// `fresh-oid`: tables and types that the script made count from 1, in the order in which they are seen.
    fn fresh_oid(&mut self, bytes: &mut [u8]) {
        let oid = u32::from_be_bytes(bytes.try_into().unwrap());
        if oid < self.first_fresh_oid {
            return;
        }
        let place = self.seen.iter().position(|known| *known == oid).unwrap_or_else(|| {
            self.seen.push(oid);
            self.seen.len() - 1
        });
        bytes.copy_from_slice(&(0xFFFF_0000 + u32::try_from(place).unwrap()).to_be_bytes());
    }

    fn row_description(&mut self, body: &mut [u8]) {
        let mut place = 2;
        while place < body.len() {
            place += body[place..].iter().position(|byte| *byte == 0).unwrap() + 1;
            self.fresh_oid(&mut body[place..place + 4]);
            self.fresh_oid(&mut body[place + 6..place + 10]);
            place += 18;
        }
    }

    fn parameter_description(&mut self, body: &mut [u8]) {
        for place in (2..body.len()).step_by(4) {
            self.fresh_oid(&mut body[place..place + 4]);
        }
    }
}

/// Takes the fields F, L and R out of an ErrorResponse.
fn without_source(body: &mut Vec<u8>) {
    let fields = body.split(|byte| *byte == 0).filter(|field| !matches!(field.first(), None | Some(b'F' | b'L' | b'R')));
    let kept: Vec<u8> = fields.flat_map(|field| [field, b"\0"].concat()).collect();
    *body = [kept.as_slice(), b"\0"].concat();
}
