//! Rows of several shards as they come: one shard after another, or merged by the order that all of them have.
//!
//! What is held is what the pipes of the legs hold, and one row of each leg: a shard whose row is not next, or whose client is slow, waits.
//! Where the client fetches by pieces, so do the legs, through portals of their own; between two fetches they are free for other
//! statements, and what a piece has left over is held.

use super::gather::{LegPortal, WHOLE_ANSWER, put_execute};
use super::leg::LegGone;
use super::partial_rows::described_types;
use super::planning::BoundParameters;
use super::session::ShardedSession;
use super::several::Question;
use super::transaction::BlockState;
use super::trouble::Trouble;
use crate::gather::{Admission, GatherError, MergeKey, MergeStep, RowMerge, RowWindow, cut_description, cut_row};
use crate::types::SqlState;
use crate::wire::frame::{HEADER_LEN, header, put_message};
use bytes::BytesMut;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Rows that wait for a slow client before the shards have to wait too. Bytes.
const UNSENT_MAX: usize = 64 * 1024;
/// Rows behind a LIMIT that are read and dropped before the shards are told to stop. Bytes.
const DROPPED_MAX: usize = 256 * 1024;
/// Rows that a leg is asked for at once by a client that fetches by pieces: at first, and at most.
const PIECE: (u32, u32) = (64, 1024);

/// What the shards are asked, and how their rows are put together.
pub(super) struct StreamSource<'a> {
    /// The shards.
    pub shards: Vec<usize>,
    /// What each of them is asked.
    pub sql: &'a str,
    /// With these parameters.
    pub parameters: Option<BoundParameters<'a>>,
    /// The formats of the columns, as Bind gives them.
    pub results: &'a [i16],
    /// The order of each shard's rows; without keys they come as they come.
    pub order: StreamOrder,
    /// Which rows are shown.
    pub window: RowWindow,
}

/// The order of rows.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamOrder {
    /// What they are sorted by.
    pub keys: Vec<MergeKey>,
    /// The type of each key's column.
    pub types: Vec<u32>,
    /// Columns at the end that are not shown.
    pub hidden: usize,
}

/// Where a shard's answer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Feed {
    /// It answers.
    Running,
    /// It has given a piece; its ReadyForQuery is still to come.
    Pausing,
    /// It waits to be asked for the next piece.
    Suspended,
    /// It has given all.
    Ended,
}

/// Rows on their way.
pub(super) struct RowStream {
    shards: Vec<usize>,
    feeds: Vec<Feed>,
    merge: RowMerge,
    /// The merge has an order to keep.
    sorted: bool,
    /// The columns of the merge's keys, and their types.
    key_types: Vec<(usize, u32)>,
    hidden: usize,
    window: RowWindow,
    /// The legs' portal, if rows are fetched by pieces.
    portal: Option<Box<str>>,
    /// The client gets a RowDescription.
    describes: bool,
    description: Vec<u8>,
    /// The description that is shown instead of the shards' own.
    shown_as: Option<Arc<[u8]>>,
    /// Rows and bytes that have come.
    seen: (usize, usize),
    /// No further row is shown.
    over: bool,
}

impl RowStream {
    /// One without rows.
    pub(super) fn nothing() -> RowStream {
        RowStream {
            shards: Vec::new(),
            feeds: Vec::new(),
            merge: RowMerge::new(Vec::new(), 0),
            sorted: false,
            key_types: Vec::new(),
            hidden: 0,
            window: RowWindow::new(0, None, false),
            portal: None,
            describes: false,
            description: Vec::new(),
            shown_as: None,
            seen: (0, 0),
            over: true,
        }
    }

    /// How many rows were shown.
    pub(super) fn shown(&self) -> u64 {
        self.window.shown()
    }

    /// The shards that were asked.
    pub(super) fn shards(&self) -> &[usize] {
        &self.shards
    }

    /// The body of the rows' description, once a row or the end has come.
    pub(super) fn description(&self) -> &[u8] {
        &self.description
    }

