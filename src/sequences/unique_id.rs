//! `pgyard.unique_id()`: 64-bit numbers in the order of time that no two shards share.
//!
//! From the highest bit: 41 bits of milliseconds since 2024 (69 years), 6 bits of the shard's number, 16 bits that count. The state is a
//! sequence, whose value is the last milliseconds and count, so that it is written ahead like any sequence and does not go back with a
//! transaction. It only grows, also while the clock is set back: within a shard no number comes twice, and each is above those before it.

/// 2024-01-01 00:00:00 UTC as seconds since 1970.
const EPOCH: u64 = 1_704_067_200;

/// The lock under which the state is moved on: held for microseconds, within one call.
const LOCK: u64 = 8_098_724_220;

/// Makes the function on one shard, by its number in the map's order. Run again, it keeps the state.
pub fn unique_id_script(shard: usize) -> String {
    format!(
        "SET LOCAL client_min_messages = warning;
CREATE SCHEMA IF NOT EXISTS pgyard;
GRANT USAGE ON SCHEMA pgyard TO PUBLIC;
CREATE SEQUENCE IF NOT EXISTS pgyard.unique_id_state;
CREATE OR REPLACE FUNCTION pgyard.unique_id() RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER
  SET search_path = pg_catalog AS $pgyard$
DECLARE
  state bigint;
BEGIN
  PERFORM pg_advisory_lock({LOCK});
  BEGIN
    SELECT greatest(last_value + 1, (floor(date_part('epoch', clock_timestamp()) * 1000)::bigint - {EPOCH}000) << 16)
      INTO state FROM pgyard.unique_id_state;
    PERFORM setval('pgyard.unique_id_state', state);
  EXCEPTION WHEN OTHERS OR query_canceled THEN
    PERFORM pg_advisory_unlock({LOCK});
    RAISE;
  END;
  PERFORM pg_advisory_unlock({LOCK});
  RETURN (state >> 16 << 22) | ({shard}::bigint << 16) | (state & 65535);
END $pgyard$;
COMMENT ON FUNCTION pgyard.unique_id() IS 'unique over all shards, in the order of time; this is shard {shard}';
GRANT EXECUTE ON FUNCTION pgyard.unique_id() TO PUBLIC;"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::map::SHARDS_MAX;

    #[test]
    fn every_shard_has_its_number() {
        assert!(unique_id_script(5).contains("(5::bigint << 16)"));
        assert_eq!(SHARDS_MAX, 1 << 6, "the numbers of shards have 6 bits");
    }
}
