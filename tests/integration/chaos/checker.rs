//! Judges a history. Pure: events and the truth in, violations out.
//!
//! What was lost with a primary is not asked of later reads: no proxy can bring it back.

use super::history::{Deed, Event, Failover, Object, Outcome, Promise, Seen, Token, Truth};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

/// Something that must not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An acknowledged write is not there.
    Lost(Object, Token),
    /// A write was applied more than once.
    Twice(Object, Token),
    /// A write took effect though its client was told that it did not.
    RefusedYetApplied(Object, Token),
    /// A token is where no client put it: an answer or a write went astray.
    Astray(Object, Token),
    /// A read showed a state that never was.
    NeverWas(Event),
    /// A read showed a write before it was sent.
    BeforeItsTime(Event),
    /// A read showed less than its own session had written.
    StaleOwn(Late),
    /// A read showed less than its own session had seen.
    BackInTime(Late),
    /// A read showed less than what was acknowledged before it was sent.
    StaleGlobal(Late),
}

/// A read that came too late, and what it should have shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// The read.
    pub read: Event,
    /// The version that it showed.
    pub shown: usize,
    /// The least version that it had to show.
    pub wanted: usize,
    /// When that was written or seen.
    pub since: Duration,
}

/// The judgement of a history.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What must not be.
    pub violations: Vec<Violation>,
    /// Acknowledged writes that went with a primary which had no synchronous standby.
    pub lost: usize,
    /// Reads of states that went with a primary.
    pub doomed_reads: usize,
    /// Acknowledged writes.
    pub writes: usize,
    /// Writes with an unknown outcome.
    pub unknown: usize,
    /// Reads that were compared with the truth.
    pub reads: usize,
}

/// Judges.
pub fn check(events: &[Event], truth: &Truth, promise: Promise, failover: Failover) -> Verdict {
    let mut verdict = Verdict::default();
    let book = Book::new(events, truth);
    book.check_writes(failover, &mut verdict);
    let mut order: Vec<&Event> = events.iter().collect();
    order.sort_by_key(|event| (event.session, event.begun, event.ended));
    let acknowledged = book.acknowledged(events);
    let mut floors = Floors::default();
    for event in order {
        floors.enter(event.session);
        match &event.deed {
            Deed::Wrote { token, outcome } => {
                if let (Outcome::Acknowledged, Some(version)) = (outcome, book.version(event.object, *token)) {
                    raise(&mut floors.own, event.object, (version, event.ended));
                }
            }
            Deed::Read { seen, .. } => match book.judge(event, seen, failover) {
                Shown::Doomed => verdict.doomed_reads += 1,
                Shown::Wrong(violation) => verdict.violations.push(violation),
                Shown::Version(shown) => {
                    verdict.reads += 1;
                    let before = acknowledged.get(&event.object).and_then(|writes| latest_before(writes, event.begun));
                    floors.check(event, shown, before, promise, &mut verdict.violations);
                }
            },
        }
    }
    verdict
}

/// What one session must see.
#[derive(Default)]
struct Floors {
    session: Option<u32>,
    own: BTreeMap<Object, (usize, Duration)>,
    seen: BTreeMap<Object, (usize, Duration)>,
}

impl Floors {
    fn enter(&mut self, session: u32) {
        if self.session != Some(session) {
            *self = Floors { session: Some(session), ..Floors::default() };
        }
    }

    fn check(
        &mut self,
        event: &Event,
        shown: usize,
        acknowledged: Option<(usize, Duration)>,
        promise: Promise,
        violations: &mut Vec<Violation>,
    ) {
        let late = |floor: Option<(usize, Duration)>| {
            let (wanted, since) = floor.filter(|(wanted, _)| *wanted > shown)?;
            Some(Late { read: event.clone(), shown, wanted, since })
        };
        if promise.shows_own_writes() {
            violations.extend(late(self.own.get(&event.object).copied()).map(Violation::StaleOwn));
        }
        if promise.forbids_back_in_time() {
            // A replica can show a commit that the primary's own sessions do not see yet, until it is acknowledged.
            let settled = acknowledged.map_or(0, |(version, _)| version);
            let seen = self.seen.get(&event.object).map(|(version, since)| ((*version).min(settled), *since));
            violations.extend(late(seen).map(Violation::BackInTime));
        }
        if promise == Promise::Everything {
            violations.extend(late(acknowledged).map(Violation::StaleGlobal));
        }
        raise(&mut self.seen, event.object, (shown, event.ended));
    }
}

fn raise(floors: &mut BTreeMap<Object, (usize, Duration)>, object: Object, floor: (usize, Duration)) {
    let entry = floors.entry(object).or_insert(floor);
    if floor.0 > entry.0 {
        *entry = floor;
    }
}

/// Of writes by the time of their acknowledgement, each with the highest version so far, the last before `begun`.
fn latest_before(writes: &[(Duration, usize)], begun: Duration) -> Option<(usize, Duration)> {
    let count = writes.partition_point(|(ended, _)| *ended < begun);
    let (ended, version) = *writes.get(count.checked_sub(1)?)?;
    Some((version, ended))
}

/// What a read has shown.
enum Shown {
    Version(usize),
    Doomed,
    Wrong(Violation),
}

/// The truth and the writes, made easy to ask.
struct Book<'a> {
    truth: &'a Truth,
    places: HashMap<(Object, Token), usize>,
    writes: HashMap<Token, (Object, Outcome, Duration)>,
}

