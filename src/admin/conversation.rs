//! One console session: messages in, answers out.

use super::command::{ConsoleCommand, parse};
use super::context::ConsoleContext;
use super::driver::TransactionStep;
use super::extended::{ConsolePortal, ExtendedState};
use super::run::{Answer, Progress};
use super::table::{put_columns, put_row};
use crate::net::scratch::poll_read_with;
use crate::server::TransactionStatus;
use crate::session::{ClientSide, ConsoleClient};
use crate::types::SqlState;
use crate::wire::frame::{HEADER_LEN, client_header};
use crate::wire::reply::{Report, put_bare, put_command_complete, put_ready};
use crate::wire::{Cursor, WireError};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// Longest message that the console takes. Bytes.
pub const MESSAGE_MAX: usize = 1024 * 1024;
/// Answers are written at the latest when there are this many. Bytes.
const OUTBOX_MAX: usize = 64 * 1024;
/// For a farewell to a client that may not read it.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a console session ends.
pub(super) enum ConsoleEnd {
    /// The client said goodbye, or is gone.
    Gone,
    /// It broke the protocol.
    Protocol(Report),
}

impl From<io::Error> for ConsoleEnd {
    fn from(_: io::Error) -> Self {
        ConsoleEnd::Gone
    }
}

impl From<WireError> for ConsoleEnd {
    fn from(error: WireError) -> Self {
        ConsoleEnd::Protocol(Report::fatal(SqlState::PROTOCOL_VIOLATION, error.to_string()))
    }
}

/// One console session.
pub(super) struct Conversation {
    pub(super) client: ClientSide,
    context: Arc<ConsoleContext>,
    who: String,
    pub(super) status: TransactionStatus,
    /// What the extended protocol has made.
    pub(super) extended: ExtendedState,
}

impl Conversation {
    pub(super) fn new(console: ConsoleClient, context: Arc<ConsoleContext>) -> Self {
        let who = format!("{} at {}", console.user, console.peer);
        Conversation { client: console.client, context, who, status: TransactionStatus::Idle, extended: ExtendedState::default() }
    }

    /// Serves the client to its end.
    pub(super) async fn run(mut self) {
        tracing::info!(who = self.who, "console session");
        let end = loop {
            if let Err(end) = self.serve_message().await {
                break end;
            }
        };
        if let ConsoleEnd::Protocol(report) = end {
            tracing::warn!(who = self.who, error = report.message, "protocol violation on the console");
            report.put(self.client.outbox.writer());
            // A client that does not read is not waited for.
            let _ = tokio::time::timeout(FAREWELL_TIMEOUT, self.flush()).await;
        }
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        let ClientSide { stream, outbox, .. } = &mut self.client;
        std::future::poll_fn(|cx| stream.poll_drain(cx, outbox)).await
    }

    /// Takes the next message, reading as far as needed.
    async fn next_message(&mut self) -> Result<(u8, Vec<u8>), ConsoleEnd> {
        loop {
            let inbox = self.client.inbox.as_slice();
            if let Some(header) = client_header(inbox)? {
                if header.total > MESSAGE_MAX {
                    let text = format!("the console takes messages of at most {MESSAGE_MAX} bytes");
                    return Err(ConsoleEnd::Protocol(Report::fatal(SqlState::PROGRAM_LIMIT_EXCEEDED, text)));
                }
                if inbox.len() >= header.total {
                    let body = inbox[HEADER_LEN..header.total].to_vec();
                    self.client.inbox.consume(header.total);
                    return Ok((header.tag, body));
                }
            }
            self.flush().await?;
            if !read_more(&mut self.client).await? {
                return Err(ConsoleEnd::Gone);
            }
        }
    }

