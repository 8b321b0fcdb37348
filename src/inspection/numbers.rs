//! Sequences of sharded tables that could give the same value on two shards.

use super::finding::Finding;
use super::map::full_name;
use crate::sequences::{SequenceFacts, SequenceName, overlap};

/// What is wrong with one, by what each shard has of it.
pub fn judge(sequence: &SequenceName, shards: &[(&str, SequenceFacts)]) -> Option<Finding> {
    let meets = |place: usize| {
        let one = &shards[place];
        shards.iter().enumerate().any(|(other, two)| other != place && overlap(&one.1, &two.1))
    };
    let meeting: Vec<&str> = (0..shards.len()).filter(|place| meets(*place)).map(|place| shards[place].0).collect();
    if meeting.is_empty() {
        return None;
    }
    let columns: Vec<String> = sequence.columns.iter().map(|(table, column)| format!("{}.{column}", full_name(table))).collect();
    Some(Finding::warning(
        format!(
            "sequence {} of {} may give the same values on {}",
            full_name(&sequence.sequence),
            columns.join(", "),
            meeting.join(", ")
        ),
        "give it steps by which its shards do not meet: pgyard sequences FILE, then with --apply",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::QualifiedName;

    #[test]
    fn shards_that_meet_are_named() {
        let name = |name: &str| QualifiedName { schema: "public".into(), name: name.into() };
        let sequence = SequenceName { sequence: name("t_id_seq"), columns: vec![(name("t"), "id".into())] };
        let facts = |last, increment| SequenceFacts { last, called: true, increment, min: 1, max: i64::MAX, cycles: false };
        let check = |shards: &[(&str, SequenceFacts)], expect: Option<&str>| {
            assert_eq!(judge(&sequence, shards).map(|finding| finding.says).as_deref(), expect);
        };
        check(&[("s0", facts(3, 3)), ("s1", facts(4, 3)), ("s2", facts(5, 3))], None);
        check(
            &[("s0", facts(3, 3)), ("s1", facts(6, 3)), ("s2", facts(5, 3))],
            Some("sequence public.t_id_seq of public.t.id may give the same values on s0, s1"),
        );
    }
}
