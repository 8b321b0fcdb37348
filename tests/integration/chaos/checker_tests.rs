//! Histories made by hand, good and bad: the checker passes the first and names what is wrong with the second.

use super::super::history::{Deed, Event, Failover, Object, Outcome, Promise, Seen, Token, Truth};
use super::{Verdict, check};
use std::time::Duration;

const X: Object = Object::Register(1);
const Y: Object = Object::Register(2);
const L: Object = Object::List(1);

use Failover::{Asynchronous, Never, Synchronous};
use Outcome::{Acknowledged, Refused, Unknown};
use Promise::{Eventual, Everything, Monotonic, OwnWrites};

fn event(session: u32, object: Object, (begun, ended): (u64, u64), deed: Deed) -> Event {
    Event { session, object, begun: Duration::from_millis(begun), ended: Duration::from_millis(ended), deed }
}

fn wrote(session: u32, object: Object, time: (u64, u64), token: Token, outcome: Outcome) -> Event {
    event(session, object, time, Deed::Wrote { token, outcome })
}

fn saw(session: u32, object: Object, time: (u64, u64), version: u64, token: Token) -> Event {
    event(session, object, time, Deed::Read { seen: Seen::Value { version, token }, way: "table" })
}

fn listed(session: u32, time: (u64, u64), items: &[Token]) -> Event {
    event(session, L, time, Deed::Read { seen: Seen::Items(items.to_vec()), way: "table" })
}

fn truth(objects: &[(Object, &[Token])]) -> Truth {
    objects.iter().map(|(object, tokens)| (*object, tokens.to_vec())).collect()
}

/// The first word of each violation.
fn names(verdict: &Verdict) -> Vec<String> {
    verdict.violations.iter().map(|violation| violation.to_string().split(':').next().unwrap().to_owned()).collect()
}

fn expect(events: &[Event], objects: &[(Object, &[Token])], (promise, failover): (Promise, Failover), wanted: &[&str]) {
    let verdict = check(events, &truth(objects), promise, failover);
    assert_eq!(names(&verdict), wanted, "{promise:?}, {failover:?}: {events:#?}");
}

/// A judgement that is the same at every level and after every kind of failover.
fn always(events: &[Event], objects: &[(Object, &[Token])], wanted: &[&str]) {
    for promise in [Eventual, OwnWrites, Monotonic, Everything] {
        for failover in [Never, Synchronous, Asynchronous] {
            expect(events, objects, (promise, failover), wanted);
        }
    }
}

#[test]
fn what_postgresql_alone_would_do_is_right_at_every_level() {
    let events = [
        saw(1, X, (0, 1), 0, 0),
        wrote(1, X, (2, 3), 11, Acknowledged),
        saw(1, X, (4, 5), 1, 11),
        // Two at once: either order is right, and a read beside them may show any state.
        wrote(1, X, (10, 20), 12, Acknowledged),
        wrote(2, X, (11, 19), 21, Acknowledged),
        saw(3, X, (12, 18), 1, 11),
        saw(3, X, (19, 25), 3, 12),
        wrote(2, L, (30, 31), 22, Acknowledged),
        wrote(2, L, (32, 33), 23, Acknowledged),
        listed(3, (29, 30), &[]),
        listed(2, (34, 35), &[22, 23]),
        // Of what is not known both are right, and an error is an error.
        wrote(1, Y, (40, 41), 13, Unknown),
        wrote(1, Y, (42, 43), 14, Unknown),
        wrote(1, Y, (44, 45), 15, Refused),
        saw(1, Y, (46, 47), 1, 14),
    ];
    always(&events, &[(X, &[11, 21, 12]), (L, &[22, 23]), (Y, &[14])], &[]);
}

