//! Plays a script against a server or pgyard, and keeps every message of the answers.

use super::mask::Mask;
use super::script::{Deed, Script, Step, Wait};
use crate::integration::harness::client::{RawClient, Reply, frame, query, startup};
use bytes::BytesMut;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use std::collections::BTreeMap;
use std::io;

/// Where a script is played.
#[derive(Clone, Debug)]
pub struct Place {
    /// On 127.0.0.1.
    pub port: u16,
    /// As clients name it.
    pub database: String,
    /// See `Mask`.
    pub first_fresh_oid: u32,
}

/// What came while a step was played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message, masked.
    Reply(Reply),
    /// The end of the connection.
    End,
    /// Nothing came any more; the script ends here.
    Silence(String),
}

/// What a step has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    /// The step as it is written.
    pub line: String,
    /// In order.
    pub events: Vec<Event>,
    /// The status of the last ReadyForQuery.
    pub status: u8,
}

/// Plays a whole script. At its end every session says goodbye, and what it then still reads belongs to the answer.
pub fn play(place: &Place, script: &Script) -> Vec<Played> {
    let mut player = Player { place, clients: BTreeMap::new(), mask: Mask::new(place.first_fresh_oid) };
    let mut played = Vec::new();
    for step in &script.steps {
        played.push(player.step(step));
        if matches!(played.last().and_then(|last| last.events.last()), Some(Event::Silence(_))) {
            return played;
        }
    }
    let open: Vec<usize> = player.clients.keys().copied().collect();
    for session in open {
        played.push(player.step(&Step { session, deed: Deed::Close, line: format!("{session}: close, at the end") }));
    }
    played
}

/// The sessions of a script that is being played.
pub struct Player<'a> {
    place: &'a Place,
    clients: BTreeMap<usize, RawClient>,
    mask: Mask,
}

impl Player<'_> {
    fn step(&mut self, step: &Step) -> Played {
        let mut played = Played { line: step.line.clone(), events: Vec::new(), status: 0 };
        if let Err(error) = self.act(step, &mut played) {
            played.events.push(Event::Silence(error.to_string()));
        }
        played
    }

    fn act(&mut self, step: &Step, played: &mut Played) -> io::Result<()> {
        let parameters: &[(String, String)] = if let Deed::Open(parameters) = &step.deed { parameters } else { &[] };
        if !self.clients.contains_key(&step.session) {
            let client = log_in(self.place, parameters, |reply| {
                played.events.push(Event::Reply(self.mask.apply(reply)));
            })?;
            match client {
                Some(client) => drop(self.clients.insert(step.session, client)),
                None => {
                    played.events.push(Event::End);
                    return Ok(());
                }
            }
        }
        let Some(client) = self.clients.get_mut(&step.session) else { return Ok(()) };
        let wait = match &step.deed {
            Deed::Open(_) => return Ok(()),
            Deed::Abort => {
                self.clients.remove(&step.session);
                return Ok(());
            }
            Deed::Send(chunks, wait) => {
                for chunk in chunks {
                    // A server that has said its last word closes: its words are compared, not the moment.
                    if client.send(chunk).is_err() {
                        break;
                    }
                }
                if let Wait::Mark(mark) = wait {
                    // Nothing of a COPY or of a pipeline is left open in front of the mark.
                    client.send(&[frame(b'f', b"mark\0"), frame(b'S', b""), query(&format!("select 'mark {mark}'"))].concat())?;
                }
                wait.clone()
            }
            Deed::Close => {
                // It may be closed already.
                drop(client.send(&frame(b'X', b"")));
                Wait::End
            }
            Deed::Half => {
                client.finish_sending()?;
                Wait::End
            }
        };
        let ended = read(client, &wait, &mut self.mask, played)?;
        if ended {
            self.clients.remove(&step.session);
        }
        Ok(())
    }
}

