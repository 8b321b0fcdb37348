CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN cents AS int CHECK (value >= 0);
CREATE TYPE pair AS (a int, b text);
CREATE TABLE kinds (customer int NOT NULL, id int, mood mood, cents cents, pair pair, tags text[], span int4range, took interval, clock time,
    addr inet, data bytea, ratio real, bits bit(4), short char(5), big numeric, doc jsonb, id2 uuid, moods mood[], stamp timestamp, zone timestamptz,
    PRIMARY KEY (customer, id));
INSERT INTO kinds SELECT 1 + n % 19, n, (ARRAY['sad', 'ok', 'happy']::mood[])[1 + n % 4], n % 11, ROW(n % 3, 'b' || n % 4)::pair,
    ARRAY['t' || n % 3, NULL, 'x,"y'], int4range(n % 5, n % 5 + 3), make_interval(days => n % 6, mins => n), time '10:00' + n * interval '1 minute',
    ('10.0.' || n % 4 || '.' || n % 7)::inet, decode(lpad(to_hex(n % 9), 4, '0'), 'hex'), (n % 8)::real / 4, (n % 16)::bit(4), 'c' || n % 6,
    CASE WHEN n % 10 = 0 THEN 'NaN' WHEN n % 7 = 0 THEN NULL ELSE n::numeric / 3 END, jsonb_build_object('k', n % 4),
    ('00000000-0000-0000-0000-0000000000' || lpad((n % 9)::text, 2, '0'))::uuid, ARRAY['ok', 'sad']::mood[],
    timestamp '2024-02-28 23:00' + n * interval '3 hours', timestamptz '2024-03-30 12:00+00' + n * interval '5 hours'
    FROM generate_series(1, 120) AS n;
CREATE SCHEMA other;
CREATE TABLE other.marks (customer int NOT NULL, mark mood, PRIMARY KEY (customer));
INSERT INTO other.marks SELECT n, (ARRAY['sad', 'ok', 'happy']::mood[])[1 + n % 3] FROM generate_series(1, 25) AS n;
CREATE TABLE other.orders (customer int NOT NULL, id int, note text, PRIMARY KEY (customer, id));
INSERT INTO other.orders SELECT n, n, 'another' FROM generate_series(1, 30) AS n;
CREATE TABLE other.countries (code text PRIMARY KEY, name text);
INSERT INTO other.countries VALUES ('de', 'another');
CREATE VIEW other.shown AS SELECT o.customer, c.name FROM other.orders o, other.countries c;
CREATE VIEW kinds_view AS SELECT k.customer, k.id, k.mood, m.mark FROM kinds k JOIN other.marks m ON m.customer = k.customer;