    /// The portal that the legs have for it.
    pub(super) fn portal(&self) -> Option<&str> {
        self.portal.as_deref()
    }

    /// Has the rows described as those of another query, with the same columns.
    pub(super) fn show_as(&mut self, description: Option<Arc<[u8]>>) {
        self.shown_as = description;
    }

    fn is_fed(&self, place: usize) -> bool {
        matches!(self.feeds[place], Feed::Running | Feed::Pausing)
    }

    /// How many rows a leg is asked for: as many as may be held of every leg.
    fn piece(&self, memory: usize) -> u32 {
        let (rows, bytes) = self.seen;
        let share = memory / (4 * self.shards.len().max(1));
        let rows = share / (bytes / rows.max(1)).max(1);
        u32::try_from(rows).unwrap_or(PIECE.1).clamp(1, PIECE.1)
    }

    /// Takes a RowDescription; the one that is shown.
    fn describe(&mut self, message: &[u8]) -> Result<BytesMut, Trouble> {
        let types = described_types(message.get(HEADER_LEN..).unwrap_or_default());
        if self.key_types.iter().any(|(column, oid)| types.get(*column).is_none_or(|(found, _)| found != oid)) {
            let message = "a column that rows are sorted by has not the same type on every shard";
            return Err(Trouble::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
        }
        let mut message = match &self.shown_as {
            Some(other) => {
                let mut out = Vec::new();
                put_message(&mut out, b'T', |body| body.extend_from_slice(other));
                BytesMut::from(&out[..])
            }
            None => BytesMut::from(message),
        };
        cut_description(&mut message, self.hidden).map_err(gather_trouble)?;
        message.get(HEADER_LEN..).unwrap_or_default().clone_into(&mut self.description);
        Ok(message)
    }
}

pub(super) fn gather_trouble(error: GatherError) -> Trouble {
    Trouble::error(error.sql_state(), error.to_string())
}

impl ShardedSession {
    /// Asks shards.
    pub(super) async fn stream_of(
        &mut self,
        question: Question<'_>,
        source: StreamSource<'_>,
        portal: LegPortal<'_>,
    ) -> Result<RowStream, Trouble> {
        let StreamSource { shards, sql, parameters, results, order, window } = source;
        for &shard in &shards {
            self.enter(shard, question.writes()).await?;
        }
        let portal = LegPortal { rows: portal.rows.min(PIECE.0), ..portal };
        for &shard in &shards {
            self.put_question(shard, sql, (parameters, results), portal);
        }
        Ok(RowStream {
            feeds: vec![Feed::Running; shards.len()],
            sorted: !order.keys.is_empty(),
            key_types: order.keys.iter().map(|key| key.column).zip(order.types).collect(),
            merge: RowMerge::new(order.keys, shards.len()),
            hidden: order.hidden,
            window,
            portal: (portal.rows != WHOLE_ANSWER.rows).then(|| portal.name.into()),
            describes: question.describes,
            description: Vec::new(),
            shown_as: None,
            seen: (0, 0),
            over: false,
            shards,
        })
    }

    /// Shows all rows.
    pub(super) async fn show_all(&mut self, stream: &mut RowStream) -> Result<(), Trouble> {
        if stream.sorted || stream.hidden > 0 || stream.portal.is_some() {
            return self.show_some(stream, 0).await.map(drop);
        }
        let outcome = self.concatenate(stream).await;
        self.all_or_none(&stream.shards, outcome).await
    }

    /// Shows at most so many rows (0: all). How many were shown, and whether there may be more.
    pub(super) async fn show_some(&mut self, stream: &mut RowStream, limit: usize) -> Result<(usize, bool), Trouble> {
        let mut count = 0;
        while limit == 0 || count < limit {
            let Some(row) = self.next_row(stream).await? else { return Ok((count, false)) };
            count += 1;
            self.side().outbox.push(&row);
            let room = self.room_for_rows().await;
            self.all_or_none(&stream.shards, room).await?;
        }
        let outcome = self.pause(stream).await;
        self.all_or_none(&stream.shards, outcome).await?;
        Ok((count, true))
    }

