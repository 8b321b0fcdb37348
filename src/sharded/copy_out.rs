//! COPY TO STDOUT of rows of several shards: one file, with one header and one trailer.

use super::gather::WHOLE_ANSWER;
use super::leg::LegGone;
use super::partial_rows::described_names;
use super::session::ShardedSession;
use super::several::Question;
use super::trouble::Trouble;
use crate::gather::{BINARY_HEADER, BINARY_TRAILER, CopyFormat, CopyWriter};
use crate::plan::CopyRows;
use crate::wire::frame::put_message;
use crate::wire::reply::put_bare;

impl ShardedSession {
    /// The same COPY on every shard, one answer behind the other; the command's tag.
    pub(super) async fn copy_tables(
        &mut self,
        question: Question<'_>,
        (header, binary): (bool, bool),
    ) -> Result<String, Trouble> {
        let shards: Vec<usize> = (0..self.map.shards.len()).collect();
        for &shard in &shards {
            self.enter(shard, question.writes()).await?;
        }
        for &shard in &shards {
            self.leg(shard).query(question.sql);
        }
        let outcome = self.pass_tables(&shards, header, binary).await;
        let count = self.all_or_none(&shards, outcome).await?;
        Ok(format!("COPY {count}"))
    }

    async fn pass_tables(&mut self, shards: &[usize], header: bool, binary: bool) -> Result<u64, Trouble> {
        let mut count = 0;
        // The binary header stands before the first row in one message.
        let mut prefix = if binary { BINARY_HEADER.to_vec() } else { Vec::new() };
        for (place, &shard) in shards.iter().enumerate() {
            let mut begins = true;
            while self.legs[shard].as_ref().is_some_and(|leg| leg.due > 0) {
                self.wait_for(&[shard]).await?;
                let outbox = &mut self.client.client.outbox;
                let Some(leg) = self.legs[shard].as_mut() else { return Err(LegGone::trouble(self.leg_name(shard), None)) };
                while let Ok(Some(frame)) = leg.front() {
                    let (tag, total, mut ready) = (frame.tag, frame.total, None);
                    let message = &leg.inbox.as_slice()[..total];
                    match tag {
                        b'd' if binary => {
                            let tuple =
                                if begins { frame.body.get(BINARY_HEADER.len()..).unwrap_or_default() } else { frame.body };
                            if tuple != BINARY_TRAILER {
                                let prefix = std::mem::take(&mut prefix);
                                put_message(outbox.writer(), b'd', |out| {
                                    out.extend_from_slice(&prefix);
                                    out.extend_from_slice(tuple);
                                });
                            }
                        }
                        // Each shard names the columns.
                        b'd' if header && begins && place > 0 => {}
                        b'd' | b'N' | b'A' => outbox.push(message),
                        b'H' if place == 0 => outbox.push(message),
                        b'C' => count += rows_in(frame.body),
                        b'E' => {
                            let message = message.to_vec();
                            leg.inbox.consume(total);
                            return Err(Trouble::Failed(message));
                        }
                        b'Z' => ready = Some(frame.body.first().copied().unwrap_or(b'I')),
                        _ => {}
                    }
                    begins &= tag != b'd';
                    leg.inbox.consume(total);
                    if let Some(status) = ready {
                        leg.ready(status);
                        break;
                    }
                }
                self.room_for_rows().await?;
            }
        }
        self.end_file(&prefix, binary);
        Ok(count)
    }

    /// The rows of a query as COPY data; the command's tag.
    pub(super) async fn copy_rows(&mut self, question: Question<'_>, copy: &CopyRows) -> Result<String, Trouble> {
        let head = self.head_of_file(question, copy).await?;
        let binary = copy.format == CopyFormat::Binary;
        let results: &[i16] = if binary { &[1] } else { &[] };
        let question = Question { parameters: None, results, describes: false, sql: &copy.text, ..question };
        let shard = self.any_shard();
        let names = described_names(&self.described(question, shard, &copy.text).await?);
        let writer = CopyWriter::new(copy.format.clone(), &names);
        let mut stream = self.start(question, &copy.plan, WHOLE_ANSWER).await?;
        self.side().outbox.push(&head);
        let mut prefix = if binary { BINARY_HEADER.to_vec() } else { Vec::new() };
        while let Some(row) = self.next_row(&mut stream).await? {
            let mut written = std::mem::take(&mut prefix);
            let outcome = writer.put(&mut written, &row).map_err(super::stream::gather_trouble);
            self.all_or_none(stream.shards(), outcome).await?;
            put_message(self.side().outbox.writer(), b'd', |out| out.extend_from_slice(&written));
            let room = self.room_for_rows().await;
            self.all_or_none(stream.shards(), room).await?;
        }
        self.end_file(&prefix, binary);
        Ok(format!("COPY {}", stream.shown()))
    }

    /// What a server says before the first row: it is asked for none, and looks at the options.
    async fn head_of_file(&mut self, question: Question<'_>, copy: &CopyRows) -> Result<Vec<u8>, Trouble> {
        let shard = self.any_shard();
        self.enter(shard, question.writes()).await?;
        let CopyRows { text, options, format, .. } = copy;
        self.leg(shard).query(&format!("COPY (SELECT * FROM ({text}\n) AS pgyard_rows LIMIT 0) TO STDOUT {options}"));
        let mut head = Vec::new();
        let mut failure = None;
        while self.legs[shard].as_ref().is_some_and(|leg| leg.due > 0) {
            let (tag, body) = self.take(shard).await?;
            let message = |out: &mut Vec<u8>| put_message(out, tag, |out| out.extend_from_slice(&body));
            match tag {
                b'H' => message(&mut head),
                b'd' if *format != CopyFormat::Binary => message(&mut head),
                b'N' | b'A' => message(self.side().outbox.writer()),
                b'E' => message(failure.insert(Vec::new())),
                _ => {}
            }
        }
        failure.map_or(Ok(head), |message| Err(Trouble::Failed(message)))
    }

    /// The trailer of the binary format, behind what stands before it if there was no row; and the end of the data.
    fn end_file(&mut self, prefix: &[u8], binary: bool) {
        let out = self.side().outbox.writer();
        if binary {
            put_message(out, b'd', |body| {
                body.extend_from_slice(prefix);
                body.extend_from_slice(&BINARY_TRAILER);
            });
        }
        put_bare(out, b'c');
    }
}

/// The number in `COPY 5`.
fn rows_in(tag: &[u8]) -> u64 {
    let text = std::str::from_utf8(tag.strip_suffix(b"\0").unwrap_or(tag)).unwrap_or_default();
    text.strip_prefix("COPY ").and_then(|count| count.parse().ok()).unwrap_or(0)
}
