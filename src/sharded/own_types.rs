//! Types of the user's own: they have another number on each shard, so a number of one shard says nothing to another.

use super::partial_rows::{PartialRows, described_types};
use super::planning::BoundParameters;
use super::session::ShardedSession;
use super::trouble::Trouble;
use crate::sql::Lexing;
use crate::sql::scan::Scanner;

/// Numbers from here on are given out by each database for itself.
/// Spec: `FirstNormalObjectId` in `src/include/access/transam.h`.
const FIRST_OWN: u32 = 16_384;
/// The type `text`.
const TEXT: u32 = 25;
/// The shard whose numbers the schema has.
const SCHEMA_SHARD: usize = 0;

/// Values, and whether each is binary.
type SentValues = Vec<(Option<Vec<u8>>, bool)>;

/// Parameters as any shard understands them: a type of the user's own is left to the server, which finds it as the first one did. A
/// parameter that the text doesn't name, which leaves nothing to find it by, becomes NULL.
pub(super) fn portable(sql: &str, parameters: BoundParameters<'_>) -> Option<(Vec<u32>, SentValues)> {
    if parameters.types.iter().all(|oid| *oid < FIRST_OWN) {
        return None;
    }
    let bytes = sql.as_bytes();
    let named = |number: usize| {
        let written = format!("${number}");
        Scanner::new(bytes, Lexing::default()).any(|token| token.bytes(bytes) == written.as_bytes())
    };
    let (mut types, mut values) = (parameters.types.to_vec(), parameters.values.to_vec());
    for (place, oid) in types.iter_mut().enumerate().filter(|(_, oid)| **oid >= FIRST_OWN) {
        let kept = named(place + 1);
        *oid = if kept { 0 } else { TEXT };
        if let Some(value) = values.get_mut(place).filter(|_| !kept) {
            *value = (None, false);
        }
    }
    Some((types, values))
}

/// The types of parameters as any shard understands them.
pub(super) fn portable_types(sql: &str, parameters: Option<BoundParameters<'_>>) -> Vec<u32> {
    let types =
        |parameters: BoundParameters<'_>| portable(sql, parameters).map_or_else(|| parameters.types.to_vec(), |(types, _)| types);
    parameters.map(types).unwrap_or_default()
}

impl ShardedSession {
    /// Makes the description of rows that a shard gave one whose types the schema knows.
    pub(super) async fn in_terms_of_the_schema(
        &mut self,
        rows: &mut PartialRows,
        (shard, sql): (usize, &str),
        parameters: Option<BoundParameters<'_>>,
    ) -> Result<(), Trouble> {
        if shard == SCHEMA_SHARD || described_types(&rows.description).iter().all(|(oid, _)| *oid < FIRST_OWN) {
            return Ok(());
        }
        let types = portable_types(sql, parameters);
        if let Some(description) = self.description_of(SCHEMA_SHARD, sql, &types).await? {
            rows.description = description;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_ones_own_types_stay_at_home() {
        let values = [(Some(b"a".to_vec()), false), (Some(b"b".to_vec()), true), (None, false)];
        let check = |sql: &str, types: &[u32], expect: Option<(&[u32], [bool; 3])>| {
            let got = portable(sql, BoundParameters { types, values: &values });
            let expect = expect.map(|(types, given)| (types.to_vec(), given));
            let given = |values: SentValues| [0, 1, 2].map(|place| values[place].0.is_some());
            assert_eq!(got.map(|(types, values)| (types, given(values))), expect, "{sql}");
        };
        check("SELECT $1", &[23, 25, 0], None);
        check("SELECT $2 AS \"$1\"", &[20_000, 30_000, 23], Some((&[25, 0, 23], [false, true, false])));
    }
}