    /// The next row that is shown, a whole DataRow message.
    pub(super) async fn next_row(&mut self, stream: &mut RowStream) -> Result<Option<BytesMut>, Trouble> {
        let outcome = self.find_row(stream).await;
        self.all_or_none(&stream.shards, outcome).await
    }

    async fn find_row(&mut self, stream: &mut RowStream) -> Result<Option<BytesMut>, Trouble> {
        loop {
            if stream.over || stream.window.is_full() {
                self.end(stream).await?;
                return Ok(None);
            }
            match stream.merge.next_step().map_err(gather_trouble)? {
                MergeStep::Row(mut row, _) => match stream.window.admit(stream.merge.is_tied()) {
                    Admission::Skip | Admission::Full => {}
                    Admission::Show => {
                        cut_row(&mut row, stream.hidden).map_err(gather_trouble)?;
                        return Ok(Some(row));
                    }
                },
                MergeStep::Needs(place) => {
                    self.ask_on(stream, place);
                    self.take_in(stream, place).await?;
                }
                MergeStep::Done => stream.over = true,
            }
        }
    }

    /// Asks a shard for its next piece, if it waits for that.
    fn ask_on(&mut self, stream: &mut RowStream, place: usize) {
        let (Feed::Suspended, Some(name)) = (stream.feeds[place], &stream.portal) else { return };
        let mut out = Vec::new();
        put_execute(&mut out, LegPortal { name, rows: stream.piece(self.gather_memory()) });
        self.leg(stream.shards[place]).send(&out);
        stream.feeds[place] = Feed::Running;
    }

    fn poll_feed(&mut self, cx: &mut Context<'_>, stream: &RowStream, place: usize) -> Poll<Result<(), Trouble>> {
        let others = (0..stream.shards.len()).filter(|other| stream.is_fed(*other)).map(|other| stream.shards[other]);
        self.poll_leg_beside(cx, stream.shards[place], others)
    }

    /// Takes one message of a shard's answer.
    async fn take_in(&mut self, stream: &mut RowStream, place: usize) -> Result<(), Trouble> {
        let shard = stream.shards[place];
        if !self.legs[shard].as_ref().is_some_and(|leg| matches!(leg.front(), Ok(Some(_)))) {
            std::future::poll_fn(|cx| self.poll_feed(cx, stream, place)).await?;
        }
        let outbox = &mut self.client.client.outbox;
        let Some(leg) = self.legs[shard].as_mut() else { return Err(LegGone::trouble(self.leg_name(shard), None)) };
        let Ok(Some(frame)) = leg.front() else { return Err(self.leg_gone(shard, None)) };
        let (tag, total, status) = (frame.tag, frame.total, frame.body.first().copied());
        let message = &leg.inbox.as_slice()[..total];
        let outcome = match tag {
            b'D' => {
                stream.seen = (stream.seen.0 + 1, stream.seen.1 + total);
                if stream.over { Ok(()) } else { stream.merge.push(place, BytesMut::from(message)).map_err(gather_trouble) }
            }
            b'T' => stream.describe(message).map(|shown| {
                if stream.describes && place == 0 {
                    outbox.push(&shown);
                }
            }),
            b'E' => Err(Trouble::Failed(message.to_vec())),
            b's' => {
                stream.feeds[place] = Feed::Pausing;
                Ok(())
            }
            b'N' | b'A' => {
                outbox.push(message);
                Ok(())
            }
            _ => Ok(()),
        };
        leg.inbox.consume(total);
        if tag == b'Z' {
            leg.ready(status.unwrap_or(b'I'));
            if stream.feeds[place] == Feed::Pausing {
                stream.feeds[place] = Feed::Suspended;
            } else {
                stream.feeds[place] = Feed::Ended;
                stream.merge.end(place);
            }
        }
        outcome
    }