/// Reads what is waited for; answers whether the connection has ended.
fn read(client: &mut RawClient, wait: &Wait, mask: &mut Mask, played: &mut Played) -> io::Result<bool> {
    let mut left: &[u8] = match wait {
        Wait::Tags(tags) => tags,
        Wait::End | Wait::Mark(_) => b"",
    };
    let (mut refused, mut asked, mut due) = (false, false, false);
    loop {
        if matches!(wait, Wait::Tags(_)) && left.is_empty() {
            return Ok(false);
        }
        let Some(reply) = client.receive()? else {
            played.events.push(Event::End);
            return Ok(true);
        };
        if left.first() == Some(&reply.tag) {
            left = &left[1..];
        }
        if reply.tag == b'Z' {
            played.status = reply.body[0];
        }
        if let Wait::Mark(mark) = wait {
            // The mark comes as a row. In a failed transaction it does not; then a text that can't be parsed is the mark, for
            // that is found out before anything else.
            let text = |field: &Reply| field.field(b'M').unwrap_or_default();
            due |= reply.tag == b'D' && reply.body.ends_with(format!("mark {mark}").as_bytes());
            due |= reply.tag == b'E' && text(&reply).contains(&format!("\"mark_{mark}\""));
            refused = (refused && reply.tag == b'Z') || (reply.tag == b'E' && reply.field(b'C').as_deref() == Some("25P02"));
            if reply.tag == b'Z' && refused && !asked {
                asked = true;
                client.send(&query(&format!("mark_{mark}")))?;
            }
        }
        let done = due && reply.tag == b'Z';
        played.events.push(Event::Reply(mask.apply(reply)));
        if done {
            return Ok(false);
        }
    }
}

/// Logs in as `oracle`, or whom the parameters name; every message behind AuthenticationOk goes to `seen`. `None`: refused.
fn log_in(place: &Place, parameters: &[(String, String)], mut seen: impl FnMut(Reply)) -> io::Result<Option<RawClient>> {
    let mut all = vec![("user", "oracle"), ("database", place.database.as_str())];
    for (name, value) in parameters {
        all.retain(|(known, _)| known != name);
        all.push((name, value));
    }
    let mut client = RawClient::connect(place.port)?;
    if let Some(seconds) = std::env::var("PGYARD_ORACLE_SILENCE").ok().and_then(|seconds| seconds.parse().ok()) {
        client.set_silence(std::time::Duration::from_secs(seconds))?;
    }
    client.send(&startup(&all))?;
    let mut scram = ScramSha256::new(b"oracle", ChannelBinding::unsupported());
    loop {
        let Some(reply) = client.receive()? else { return Ok(None) };
        let code = reply.body.get(..4).map(|code| i32::from_be_bytes(code.try_into().unwrap()));
        let mut out = BytesMut::new();
        match (reply.tag, code) {
            (b'R', Some(10)) => frontend::sasl_initial_response("SCRAM-SHA-256", scram.message(), &mut out)?,
            (b'R', Some(11)) => {
                scram.update(&reply.body[4..])?;
                frontend::sasl_response(scram.message(), &mut out)?;
            }
            (b'R', Some(12)) => scram.finish(&reply.body[4..])?,
            (b'R', _) => {}
            (tag, _) => {
                seen(reply);
                if tag == b'Z' {
                    return Ok(Some(client));
                }
            }
        }
        client.send(&out)?;
    }
}

/// Says in which step two runs differ first, and how; `None` if they don't.
pub fn difference(direct: &[Played], through: &[Played]) -> Option<String> {
    let place = (0..direct.len().max(through.len())).find(|place| direct.get(*place) != through.get(*place))?;
    let (own, other) = (direct.get(place), through.get(place));
    let line = own.or(other).map_or("", |played| &played.line);
    let shown: String = line.chars().take(600).collect();
    let list = |played: Option<&Played>| played.map_or_else(Vec::new, |played| played.events.iter().map(show).collect());
    let (own, other): (Vec<String>, Vec<String>) = (list(own), list(other));
    let same = own.iter().zip(&other).take_while(|(own, other)| own == other).count();
    let part = |events: &[String]| match events.get(same.saturating_sub(2)..(same + 12).min(events.len())) {
        Some(events) if !events.is_empty() => events.iter().map(|event| format!("\n      {event}")).collect::<String>(),
        _ => "\n      nothing".to_owned(),
    };
    Some(format!(
        "  at {shown}\n    PostgreSQL ({} in all):{}\n    pgyard ({}):{}",
        own.len(),
        part(&own),
        other.len(),
        part(&other)
    ))
}

fn show(event: &Event) -> String {
    match event {
        Event::Reply(reply) => {
            let body = String::from_utf8_lossy(&reply.body).escape_debug().to_string();
            let cut: String = body.chars().take(400).collect();
            format!("{} {} bytes: {cut}", reply.tag as char, reply.body.len())
        }
        Event::End => "the connection ended".to_owned(),
        Event::Silence(error) => format!("silence: {error}"),
    }
}

/// All that came, for people.
pub fn transcript(played: &[Played]) -> String {
    let step = |played: &Played| {
        let events: Vec<String> = played.events.iter().map(|event| format!("\n      {}", show(event))).collect();
        format!("  {}{}\n", played.line, events.concat())
    };
    played.iter().map(step).collect()
}
