-- What the scripts find. The verifier is that of the password "oracle" after one round: log-ins are many, and their strength is
-- not what is tried here.
CREATE ROLE oracle LOGIN PASSWORD
    'SCRAM-SHA-256$1:c2FsdHNhbHRzYWx0c2FsdA==$nXZXInDoD52SjLf5Jf0Pb3YtIp7BgsmWnWdY4jy6Jg4=:GnqAgd4Vylj1zcG5Pnseb463TzSFqZ4yKAthmxHxljM=';
CREATE ROLE oracle_super SUPERUSER LOGIN PASSWORD
    'SCRAM-SHA-256$1:c2FsdHNhbHRzYWx0c2FsdA==$nXZXInDoD52SjLf5Jf0Pb3YtIp7BgsmWnWdY4jy6Jg4=:GnqAgd4Vylj1zcG5Pnseb463TzSFqZ4yKAthmxHxljM=';
CREATE ROLE low;
GRANT low TO oracle;
-- What a script makes lies in a schema of its own.
ALTER ROLE oracle IN DATABASE oracle SET search_path = scratch, public;
ALTER ROLE oracle_super IN DATABASE oracle SET search_path = scratch, public;
GRANT CREATE, TEMPORARY ON DATABASE oracle TO oracle;
CREATE SCHEMA scratch AUTHORIZATION oracle;
GRANT ALL ON SCHEMA public TO oracle;

SET ROLE oracle;
SET search_path = public;
CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL, price numeric(8, 2), made timestamptz);
CREATE TABLE lines (n int);
CREATE TABLE pairs (a int, b text);
CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE serials (id serial PRIMARY KEY, v text);
CREATE TABLE children (id int PRIMARY KEY, item int REFERENCES items (id));
CREATE DOMAIN positive AS int CONSTRAINT above_zero CHECK (VALUE > 0);
CREATE TABLE checked (v int CONSTRAINT v_is_small CHECK (v < 100), p positive, e text NOT NULL);
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE point2 AS (x int, y int);
CREATE TABLE moods (id int, m mood, p point2, tags text[]);
CREATE SEQUENCE counter;
CREATE VIEW cheap AS SELECT id, name FROM items WHERE price < 10;
CREATE FUNCTION notices(what text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE 'notice of %', what USING DETAIL = 'a detail', HINT = 'a hint', ERRCODE = '01234';
    RAISE WARNING 'warning of %', what;
    RAISE DEBUG 'debug of %', what;
    RETURN what;
END $$;
CREATE FUNCTION fails(state text) RETURNS int STABLE LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'failed with %', state USING ERRCODE = state, DETAIL = 'a detail', HINT = 'a hint', SCHEMA = 'a schema',
        TABLE = 'a table', COLUMN = 'a column', DATATYPE = 'a type', CONSTRAINT = 'a constraint';
END $$;
CREATE FUNCTION reads(wanted int) RETURNS text STABLE LANGUAGE sql AS 'SELECT name FROM public.items WHERE id = wanted';
CREATE FUNCTION writes(what int) RETURNS int LANGUAGE sql AS 'INSERT INTO public.lines VALUES (what) RETURNING n';
-- Says that it only reads, and does not.
CREATE FUNCTION lies(what int) RETURNS int STABLE LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO public.lines VALUES (%s)', what);
    RETURN what;
END $$;
-- May do anything, for all that its text shows.
CREATE FUNCTION dynamic(what int) RETURNS int STABLE LANGUAGE plpgsql AS $$
DECLARE
    found int;
BEGIN
    EXECUTE format('SELECT %s', what) INTO found;
    RETURN found;
END $$;
CREATE PROCEDURE commits(what int) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.lines VALUES (what);
    COMMIT;
    INSERT INTO public.lines VALUES (what + 1);
    ROLLBACK;
END $$;
CREATE FUNCTION hides() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE hidden (a int); END';
CREATE FUNCTION sets() RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM set_config(''work_mem'', ''3MB'', false); RETURN 1; END';
CREATE FUNCTION locks() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(8); RETURN NEW; END';
CREATE TABLE locking (a int);
CREATE TRIGGER locks BEFORE INSERT ON locking FOR EACH ROW EXECUTE FUNCTION locks();
GRANT SELECT ON items TO low;
RESET ROLE;
RESET search_path;

-- Brings the first state back. Rows are written anew, so that they lie on their pages as they did.
CREATE PROCEDURE oracle_reset() LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_class WHERE relnamespace = 'scratch'::regnamespace)
        OR EXISTS (SELECT FROM pg_proc WHERE pronamespace = 'scratch'::regnamespace)
        OR EXISTS (SELECT FROM pg_type WHERE typnamespace = 'scratch'::regnamespace) THEN
        DROP SCHEMA scratch CASCADE;
        CREATE SCHEMA scratch AUTHORIZATION oracle;
    END IF;
    -- A script of chance may have changed its search path before it made this one.
    IF to_regclass('public.made') IS NOT NULL THEN
        DROP TABLE public.made;
    END IF;
    TRUNCATE public.items, public.lines, public.pairs, public.late, public.serials, public.children, public.checked, public.moods, public.locking
        RESTART IDENTITY;
    ALTER SEQUENCE public.counter RESTART;
    INSERT INTO public.items
        SELECT n, 'item ' || n, n * 2.5, timestamptz '2020-01-01 00:00:00+00' + n * interval '1 day' FROM generate_series(1, 5) AS n;
    INSERT INTO public.late VALUES (1);
    INSERT INTO public.moods VALUES (1, 'ok', ROW(1, 2), '{a,NULL,"b c"}'), (2, NULL, NULL, NULL);
END $$;
CALL oracle_reset();