#[test]
fn a_lost_write_is_found_and_excused_only_where_it_must_be() {
    let events = [wrote(1, X, (0, 1), 11, Acknowledged), wrote(1, X, (2, 3), 12, Acknowledged)];
    let left: &[(Object, &[Token])] = &[(X, &[11])];
    expect(&events, left, (OwnWrites, Never), &["LOST"]);
    expect(&events, left, (OwnWrites, Synchronous), &["LOST"]);
    expect(&events, left, (OwnWrites, Asynchronous), &[]);
    assert_eq!(check(&events, &truth(left), OwnWrites, Asynchronous).lost, 1, "counted where it is excused");
    let list = [wrote(1, L, (0, 1), 11, Acknowledged)];
    expect(&list, &[(L, &[])], (Eventual, Never), &["LOST"]);
    expect(&list, &[], (Eventual, Never), &["LOST"]);
}

#[test]
fn what_is_there_twice_or_should_not_be_there_is_found_always() {
    let once = [wrote(1, L, (0, 1), 11, Acknowledged)];
    always(&once, &[(L, &[11, 11])], &["TWICE"]);
    always(&[wrote(1, X, (0, 1), 11, Unknown)], &[(X, &[11, 11])], &["TWICE"]);
    always(&[wrote(1, X, (0, 1), 11, Refused)], &[(X, &[11])], &["REFUSED YET APPLIED"]);
    always(&[], &[(X, &[99])], &["ASTRAY"]);
    expect(&once, &[(L, &[11]), (X, &[11])], (Eventual, Never), &["ASTRAY"]);
}

#[test]
fn a_stale_own_read_is_found_from_session_upwards() {
    let events = [
        wrote(1, X, (0, 1), 11, Acknowledged),
        wrote(1, X, (2, 3), 12, Acknowledged),
        // Stale, then right; another session and another object are not bound by it.
        saw(1, X, (4, 5), 1, 11),
        saw(1, X, (6, 7), 2, 12),
        saw(1, Y, (6, 7), 0, 0),
        saw(2, X, (0, 3), 1, 11),
    ];
    let all: &[(Object, &[Token])] = &[(X, &[11, 12])];
    expect(&events, all, (Eventual, Never), &[]);
    expect(&events, all, (OwnWrites, Never), &["STALE OWN READ"]);
    expect(&events, all, (Monotonic, Never), &["STALE OWN READ"]);
    expect(&events, all, (Everything, Never), &["STALE OWN READ", "OLDER THAN AN ACKNOWLEDGED WRITE"]);
    let list = [wrote(1, L, (0, 1), 11, Acknowledged), listed(1, (2, 3), &[])];
    expect(&list, &[(L, &[11])], (OwnWrites, Asynchronous), &["STALE OWN READ"]);
    // A write of unknown outcome binds nobody.
    let unknown = [wrote(1, X, (0, 1), 11, Unknown), saw(1, X, (2, 3), 0, 0)];
    expect(&unknown, &[(X, &[11])], (Everything, Never), &[]);
}

#[test]
fn a_read_that_goes_back_in_time_is_found_in_monotonic() {
    let events = [
        wrote(9, X, (0, 1), 91, Acknowledged),
        wrote(9, X, (2, 3), 92, Acknowledged),
        saw(1, X, (4, 5), 2, 92),
        saw(1, X, (6, 7), 1, 91),
        saw(2, X, (8, 9), 1, 91),
    ];
    let all: &[(Object, &[Token])] = &[(X, &[91, 92])];
    expect(&events, all, (OwnWrites, Never), &[]);
    expect(&events, all, (Monotonic, Never), &["BACK IN TIME"]);
    // What is committed on a replica but not yet acknowledged may not be seen on the primary.
    let under_way = |begun: u64| {
        let writes = [wrote(9, X, (0, 1), 91, Acknowledged), wrote(8, X, (2, 10), 92, Acknowledged)];
        [&writes[..], &[saw(1, X, (4, 5), 2, 92), saw(1, X, (begun, 20), 1, 91)]].concat()
    };
    expect(&under_way(6), all, (Monotonic, Never), &[]);
    expect(&under_way(11), all, (Monotonic, Never), &["BACK IN TIME"]);
    let list = [wrote(9, L, (0, 1), 91, Acknowledged), listed(1, (2, 3), &[91]), listed(1, (4, 5), &[])];
    expect(&list, &[(L, &[91])], (Monotonic, Never), &["BACK IN TIME"]);
}

