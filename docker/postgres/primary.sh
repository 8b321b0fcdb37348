#!/bin/bash
# Run once by the postgres image when the primary's data directory is new: the application's role and database, and what replicas
# need to copy and follow it.
set -euo pipefail

password=$(< /run/secrets/app_password)
# The image sets POSTGRES_PASSWORD from the secret. psql quotes what is behind :'...'.
psql --username postgres --dbname postgres --set ON_ERROR_STOP=1 \
    --set app="$password" --set replicator="$POSTGRES_PASSWORD" <<'SQL'
CREATE ROLE app LOGIN PASSWORD :'app';
CREATE DATABASE app OWNER app;
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replicator';
-- In postgresql.auto.conf, which replicas copy: a replica with a lower max_connections would not start.
ALTER SYSTEM SET wal_level = logical;
ALTER SYSTEM SET max_connections = 200;
ALTER SYSTEM SET max_prepared_transactions = 64;
ALTER SYSTEM SET max_slot_wal_keep_size = '2GB';
SELECT pg_create_physical_replication_slot(name, true) FROM (VALUES ('replica1'), ('replica2')) AS replicas (name);
SQL

# The image lets every role in from everywhere by password, except for replication.
echo 'host replication replicator all scram-sha-256' >> "$PGDATA/pg_hba.conf"
