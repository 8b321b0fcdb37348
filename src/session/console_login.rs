//! Logging a client in to the console.

use super::access::admit_to_console;
use super::candidate::Candidate;
use super::exchange::ClientSide;
use super::front::{ConsoleClient, Front};
use super::login::{Arrival, CONSOLE_DATABASE, LoginEnd, authenticate};
use crate::auth::{StoredSecret, message};
use crate::config::AuthMethod;
use crate::metrics::LoginFailureReason;

use crate::types::SqlState;
use crate::wire::reply::{Report, put_backend_key, put_parameter_status, put_ready};

/// Lets a console user in.
pub(super) async fn console(front: &Front, mut arrival: Arrival) -> Result<ConsoleClient, LoginEnd> {
    let user = arrival.user.clone();
    let settings = front.settings.load_full();
    let admitted = match admit_to_console(&settings, &arrival.entrance()).await {
        Ok(admitted) => admitted.unwrap_or_default(),
        Err(denied) => return Err(arrival.refuse(denied).await),
    };
    let admin = front.admin.load_full();
    let trusted = admitted.method == Some(AuthMethod::Trust);
    let open = admin.users.is_empty();
    if open && !trusted && !(arrival.peer.is_local() && user == CONSOLE_DATABASE) {
        let report = Report::fatal(SqlState::INVALID_AUTHORIZATION, "the console is not open to you").hint(
            "Without users under admin.users it serves the user pgyard from this machine only; with them, each by its password.",
        );
        return Err(arrival.refuse((LoginFailureReason::NotPermitted, report)).await);
    }
    let secret = admin.users.iter().find(|known| known.name == user).and_then(|known| StoredSecret::parse(&known.secret).ok());
    let method = if open { AuthMethod::Trust } else { admitted.method.unwrap_or(AuthMethod::Auto) };
    if method != AuthMethod::Trust
        && let Err(denied) = front.failures_of(&arrival)
    {
        return Err(arrival.refuse(denied).await);
    }
    let candidate = Candidate { user: user.clone(), method, secret, server_password: None, barred: None, looked_up: false };
    authenticate(front, &mut arrival, candidate).await?;
    let Arrival { stream, peer, .. } = arrival;
    let mut client = ClientSide::new(stream);
    let out = client.outbox.writer();
    out.extend_from_slice(&message::authentication_ok());
    let version = format!("15.0 (pgyard {})", env!("CARGO_PKG_VERSION"));
    let reported = [
        ("server_version", version.as_str()),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("standard_conforming_strings", "on"),
        ("integer_datetimes", "on"),
        ("TimeZone", "UTC"),
    ];
    reported.iter().for_each(|(name, value)| put_parameter_status(out, name, value));
    put_backend_key(out, 0, &[0; 4]);
    put_ready(out, b'I');
    Ok(ConsoleClient { client, user, peer })
}
