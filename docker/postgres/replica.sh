#!/bin/bash
# The entry point of a replica: copies the primary when the data directory is new, then follows it. $REPLICA is its name, and the
# name of its replication slot on the primary.
set -euo pipefail

password=$(< /run/secrets/postgres_password)
export PGPASSWORD=$password

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # Half a copy is worth nothing: it is made beside the data directory and moved in whole.
    copy=$PGDATA/copying
    until
        rm -rf "$copy"
        pg_basebackup --host primary --username replicator --no-password --pgdata "$copy" \
            --write-recovery-conf --slot "$REPLICA" --wal-method stream --checkpoint fast
    do
        echo "$REPLICA: the primary cannot be copied yet; trying again" >&2
        sleep 1
    done
    # PG_VERSION comes last: with it the directory counts as complete.
    find "$copy" -mindepth 1 -maxdepth 1 ! -name PG_VERSION -exec mv -t "$PGDATA" {} +
    mv "$copy/PG_VERSION" "$PGDATA"
    rmdir "$copy"
    chmod 0700 "$PGDATA"
fi
unset PGPASSWORD

exec postgres -c cluster_name="$REPLICA" -c hot_standby_feedback=on
