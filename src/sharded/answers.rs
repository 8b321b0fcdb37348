//! A shard's answer to one question, and what becomes of the other shards' when one fails.

use super::session::ShardedSession;
use super::trouble::Trouble;
use crate::wire::frame::put_message;
use std::time::Duration;
use tokio::time::Instant;

/// How long a shard has to end what was cancelled before it is told again.
const CANCEL_AGAIN: Duration = Duration::from_millis(500);

/// How long the shards before one that failed are waited for: one PostgreSQL with all the rows would meet their errors first.
const ERRORS_TOGETHER: Duration = Duration::from_millis(100);

/// What one shard answered to one question.
#[derive(Debug, Default)]
pub(super) struct ShardAnswer {
    /// The body of its RowDescription.
    pub description: Option<Vec<u8>>,
    /// Its command tag.
    pub tag: String,
}

impl ShardedSession {
    /// Takes all that a shard answers to what it and others were asked; each row's body goes to `row`. `bytes` counts what is held of it.
    ///
    /// # Errors
    /// It or another reported one; its answer may not be at its end then. Or the rows are too many to be held.
    pub(super) async fn answer(
        &mut self,
        (shard, asked): (usize, &[usize]),
        bytes: &mut usize,
        mut row: impl FnMut(Vec<u8>),
    ) -> Result<ShardAnswer, Trouble> {
        let mut answer = ShardAnswer::default();
        let mut patience = None;
        while self.legs[shard].as_ref().is_some_and(|leg| leg.due > 0) {
            let (tag, body) = self.take_beside(shard, asked, &mut patience).await?;
            match tag {
                b'D' => {
                    *bytes += body.len();
                    self.within_memory(*bytes)?;
                    row(body);
                }
                b'T' => answer.description = Some(body),
                b'C' => answer.tag = String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(&body)).into_owned(),
                b'E' => {
                    let mut message = Vec::new();
                    put_message(&mut message, tag, |out| out.extend_from_slice(&body));
                    return Err(Trouble::Failed(message));
                }
                b'N' => put_message(self.side().outbox.writer(), tag, |out| out.extend_from_slice(&body)),
                _ => {}
            }
        }
        Ok(answer)
    }

    /// Takes the next message of a shard. If another of those asked has failed, this one has a while to fail too: of several errors,
    /// the first shard's is the one that is shown. `patience` is when that while is over, once it has begun.
    async fn take_beside(
        &mut self,
        shard: usize,
        asked: &[usize],
        patience: &mut Option<Instant>,
    ) -> Result<(u8, Vec<u8>), Trouble> {
        let beside = std::future::poll_fn(|cx| self.poll_leg_beside(cx, shard, asked.iter().copied())).await;
        match beside {
            Err(Trouble::Failed(error)) if self.legs[shard].is_some() => {
                let until = *patience.get_or_insert_with(|| Instant::now() + ERRORS_TOGETHER);
                let Ok(its_own) = tokio::time::timeout_at(until, self.wait_for(&[shard])).await else {
                    return Err(Trouble::Failed(error));
                };
                its_own?;
            }
            other => other?,
        }
        self.take_front(shard)
    }

    /// After a failure on one shard the others' work is of no use: it is cancelled, and what they still say is dropped.
    pub(super) async fn all_or_none<T>(&mut self, shards: &[usize], outcome: Result<T, Trouble>) -> Result<T, Trouble> {
        let trouble = match outcome {
            Ok(value) => return Ok(value),
            Err(Trouble::End(end)) => return Err(Trouble::End(end)),
            Err(trouble) => trouble,
        };
        self.drop_answers(shards).await?;
        Err(trouble)
    }

    /// Cancels what shards still do, and drops what they still say, errors too.
    ///
    /// # Errors
    /// The client's connection ended.
    pub(super) async fn drop_answers(&mut self, shards: &[usize]) -> Result<(), Trouble> {
        loop {
            for &shard in shards {
                let Some(leg) = self.legs[shard].as_ref().filter(|leg| leg.due > 0) else { continue };
                let entry = leg.entry.clone();
                // One that has ended meanwhile is not hurt by it.
                let _ = entry.cancel().await;
            }
            // A server does not hear it between two messages of a pipeline.
            if let Ok(dropped) = tokio::time::timeout(CANCEL_AGAIN, self.drop_rest(shards)).await {
                return dropped;
            }
        }
    }

    /// Drops what shards still say, errors too.
    async fn drop_rest(&mut self, shards: &[usize]) -> Result<(), Trouble> {
        for &shard in shards {
            if let Err(Trouble::End(end)) = self.finish(shard, false).await {
                return Err(Trouble::End(end));
            }
        }
        Ok(())
    }
}
