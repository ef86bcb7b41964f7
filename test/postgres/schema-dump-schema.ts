/** A schema with something of every kind, and names that hurt: what a dump must carry over whole. */
export const roles = ['dump_owner', 'dump_reader', 'dump "quoted" role']

const everyServer = String.raw`
CREATE EXTENSION citext;
CREATE SCHEMA ext;
CREATE EXTENSION hstore SCHEMA ext;
CREATE EXTENSION btree_gist SCHEMA ext;
CREATE EXTENSION postgres_fdw SCHEMA ext;
CREATE SCHEMA shop AUTHORIZATION dump_owner;
CREATE SCHEMA "Größe; -- 'x' ""y"" ";
CREATE SCHEMA walback;
CREATE TABLE walback.secret (id int);
COMMENT ON SCHEMA shop IS 'it''s; a \ shop
--
-- Name: fake; Type: TABLE; Schema: public; Owner: nobody
--

';
COMMENT ON EXTENSION citext IS 'changed';

CREATE TYPE shop.mood AS ENUM ('sad', 'it''s ok', 'häppy;');
CREATE TYPE shop.point3 AS (x double precision, "y;" text COLLATE "C", z shop.mood[]);
CREATE TYPE shop.span AS RANGE (subtype = double precision, subtype_diff = float8mi);
CREATE DOMAIN shop.posint AS integer DEFAULT 1 CONSTRAINT positive CHECK (VALUE > 0);
CREATE DOMAIN shop.email AS citext CHECK (VALUE ~ '^[^@;]+@[^@;]+$');
COMMENT ON TYPE shop.mood IS 'a mood';
CREATE COLLATION shop.german (provider = icu, locale = 'de-u-co-phonebk');
CREATE COLLATION shop.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

CREATE FUNCTION shop.tricky(a integer, b text DEFAULT 'x;y') RETURNS text LANGUAGE plpgsql STABLE STRICT
  SET search_path = shop, pg_temp AS $body$
DECLARE r text := $q$;$q$;
BEGIN
  -- a ; in a comment, and 'quotes
--
-- Name: tricky_fake; Type: FUNCTION; Schema: shop; Owner: postgres
--

  IF a > 0 THEN RETURN r || b || '$$;' ; END IF;
  RETURN E'\\;\'';
END;
$body$;
CREATE FUNCTION shop.atomic(a integer) RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT a + 1; SELECT a + 2; END;
CREATE FUNCTION shop.many(OUT a integer, OUT b text) RETURNS SETOF record LANGUAGE sql AS 'SELECT 1, ''a;''; ';
CREATE PROCEDURE shop.proc(INOUT n integer) LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN n := n + 1; COMMIT; END $$;
CREATE AGGREGATE shop.total(integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '0');
CREATE FUNCTION shop.eq(shop.point3, shop.point3) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1.x = $2.x';
CREATE OPERATOR shop.=== (LEFTARG = shop.point3, RIGHTARG = shop.point3, FUNCTION = shop.eq, COMMUTATOR = OPERATOR(shop.===));
CREATE CAST (shop.mood AS integer) WITH INOUT AS ASSIGNMENT;
CREATE TEXT SEARCH DICTIONARY shop.dict (TEMPLATE = simple, stopwords = english);
CREATE TEXT SEARCH CONFIGURATION shop.conf (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION shop.conf ALTER MAPPING FOR asciiword WITH shop.dict;

CREATE SEQUENCE shop.free_seq AS smallint INCREMENT BY -3 MAXVALUE 30 MINVALUE -30 CYCLE CACHE 5;
CREATE TABLE shop.customer (
  id bigint GENERATED ALWAYS AS IDENTITY (START WITH 100 INCREMENT BY 7) PRIMARY KEY,
  email shop.email UNIQUE,
  name text COLLATE shop.german NOT NULL DEFAULT 'n;n',
  mood shop.mood DEFAULT 'sad',
  spot shop.point3,
  tags text[] DEFAULT '{"a;b",c}',
  attrs ext.hstore,
  upper_name text GENERATED ALWAYS AS (upper(name)) STORED,
  old integer,
  serial_no serial
);
ALTER TABLE shop.customer DROP COLUMN old;
ALTER TABLE shop.customer ALTER name SET STATISTICS 500, ALTER tags SET STORAGE EXTERNAL, ALTER tags SET (n_distinct = -0.5);
ALTER TABLE shop.customer REPLICA IDENTITY FULL;
ALTER TABLE shop.customer OWNER TO dump_owner;
ALTER TABLE shop.customer CLUSTER ON customer_email_key;
CREATE INDEX customer_partial ON shop.customer USING btree (lower(name) DESC NULLS LAST) INCLUDE (mood) WHERE mood <> 'sad';
CREATE STATISTICS shop.stats (dependencies, mcv) ON name, mood FROM shop.customer;
ALTER STATISTICS shop.stats SET STATISTICS 77;
COMMENT ON COLUMN shop.customer.name IS E'tab\there \\ ''';

CREATE TABLE "Größe; -- 'x' ""y"" "."table
with newline; \ and ""quotes"" 🐘" ("col
umn;" int PRIMARY KEY, "select" text, "$$" text CHECK ("$$" <> '$$;'));
COMMENT ON TABLE "Größe; -- 'x' ""y"" "."table
with newline; \ and ""quotes"" 🐘" IS 'hostile';
CREATE INDEX "in
dex;" ON "Größe; -- 'x' ""y"" "."table
with newline; \ and ""quotes"" 🐘" ("select");

CREATE TABLE shop.orders (
  id bigint NOT NULL, customer bigint REFERENCES shop.customer ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  placed timestamptz NOT NULL, amount numeric(12, 2), during tstzrange,
  PRIMARY KEY (id, placed)
) PARTITION BY RANGE (placed);
CREATE TABLE shop.orders_2025 PARTITION OF shop.orders FOR VALUES FROM ('2025-01-01 00:00+00') TO ('2026-01-01 00:00+00')
  PARTITION BY HASH (id);
CREATE TABLE shop.orders_2025_t PARTITION OF shop.orders_2025 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE shop.orders_rest PARTITION OF shop.orders DEFAULT WITH (fillfactor = 70, autovacuum_enabled = false);
CREATE INDEX ON shop.orders (amount);
CREATE TABLE shop.orders_apart (LIKE shop.orders INCLUDING ALL);
ALTER TABLE shop.orders_apart ADD EXCLUDE USING gist (customer WITH =, during WITH &&);
ALTER TABLE shop.orders_apart ADD CONSTRAINT late CHECK (amount > 0) NOT VALID;
CREATE TABLE shop.parent (a int, b text, CHECK (a > 0) NO INHERIT);
CREATE TABLE shop.child (c int) INHERITS (shop.parent);
ALTER TABLE shop.child ALTER b SET DEFAULT 'own';
CREATE UNLOGGED TABLE shop.scratch OF shop.point3 (x PRIMARY KEY);
CREATE TABLE shop.empty ();
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nowhere', dbname 'a''b');
CREATE USER MAPPING FOR dump_owner SERVER far OPTIONS (user 'u', password 'p;''w');
CREATE FOREIGN TABLE shop.remote (a int OPTIONS (column_name 'A;'), b text) SERVER far OPTIONS (schema_name 's');

CREATE VIEW shop.v WITH (security_barrier) AS SELECT id, name || ';' AS named FROM shop.customer WITH LOCAL CHECK OPTION;
ALTER VIEW shop.v ALTER named SET DEFAULT 'd';
CREATE VIEW shop.v2 AS SELECT v.id, t."col
umn;" FROM shop.v CROSS JOIN "Größe; -- 'x' ""y"" "."table
with newline; \ and ""quotes"" 🐘" t;
CREATE MATERIALIZED VIEW shop.mv AS SELECT mood, count(*) AS n FROM shop.customer GROUP BY mood WITH NO DATA;
CREATE UNIQUE INDEX ON shop.mv (mood);
CREATE RULE no_delete AS ON DELETE TO shop.parent DO INSTEAD (SELECT 1; SELECT ';');

CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touch BEFORE INSERT OR UPDATE OF name ON shop.customer FOR EACH ROW WHEN (NEW.name <> ';') EXECUTE FUNCTION shop.touch('a;', 'it''s');
CREATE TRIGGER rows AFTER INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.touch();
CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON shop.parent DEFERRABLE FOR EACH ROW EXECUTE FUNCTION shop.touch();
ALTER TABLE shop.customer DISABLE TRIGGER touch;
CREATE FUNCTION shop.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN NULL; END';
CREATE EVENT TRIGGER "watch;" ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION shop.on_ddl();
COMMENT ON EVENT TRIGGER "watch;" IS 'watches;';
ALTER TABLE shop.customer ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.customer AS RESTRICTIVE FOR UPDATE TO dump_reader USING (name = current_user) WITH CHECK (mood <> 'sad');
CREATE PUBLICATION pub FOR TABLE shop.customer, shop.parent WITH (publish = 'insert, update');
CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere password=hunter2' PUBLICATION p WITH (connect = false, slot_name = NONE);

GRANT USAGE ON SCHEMA shop TO dump_reader;
GRANT SELECT, UPDATE (name, mood) ON shop.customer TO dump_reader, "dump ""quoted"" role" WITH GRANT OPTION;
GRANT USAGE ON SEQUENCE shop.free_seq TO PUBLIC;
REVOKE EXECUTE ON FUNCTION shop.tricky(integer, text) FROM PUBLIC;
GRANT USAGE ON TYPE shop.mood TO dump_reader;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE dump_owner IN SCHEMA shop GRANT SELECT ON TABLES TO dump_reader;
`

const newerServers = `
CREATE TABLE shop.modern (
  id int, name text, valid tstzrange,
  doubled int GENERATED ALWAYS AS (id * 2) VIRTUAL,
  CONSTRAINT named NOT NULL name,
  PRIMARY KEY (id, valid WITHOUT OVERLAPS),
  UNIQUE NULLS NOT DISTINCT (name)
);
CREATE TABLE shop.modern_ref (
  id int, valid tstzrange,
  FOREIGN KEY (id, PERIOD valid) REFERENCES shop.modern (id, PERIOD valid) NOT ENFORCED
);
CREATE VIEW shop.modern_view WITH (security_invoker) AS
  SELECT JSON_OBJECT('a;' VALUE id) AS j, ANY_VALUE(name) AS n FROM shop.modern GROUP BY id;
CREATE PUBLICATION modern FOR TABLE shop.modern (id, name, valid) WHERE (id > 0);
CREATE PUBLICATION whole FOR TABLES IN SCHEMA ext;
`

export const schemaFor = (major: number): string => (major >= 18 ? everyServer + newerServers : everyServer)