impl<'a> Book<'a> {
    fn new(events: &[Event], truth: &'a Truth) -> Book<'a> {
        let mut places = HashMap::new();
        for (object, tokens) in truth {
            for (index, token) in tokens.iter().enumerate() {
                places.entry((*object, *token)).or_insert(index + 1);
            }
        }
        let writes = events.iter().filter_map(|event| match event.deed {
            Deed::Wrote { token, outcome } => Some((token, (event.object, outcome, event.begun))),
            Deed::Read { .. } => None,
        });
        Book { truth, places, writes: writes.collect() }
    }

    fn version(&self, object: Object, token: Token) -> Option<usize> {
        if token == 0 { Some(0) } else { self.places.get(&(object, token)).copied() }
    }

    fn check_writes(&self, failover: Failover, verdict: &mut Verdict) {
        for (object, tokens) in self.truth {
            let mut met = BTreeSet::new();
            for token in tokens {
                if !met.insert(*token) {
                    verdict.violations.push(Violation::Twice(*object, *token));
                }
                match self.writes.get(token) {
                    Some((wanted, ..)) if wanted != object => verdict.violations.push(Violation::Astray(*object, *token)),
                    None => verdict.violations.push(Violation::Astray(*object, *token)),
                    Some((_, Outcome::Refused, _)) => verdict.violations.push(Violation::RefusedYetApplied(*object, *token)),
                    Some(_) => {}
                }
            }
        }
        let mut by_token: Vec<_> = self.writes.iter().collect();
        by_token.sort_by_key(|(token, _)| **token);
        for (token, (object, outcome, _)) in by_token {
            verdict.unknown += usize::from(*outcome == Outcome::Unknown);
            if *outcome == Outcome::Acknowledged {
                verdict.writes += 1;
                match self.version(*object, *token) {
                    Some(_) => {}
                    None if failover == Failover::Asynchronous => verdict.lost += 1,
                    None => verdict.violations.push(Violation::Lost(*object, *token)),
                }
            }
        }
    }

    /// For each object the acknowledged writes by the time of that, each with the highest version up to there.
    fn acknowledged(&self, events: &[Event]) -> BTreeMap<Object, Vec<(Duration, usize)>> {
        let mut found: BTreeMap<Object, Vec<(Duration, usize)>> = BTreeMap::new();
        for event in events {
            if let Deed::Wrote { token, outcome: Outcome::Acknowledged } = event.deed
                && let Some(version) = self.version(event.object, token)
            {
                found.entry(event.object).or_default().push((event.ended, version));
            }
        }
        for writes in found.values_mut() {
            writes.sort_unstable();
            let mut highest = 0;
            for (_, version) in writes {
                highest = highest.max(*version);
                *version = highest;
            }
        }
        found
    }

    fn judge(&self, event: &Event, seen: &Seen, failover: Failover) -> Shown {
        let empty = Vec::new();
        let tokens = self.truth.get(&event.object).unwrap_or(&empty);
        let (shown, agrees) = match seen {
            Seen::Value { version, token } => {
                let place = usize::try_from(*version).unwrap_or(usize::MAX);
                let agrees = match place {
                    0 => *token == 0,
                    _ => tokens.get(place - 1) == Some(token),
                };
                (vec![*token], agrees.then_some(place))
            }
            Seen::Items(items) => (items.clone(), tokens.starts_with(items).then_some(items.len())),
        };
        let early = |token: &Token| self.writes.get(token).is_some_and(|(_, _, begun)| *begun > event.ended);
        if shown.iter().any(early) {
            return Shown::Wrong(Violation::BeforeItsTime(event.clone()));
        }
        if let Some(version) = agrees {
            return Shown::Version(version);
        }
        // It differs from the truth: what is not part of that must have gone with a primary.
        let common = if shown.len() == 1 && matches!(seen, Seen::Value { .. }) {
            0
        } else {
            shown.iter().zip(tokens).take_while(|(one, other)| one == other).count()
        };
        let may_go = |token: &Token| match self.writes.get(token) {
            Some((object, outcome, _)) if *object == event.object => match outcome {
                Outcome::Refused => false,
                // A lost one is counted by itself.
                Outcome::Acknowledged => failover == Failover::Asynchronous || self.version(*object, *token).is_none(),
                Outcome::Unknown => failover != Failover::Never,
            },
            _ => false,
        };
        let gone = shown[common..].iter().all(|token| may_go(token) && self.version(event.object, *token).is_none());
        match gone && common < shown.len() {
            true => Shown::Doomed,
            false => Shown::Wrong(Violation::NeverWas(event.clone())),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Lost(object, token) => write!(f, "LOST: {object:?} lacks the acknowledged write {token}"),
            Violation::Twice(object, token) => write!(f, "TWICE: {object:?} has the write {token} more than once"),
            Violation::RefusedYetApplied(object, token) => {
                write!(f, "REFUSED YET APPLIED: {object:?} has the write {token}, whose client got an error that says otherwise")
            }
            Violation::Astray(object, token) => write!(f, "ASTRAY: {object:?} has {token}, which nobody wrote there"),
            Violation::NeverWas(event) => write!(f, "NEVER WAS: {event:?}"),
            Violation::BeforeItsTime(event) => write!(f, "BEFORE ITS TIME: {event:?}"),
            Violation::StaleOwn(late) => write!(f, "STALE OWN READ: {late}"),
            Violation::BackInTime(late) => write!(f, "BACK IN TIME: {late}"),
            Violation::StaleGlobal(late) => write!(f, "OLDER THAN AN ACKNOWLEDGED WRITE: {late}"),
        }
    }
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Late { read, shown, wanted, since } = self;
        let way = match read.deed {
            Deed::Read { way, .. } => way,
            Deed::Wrote { .. } => "",
        };
        write!(
            f,
            "session {} read version {shown} of {:?} ({way}) between {:?} and {:?}, but version {wanted} dates from {since:?}",
            read.session, read.object, read.begun, read.ended
        )
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
