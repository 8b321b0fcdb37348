//! What follows when a server goes away under a unit. Pure: the table of the design, as a function.

use crate::metrics::QueryRoute;
use crate::types::SqlState;
use crate::wire::reply::Report;

/// Replicas on which a unit may end a connection before it is suspected of doing it.
const DEATHS_MAX: usize = 2;

/// What is known when the connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The host's part.
    pub route: QueryRoute,
    /// The unit is proven to read only, and was sent outside a transaction and without a pin.
    pub harmless: bool,
    /// It can't have had an effect: it was not sent whole, or it is a plain write that the server has turned away.
    pub no_effect: bool,
    /// An administrator ended the session: its host goes on.
    pub killed: bool,
    /// It is small enough to have been kept.
    pub kept: bool,
    /// Something of the answer was forwarded.
    pub committed: bool,
    /// A message was cut off in the middle on its way to the client.
    pub cut_off: bool,
    /// The server said why it ends the connection, and the client has seen it.
    pub explained: bool,
    /// The server says that the client has broken the protocol.
    pub protocol: bool,
    /// A transaction block was open.
    pub in_transaction: bool,
    /// The unit, or what it contains, may have been committed.
    pub may_have_committed: bool,
    /// It ran longer than `query_timeout`, and its server did not even answer the cancelling.
    pub timed_out: bool,
    /// The server said something before it went.
    pub said_something: bool,
    /// Its host does not take connections any more: it was not a statement that ended the session.
    pub host_is_gone: bool,
    /// Connections that this unit has lost before without a word of the server.
    pub losses: usize,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossAction {
    /// Send it again, to another host.
    Again,
    /// The client gets this error and stays connected.
    Fail(Report),
    /// The client has seen an error already; it only waits for ReadyForQuery.
    Ready,
    /// The client's stream can't be put right, or the client itself is to blame: it is closed.
    Close,
}

/// What the client is told of a statement over `query_timeout`: its server knows of a cancel request only.
pub fn timed_out() -> Report {
    Report::error(SqlState::QUERY_CANCELED, "canceling statement due to statement timeout")
        .detail("It ran longer than the query_timeout of pgyard.")
        .hint("Raise query_timeout of the database in pgyard's configuration if such statements are right.")
}

/// Decides.
pub fn after_loss(loss: &Loss) -> LossAction {
    if loss.cut_off || loss.protocol {
        return LossAction::Close;
    }
    if loss.killed && !loss.committed {
        return LossAction::Fail(Report::fatal(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command"));
    }
    if loss.timed_out && !loss.may_have_committed {
        return LossAction::Fail(timed_out());
    }
    if (loss.harmless || loss.no_effect) && loss.kept && !loss.committed {
        let suspected = !loss.said_something && !loss.host_is_gone && loss.losses + 1 >= DEATHS_MAX;
        if !suspected {
            return LossAction::Again;
        }
        let report =
            Report::error(SqlState::CRASH_SHUTDOWN, "two servers have closed the connection while they ran this statement")
                .detail("It is not sent to a third one.")
                .hint("See the servers' logs for what it did to them.");
        return LossAction::Fail(report);
    }
    if loss.explained {
        return LossAction::Ready;
    }
    if loss.may_have_committed {
        let message = "the server closed the connection before it answered: whether the statement took effect is unknown";
        return LossAction::Fail(
            Report::error(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, message)
                .hint("Look whether it did before you send it again; pgyard does not, for it might happen twice."),
        );
    }
    let message = match loss.in_transaction {
        true => "the server closed the connection in the middle of a transaction",
        false => "the server closed the connection unexpectedly",
    };
    LossAction::Fail(Report::error(SqlState::ADMIN_SHUTDOWN, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Loss = Loss {
        route: QueryRoute::Replica,
        harmless: true,
        no_effect: false,
        killed: false,
        kept: true,
        committed: false,
        cut_off: false,
        explained: false,
        protocol: false,
        in_transaction: false,
        may_have_committed: false,
        timed_out: false,
        said_something: false,
        host_is_gone: false,
        losses: 0,
    };

    #[test]
    fn only_what_is_harmless_is_sent_again() {
        let check = |loss: Loss, wanted: &str| {
            let got = match after_loss(&loss) {
                LossAction::Fail(report) => report.state.to_string(),
                other => format!("{other:?}"),
            };
            assert_eq!(got, wanted, "{loss:?}");
        };
        check(READ, "Again");
        check(Loss { losses: 1, ..READ }, "57P02");
        check(Loss { losses: 1, said_something: true, ..READ }, "Again");
        check(Loss { losses: 1, host_is_gone: true, ..READ }, "Again");
        check(Loss { committed: true, ..READ }, "57P01");
        check(Loss { committed: true, cut_off: true, ..READ }, "Close");
        check(Loss { committed: true, explained: true, protocol: true, ..READ }, "Close");
        check(Loss { kept: false, ..READ }, "57P01");
        check(Loss { timed_out: true, ..READ }, "57014");
        let write = Loss { route: QueryRoute::Primary, harmless: false, may_have_committed: true, ..READ };
        check(write, "08007");
        check(Loss { timed_out: true, ..write }, "08007");
        check(Loss { explained: true, committed: true, ..write }, "Ready");
        check(Loss { no_effect: true, said_something: true, ..write }, "Again");
        check(Loss { no_effect: true, said_something: true, kept: false, ..write }, "08007");
        check(Loss { no_effect: true, committed: true, ..write }, "08007");
        check(Loss { killed: true, said_something: true, ..write }, "57P01");
        check(Loss { killed: true, said_something: true, ..READ }, "57P01");
        check(Loss { in_transaction: true, may_have_committed: false, ..write }, "57P01");
    }
}