#[test]
fn a_read_older_than_an_acknowledged_write_is_found_in_global() {
    let all: &[(Object, &[Token])] = &[(X, &[91, 92])];
    let check_at = |begun: u64, wanted: &[&str]| {
        let writes = [wrote(9, X, (0, 1), 91, Acknowledged), wrote(8, X, (2, 10), 92, Acknowledged)];
        let events = [&writes[..], &[saw(1, X, (begun, 30), 1, 91)]].concat();
        expect(&events, all, (Everything, Never), wanted);
        expect(&events, all, (Monotonic, Never), &[]);
    };
    check_at(9, &[]);
    check_at(10, &[]);
    check_at(11, &["OLDER THAN AN ACKNOWLEDGED WRITE"]);
    // Versions and acknowledgements may come in different orders: the highest version before the read counts.
    let crossed = [wrote(9, X, (0, 20), 91, Acknowledged), wrote(8, X, (2, 10), 92, Acknowledged), saw(1, X, (21, 22), 1, 91)];
    expect(&crossed, all, (Everything, Never), &["OLDER THAN AN ACKNOWLEDGED WRITE"]);
}

#[test]
fn a_state_that_never_was_is_found() {
    let writes = [wrote(1, X, (0, 1), 11, Acknowledged), wrote(1, X, (2, 3), 12, Acknowledged)];
    let with = |event: Event| [&writes[..], &[event]].concat();
    let all: &[(Object, &[Token])] = &[(X, &[11, 12])];
    always(&with(saw(2, X, (4, 5), 1, 12)), all, &["NEVER WAS"]);
    always(&with(saw(2, X, (4, 5), 3, 77)), all, &["NEVER WAS"]);
    always(&with(saw(2, Y, (4, 5), 1, 11)), all, &["NEVER WAS"]);
    expect(&with(saw(2, X, (0, 1), 2, 12)), all, (Eventual, Never), &["BEFORE ITS TIME"]);
    let lists = [wrote(1, L, (0, 1), 21, Acknowledged), wrote(1, L, (2, 3), 22, Acknowledged), listed(2, (4, 5), &[22])];
    always(&lists, &[(L, &[21, 22])], &["NEVER WAS"]);
    let refused = [wrote(1, X, (0, 1), 11, Refused), saw(2, X, (4, 5), 1, 11)];
    always(&refused, &[(X, &[])], &["NEVER WAS"]);
}

#[test]
fn states_that_went_with_a_primary_are_excused_after_a_failover() {
    // 12 was acknowledged and lost; the new primary gave its place to 21.
    let events = [
        wrote(1, X, (0, 1), 11, Acknowledged),
        wrote(1, X, (2, 3), 12, Acknowledged),
        saw(1, X, (4, 5), 2, 12),
        saw(1, X, (6, 7), 1, 11),
        wrote(2, X, (8, 9), 21, Acknowledged),
        saw(1, X, (10, 11), 2, 21),
    ];
    let left: &[(Object, &[Token])] = &[(X, &[11, 21])];
    expect(&events, left, (Everything, Asynchronous), &[]);
    assert_eq!(check(&events, &truth(left), Everything, Asynchronous).doomed_reads, 1);
    expect(&events, left, (Everything, Synchronous), &["LOST"]);
    // What survived is still asked for.
    let stale = [&events[..], &[saw(2, X, (12, 13), 1, 11)]].concat();
    expect(&stale, left, (OwnWrites, Asynchronous), &["STALE OWN READ"]);
    // Seen on a replica, never acknowledged, gone: right only if the primary was lost.
    let unknown = [wrote(1, L, (0, 9), 11, Unknown), listed(2, (4, 5), &[11])];
    expect(&unknown, &[(L, &[])], (Monotonic, Never), &["NEVER WAS"]);
    expect(&unknown, &[(L, &[])], (Monotonic, Synchronous), &[]);
}