    async fn serve_message(&mut self) -> Result<(), ConsoleEnd> {
        let (tag, body) = self.next_message().await?;
        if self.extended.skipping && !matches!(tag, b'S' | b'X') {
            return Ok(());
        }
        match tag {
            b'Q' => self.query(&body).await?,
            b'X' => return Err(ConsoleEnd::Gone),
            b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S' => {
                if let Err(report) = self.extended_message(tag, &body).await? {
                    self.fail(&report);
                    self.extended.skipping = true;
                }
            }
            b'F' => {
                self.fail(&Report::error(SqlState::FEATURE_NOT_SUPPORTED, "the console has no functions"));
                self.ready();
            }
            // Outside a COPY its messages are ignored: an error has been told already.
            b'd' | b'c' | b'f' => {}
            other => return Err(WireError::Type(other).into()),
        }
        if self.client.outbox.len() >= OUTBOX_MAX {
            self.flush().await?;
        }
        Ok(())
    }

    /// A simple query.
    async fn query(&mut self, body: &[u8]) -> Result<(), ConsoleEnd> {
        self.extended.forget_unnamed();
        let mut cursor = Cursor::new(body);
        let text = cursor.string()?;
        cursor.end()?;
        match text_of(text).and_then(|text| parse(&text)) {
            Err(report) => self.fail(&report),
            Ok(commands) if commands.is_empty() => put_bare(self.client.outbox.writer(), b'I'),
            Ok(commands) => {
                for command in commands {
                    match self.answer(&command).await? {
                        Ok(Answer::Done(tag)) => put_command_complete(self.client.outbox.writer(), tag),
                        Ok(Answer::Table(table, tag)) => {
                            let out = self.client.outbox.writer();
                            put_columns(out, &table.columns, |_| false);
                            table.rows.iter().for_each(|row| put_row(out, row));
                            put_command_complete(out, tag);
                        }
                        Err(report) => {
                            self.fail(&report);
                            break;
                        }
                    }
                }
            }
        }
        self.ready();
        Ok(())
    }

    /// Carries out a command while its notices go to the client. A client that goes away meanwhile ends it.
    pub(super) async fn answer(&mut self, command: &ConsoleCommand) -> Result<Result<Answer, Report>, ConsoleEnd> {
        if let Err(report) = self.follow_transaction(command) {
            return Ok(Err(report));
        }
        if let (ConsoleCommand::Transaction(TransactionStep::Commit), TransactionStatus::Failed) = (command, self.status) {
            self.status = TransactionStatus::Idle;
            return Ok(Ok(Answer::Done("ROLLBACK")));
        }
        self.note_effect(command);
        let (progress, mut notices) = Progress::new();
        let context = self.context.clone();
        let mut work = pin!(command.run(&context, &progress));
        let outcome = loop {
            let full = self.client.inbox.len() >= MESSAGE_MAX;
            tokio::select! {
                biased;
                outcome = &mut work => break outcome,
                Some(notice) = notices.recv() => {
                    notice.put(self.client.outbox.writer());
                    self.flush().await?;
                }
                more = read_more(&mut self.client), if !full => {
                    if !more? {
                        return Err(ConsoleEnd::Gone);
                    }
                }
            }
        };
        while let Ok(notice) = notices.try_recv() {
            notice.put(self.client.outbox.writer());
        }
        if command.is_action() {
            let error = outcome.as_ref().err().map(|report| report.message.as_str());
            tracing::info!(who = self.who, command = ?command, error, "console command");
        }
        Ok(outcome)
    }

    /// In a failed transaction only its end is accepted.
    fn follow_transaction(&self, command: &ConsoleCommand) -> Result<(), Report> {
        use TransactionStep::{Commit, Rollback, RollbackTo};
        let ends = matches!(command, ConsoleCommand::Transaction(Commit | Rollback | RollbackTo) | ConsoleCommand::Empty);
        if self.status == TransactionStatus::Failed && !ends {
            let text = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(Report::error(SqlState::IN_FAILED_SQL_TRANSACTION, text));
        }
        Ok(())
    }

    fn note_effect(&mut self, command: &ConsoleCommand) {
        use TransactionStep::{Begin, Commit, Release, Rollback, RollbackTo, Savepoint};
        match command {
            ConsoleCommand::Transaction(step) => match step {
                Begin => self.status = TransactionStatus::Open,
                Commit | Rollback => self.status = TransactionStatus::Idle,
                RollbackTo if self.status == TransactionStatus::Failed => self.status = TransactionStatus::Open,
                RollbackTo | Savepoint | Release => {}
            },
            ConsoleCommand::Deallocate(name) => self.extended.deallocate(name.as_deref()),
            _ => {}
        }
    }

    /// Tells the client of an error.
    pub(super) fn fail(&mut self, report: &Report) {
        report.put(self.client.outbox.writer());
        if self.status == TransactionStatus::Open {
            self.status = TransactionStatus::Failed;
        }
    }

    /// Ends an answer.
    pub(super) fn ready(&mut self) {
        put_ready(self.client.outbox.writer(), self.status.byte());
    }

    /// Sends rows of a portal that was executed, at most `limit` (0 is all).
    pub(super) fn send_rows(client: &mut ClientSide, portal: &mut ConsolePortal, limit: usize) {
        let out = client.outbox.writer();
        let count = if limit == 0 { portal.rows.len() } else { limit.min(portal.rows.len()) };
        portal.rows.drain(..count).for_each(|row| put_row(out, &row));
        // As PostgreSQL does it: a portal that gave exactly what was asked for is suspended, also at its end.
        if limit > 0 && count == limit {
            put_bare(out, b's');
        } else {
            put_command_complete(out, portal.tag);
        }
    }
}

/// A text of the client's as UTF-8.
///
/// # Errors
/// It is not.
pub(super) fn text_of(bytes: &[u8]) -> Result<String, Report> {
    String::from_utf8(bytes.to_vec())
        .map_err(|_| Report::error(SqlState(*b"22021"), "invalid byte sequence for encoding \"UTF8\""))
}

/// Reads what has come; false at the end of the stream.
///
/// # Cancel safety
/// Safe: what was read is in the inbox.
async fn read_more(client: &mut ClientSide) -> io::Result<bool> {
    let ClientSide { stream, inbox, .. } = client;
    std::future::poll_fn(|cx| {
        poll_read_with(stream, cx, |chunk, _| {
            inbox.push(chunk);
            !chunk.is_empty()
        })
    })
    .await
}