    /// Frees the legs for other statements: what they have begun to say is taken in.
    async fn pause(&mut self, stream: &mut RowStream) -> Result<(), Trouble> {
        for place in 0..stream.shards.len() {
            while stream.is_fed(place) {
                self.take_in(stream, place).await?;
                self.within_memory(stream.merge.held_bytes())?;
            }
        }
        Ok(())
    }

    /// Nothing more is shown. What the shards still say is dropped; if that is much, and they stand in no transaction that an error
    /// would end, they are told to stop.
    async fn end(&mut self, stream: &mut RowStream) -> Result<(), Trouble> {
        stream.over = true;
        let before = stream.seen.1;
        for place in 0..stream.shards.len() {
            while stream.is_fed(place) {
                if stream.seen.1 - before > DROPPED_MAX && self.block.state == BlockState::None {
                    stream.feeds.fill(Feed::Ended);
                    return self.drop_answers(&stream.shards).await;
                }
                self.take_in(stream, place).await?;
            }
        }
        Ok(())
    }

    /// Passes on the rows of one shard after the other, as many as have come at once.
    async fn concatenate(&mut self, stream: &mut RowStream) -> Result<(), Trouble> {
        for place in 0..stream.shards.len() {
            while stream.is_fed(place) && !stream.window.is_full() {
                std::future::poll_fn(|cx| self.poll_feed(cx, stream, place)).await?;
                self.pass_rows(stream, place)?;
                self.room_for_rows().await?;
            }
        }
        self.end(stream).await
    }

    /// Passes on what has come of a shard's rows.
    fn pass_rows(&mut self, stream: &mut RowStream, place: usize) -> Result<(), Trouble> {
        let outbox = &mut self.client.client.outbox;
        let Some(leg) = self.legs[stream.shards[place]].as_mut() else { return Ok(()) };
        let bytes = leg.inbox.as_slice();
        // What lies between is passed on.
        let (mut from, mut at, mut status) = (0, 0, None);
        let mut failure = None;
        while let Ok(Some(found)) = header(&bytes[at..]) {
            let Some(message) = bytes.get(at..at + found.total) else { break };
            let shown = match found.tag {
                b'D' => stream.window.admit(false) == Admission::Show,
                b'N' | b'A' => true,
                b'T' => match stream.describe(message) {
                    Ok(description) => {
                        if stream.describes && place == 0 {
                            outbox.push(&description);
                        }
                        false
                    }
                    Err(trouble) => {
                        failure = Some(trouble);
                        false
                    }
                },
                b'E' => {
                    failure = Some(Trouble::Failed(message.to_vec()));
                    false
                }
                b'Z' => {
                    status = message.get(HEADER_LEN).copied();
                    false
                }
                _ => false,
            };
            if !shown {
                outbox.push(&bytes[from..at]);
                from = at + found.total;
            }
            at += found.total;
            if failure.is_some() || status.is_some() || stream.window.is_full() {
                break;
            }
        }
        outbox.push(&bytes[from..at]);
        leg.inbox.consume(at);
        if let Some(status) = status {
            leg.ready(status);
            stream.feeds[place] = Feed::Ended;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Waits until the client has taken most of what was said to it.
    ///
    /// # Errors
    /// Its connection ended; or rows are held for it, and they are too many.
    pub(super) async fn room_for_rows(&mut self) -> Result<(), Trouble> {
        if self.holding {
            let held = self.side().outbox.len();
            return self.within_memory(held);
        }
        if self.side().outbox.len() < UNSENT_MAX {
            return Ok(());
        }
        std::future::poll_fn(|cx| {
            if let Err(end) = self.poll_flush(cx).and_then(|()| self.look_at_client(cx)) {
                return Poll::Ready(Err(Trouble::End(end)));
            }
            if self.side().outbox.len() < UNSENT_MAX { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }
}
