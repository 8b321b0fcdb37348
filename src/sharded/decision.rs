//! What the decider's answer to its COMMIT says of a transaction over several shards.

use super::session::LegAnswer;
use super::trouble::Trouble;
use crate::types::SqlState;
use crate::wire::reply::Report;

/// How a commit over several shards was decided.
#[derive(Debug)]
pub(super) enum Decision {
    /// The decider has committed, and so will all.
    Committed,
    /// It has not, and never will: its own error.
    RolledBack(Trouble),
    /// Its server went before it answered.
    Unknown,
}

impl Decision {
    /// Reads the decider's answer, `Err` if its leg has ended with this trouble.
    ///
    /// # Errors
    /// The client's session ended.
    pub(super) fn read(answer: Result<LegAnswer, Trouble>) -> Result<Decision, Trouble> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(Trouble::Failed(_)) => return Ok(Decision::Unknown),
            Err(end) => return Err(end),
        };
        if answer.tag == "COMMIT" {
            // An error behind it is the server's farewell.
            return Ok(Decision::Committed);
        }
        Ok(match answer.check() {
            Ok(answer) if answer.tag == "ROLLBACK" => Decision::RolledBack(rolled_back_instead()),
            Err(error) if is_final(&error) => Decision::RolledBack(error),
            _ => Decision::Unknown,
        })
    }
}

/// Whether an error tells of a transaction that a living server has turned down. All others may come of a connection that was lost
/// after the commit: a leg goes on with another one, and answers as a server does.
///
/// Spec: PostgreSQL documentation, appendix "PostgreSQL Error Codes".
pub(super) fn is_final(trouble: &Trouble) -> bool {
    const COMPLETION_UNKNOWN: SqlState = SqlState(*b"40003");
    trouble.state().is_some_and(|state| match &state.class() {
        b"22" | b"23" | b"25" | b"42" | b"44" | b"53" | b"55" | b"P0" => true,
        b"40" => state != COMPLETION_UNKNOWN,
        b"57" => state == SqlState::QUERY_CANCELED,
        _ => false,
    })
}

/// An error of a shard that was to prepare, as the client sees it. A leg that has lost its server there does not know that nothing is
/// committed without the decider.
pub(super) fn before_decision(trouble: Trouble) -> Trouble {
    if trouble.state() != Some(SqlState::TRANSACTION_RESOLUTION_UNKNOWN) {
        return trouble;
    }
    let message = "the connection to a shard was lost before a commit over several shards was decided";
    Report::error(SqlState::ADMIN_SHUTDOWN, message).detail("It is rolled back on all of them.").into()
}

/// A server answers ROLLBACK to the COMMIT of a transaction that had failed.
pub(super) fn rolled_back_instead() -> Trouble {
    Trouble::error(SqlState::IN_FAILED_SQL_TRANSACTION, "the transaction had failed on a shard and was rolled back")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(state: &[u8; 5]) -> Trouble {
        Trouble::error(SqlState(*state), "no")
    }

    fn answer(tag: &str, error: Option<&[u8; 5]>) -> Result<LegAnswer, Trouble> {
        let error = error.map(|state| match failed(state) {
            Trouble::Failed(message) => message,
            Trouble::End(end) => panic!("{end:?}"),
        });
        Ok(LegAnswer { tag: tag.to_owned(), error, ..LegAnswer::default() })
    }

    #[test]
    fn only_a_living_server_can_say_no() {
        let check = |answer: Result<LegAnswer, Trouble>, wanted: &str| {
            let got = format!("{:?}", Decision::read(answer).unwrap());
            assert!(got.starts_with(wanted), "{got} is not {wanted}");
        };
        check(answer("COMMIT", None), "Committed");
        check(answer("COMMIT", Some(b"57P01")), "Committed");
        check(answer("ROLLBACK", None), "RolledBack");
        for state in
            [b"23505", b"23503", b"40001", b"40P01", b"25P02", b"42501", b"P0001", b"22012", b"57014", b"53100", b"55P03"]
        {
            check(answer("INSERT 0 1", Some(state)), "RolledBack");
        }
        for state in [b"08007", b"08006", b"57P01", b"57P02", b"57P05", b"40003", b"XX000", b"58030"] {
            check(answer("INSERT 0 1", Some(state)), "Unknown");
        }
        // The answer broke off.
        check(answer("INSERT 0 1", None), "Unknown");
        check(Err(failed(b"08006")), "Unknown");
        check(Err(failed(b"23505")), "Unknown");
    }

    #[test]
    fn what_was_not_decided_is_not_in_doubt() {
        for (state, shown) in [(b"08007", "57P01"), (b"57P01", "57P01"), (b"55000", "55000")] {
            assert_eq!(before_decision(failed(state)).state().unwrap().as_str(), shown);
        }
    }

    #[test]
    fn the_end_of_the_session_is_no_decision() {
        use super::super::trouble::ShardedEnd;
        assert!(matches!(Decision::read(Err(Trouble::End(ShardedEnd::Stopped))), Err(Trouble::End(_))));
    }
}
