CREATE SCHEMA extra;
CREATE TABLE orders (customer int NOT NULL, id bigint, region text, amount numeric(10,2), qty int, price float8, note text COLLATE "C",
    created date, flag bool, small smallint, code varchar(8), PRIMARY KEY (customer, id));
CREATE TABLE lines (customer int NOT NULL, order_id bigint, n int, sku text, cost numeric(8,2), PRIMARY KEY (customer, order_id, n));
CREATE TABLE extra.notes (customer int, stars smallint, body text);
CREATE TABLE events (tenant text, kind int, at timestamptz, payload jsonb, cost bigint);
CREATE TABLE readings (site uuid, day date, value numeric, PRIMARY KEY (site, day));
CREATE TABLE countries (code text PRIMARY KEY, name text NOT NULL, continent text);
CREATE TABLE audit (id int PRIMARY KEY, what text);
CREATE VIEW big_orders AS SELECT customer, id, amount FROM orders WHERE amount > 50;
INSERT INTO countries SELECT code, 'Land ' || code, CASE WHEN code < 'k' THEN 'here' ELSE 'There' END
    FROM unnest('{de,fr,us,jp,cn,br,Za,ke}'::text[]) AS code;
INSERT INTO audit SELECT n, 'entry ' || n FROM generate_series(1, 5) AS n;
INSERT INTO orders SELECT 1 + n % 23, n,
    CASE WHEN n % 11 = 0 THEN NULL ELSE (ARRAY['de', 'fr', 'us', 'jp', 'Za', 'xx'])[1 + n % 6] END,
    CASE WHEN n % 13 = 0 THEN NULL ELSE (n * 37 % 1000)::numeric / 10 END, n % 7, (n % 40) * 0.25,
    CASE WHEN n % 9 = 0 THEN NULL ELSE chr(65 + n % 26) || chr(97 + n % 5) END, date '2024-01-01' + n % 50,
    CASE n % 3 WHEN 0 THEN true WHEN 1 THEN false END, n % 100, 'c' || n % 4
    FROM generate_series(1, 240) AS n;
INSERT INTO lines SELECT customer, id, n, 'sku' || (id + n) % 12, (id * n % 90)::numeric / 4 FROM orders, generate_series(1, 2) AS n
    WHERE (id + n) % 3 <> 0;
INSERT INTO extra.notes SELECT CASE WHEN n % 10 = 0 THEN NULL ELSE 1 + n % 31 END, n % 6, 'note ' || n FROM generate_series(1, 60) AS n;
INSERT INTO events SELECT CASE WHEN n % 12 = 0 THEN NULL ELSE 't' || n % 15 END, n % 5, timestamptz '2024-03-01 00:00+00' + n * interval '7 hours',
    jsonb_build_object('n', n % 8), n * 1000003 FROM generate_series(1, 150) AS n;
INSERT INTO readings SELECT ('00000000-0000-0000-0000-0000000000' || lpad((n % 9)::text, 2, '0'))::uuid, date '2024-05-01' + n / 9, n::numeric / 7
    FROM generate_series(1, 90) AS n;
CREATE TABLE by_int (key int) PARTITION BY HASH (key);
CREATE TABLE by_text (key text) PARTITION BY HASH (key);
CREATE TABLE by_pair (first uuid, second date) PARTITION BY HASH (first, second);
