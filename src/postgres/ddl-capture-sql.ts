/**
 * SQL of the event triggers that write changes of the schema into the change stream (model/ddl-message.ts), and that
 * keep applications unharmed on the way (postgres/identity-sql.ts). They run inside the application's DDL. So:
 * - Nothing in them may fail a statement: an error becomes a `ddl-failed` message, and if even that cannot be written, a
 *   warning.
 * - They need no right of whoever runs the DDL. Where every table is published, they run as the user, with no right that
 *   the user has not: they may all call what is in the schema walback, which is seen to if somebody revokes that. Where
 *   the publication is a list, only its owner may add to it, so there they run as their own owner (`RunAs`).
 * - The first runs with the user's settings, and leaves what the others, which have settings of their own, cannot see
 *   (the search_path) in a setting for them.
 * - They wait for no table. The definition of a view locks what it reads, which another session may hold: then that
 *   object is not described, after the 20 ms of a lock_timeout (describe-sql.ts), long before there could be a deadlock.
 * - Every message is followed by an empty one: the server orders a message by where it ends and a row by where it
 *   begins, so that without it a row outside of our subtransaction would come before the message that it follows.
 */

/** Settings that change what a statement of DDL means, or what an expression in it gives. */
const meaningful = [
  'search_path',
  'default_tablespace',
  'default_table_access_method',
  'default_toast_compression',
  'check_function_bodies',
  'standard_conforming_strings',
  'backslash_quote',
  'array_nulls',
  'transform_null_equals',
  'xmloption',
  'DateStyle',
  'IntervalStyle',
  'TimeZone',
  'lc_monetary',
  'lc_numeric',
  'lc_time',
  'bytea_output',
  'extra_float_digits',
  'plpgsql.variable_conflict',
]

const settingsJson = meaningful.map((name) => `'${name}', pg_catalog.current_setting('${name}', true)`).join(',\n    ')

/** Above this, the rows of a rewritten table are not sent along (bytes of its heap). */
export const rowsCap_bytes = 64 << 20

/** Triggers, rules and policies have no schema of their own, and are told to last though their table is temporary. */
const isOnTemporary = (identity: string): string =>
  `coalesce(regexp_replace(${identity}, '"(?:[^"]|"")*"', 'q', 'g') ~ '(^| on | for )pg_temp(_[0-9]+)?\\.', false)`

const isLasting = (d: string): string =>
  `${d}.schema_name IS DISTINCT FROM 'pg_temp' AND ${d}.schema_name IS DISTINCT FROM 'walback'
      AND NOT (${d}.object_type IS NOT DISTINCT FROM 'schema' AND ${d}.object_identity IS NOT DISTINCT FROM 'walback') AND NOT ${isOnTemporary(`${d}.object_identity`)}
      AND NOT walback.is_fleeting(${d}.classid, ${d}.objid)`

/** As whom the functions of the event triggers run: the user of the DDL, or whoever installed them. */
export type RunAs = 'user' | 'owner'

const pinned = (runAs: RunAs): string => `${runAs === 'owner' ? 'SECURITY DEFINER' : 'SECURITY INVOKER'}
SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on SET escape_string_warning = off SET backslash_quote = safe_encoding
SET quote_all_identifiers = off SET transform_null_equals = off SET array_nulls = on SET xmlbinary = base64 SET datestyle = ISO SET intervalstyle = postgres SET timezone = UTC
SET extra_float_digits = 3 SET bytea_output = hex SET lc_monetary = 'C' SET xmloption = content SET row_security = off`

const sayFunction = `
CREATE OR REPLACE FUNCTION walback.say(content jsonb) RETURNS void LANGUAGE plpgsql AS $walback$
BEGIN
  PERFORM pg_catalog.pg_logical_emit_message(true, 'walback', content::pg_catalog.text);
  PERFORM pg_catalog.pg_logical_emit_message(true, 'walback', '');
END
$walback$;
  -- Sends a text once per transaction, and gives the name under which it is referred to.
CREATE OR REPLACE FUNCTION walback.say_text(content text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $walback$
DECLARE
  id text := md5(content);
  sent text := coalesce(current_setting('walback.sent', true), '');
BEGIN
  IF content = '' THEN RETURN ''; END IF;
  IF position(id IN sent) = 0 THEN
    PERFORM walback.say(jsonb_build_object('v', 1, 'kind', 'ddl-text', 'id', id, 'text', content));
    -- Undone with the savepoint that the message is undone with.
    PERFORM set_config('walback.sent', left(id || ' ' || sent, 330), true);
  END IF;
  RETURN id;
END
$walback$;
CREATE OR REPLACE FUNCTION walback.say_failed(event text, tag text, sqlstate text, message text) RETURNS void LANGUAGE plpgsql AS $walback$
BEGIN
  PERFORM walback.say(pg_catalog.jsonb_build_object('v', 1, 'kind', 'ddl-failed', 'event', event, 'tag', tag, 'sqlstate', sqlstate, 'message', message));
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'walback could not say that it failed to follow %: %', tag, message;
END
$walback$;`

/** Runs as the user: search_path, role and settings as the statement had them. */
const whoFunction = `
CREATE OR REPLACE FUNCTION walback.note_who() RETURNS event_trigger LANGUAGE plpgsql AS $walback$
BEGIN
  PERFORM pg_catalog.set_config('walback.who', pg_catalog.jsonb_build_object('role', current_user, 'settings', pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
    ${settingsJson})))::pg_catalog.text, true);
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'walback could not note the settings: %', SQLERRM;
END
$walback$;`

const droppedFunction = (runAs: RunAs): string => `
CREATE OR REPLACE FUNCTION walback.note_dropped() RETURNS event_trigger LANGUAGE plpgsql ${pinned(runAs)} AS $walback$
DECLARE
  gone jsonb;
BEGIN
  IF current_setting('walback.quiet', true) = 'on' THEN RETURN; END IF;
  -- Constraints and columns name the table that may have lost its key; an index does not.
  PERFORM set_config('walback.lost', concat_ws(' ', nullif(current_setting('walback.lost', true), ''), string_agg(l.relid::text, ' ')), true)
    FROM (
      SELECT c.oid AS relid FROM pg_event_trigger_dropped_objects() d JOIN pg_namespace n ON n.nspname = d.address_names[1]
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = d.address_names[2]
        WHERE d.object_type IN ('table constraint', 'table column') AND c.relkind = 'r'
      UNION
      SELECT c.oid FROM pg_class c WHERE c.relkind = 'r' AND c.relreplident = 'i'
        AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident)
        AND EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d WHERE d.object_type = 'index')
    ) l HAVING count(*) > 0;
  SELECT jsonb_agg(jsonb_build_object('class', d.classid::regclass::text, 'oid', d.objid::bigint, 'sub', d.objsubid,
      'type', d.object_type, 'schema', d.schema_name, 'name', d.object_name, 'identity', d.object_identity,
      'address', jsonb_build_object('type', d.object_type, 'names', d.address_names, 'args', d.address_args),
      'original', d.original, 'cascaded', d.normal) ORDER BY d.ordinality)
    INTO gone
    FROM pg_event_trigger_dropped_objects() WITH ORDINALITY d
    WHERE NOT d.is_temporary AND NOT ${isOnTemporary('d.object_identity')} AND d.schema_name IS DISTINCT FROM 'walback' AND d.schema_name IS DISTINCT FROM 'pg_toast'
      AND NOT (d.object_type = 'schema' AND d.object_name = 'walback')
      -- What goes with its table by itself needs no mention.
      AND (d.original OR d.normal OR d.classid IN ('pg_class'::regclass, 'pg_constraint'::regclass, 'pg_proc'::regclass, 'pg_namespace'::regclass));
  IF gone IS NULL THEN RETURN; END IF;
  PERFORM walback.say(jsonb_build_object('v', 1, 'kind', 'ddl-dropped', 'objects', gone));
  PERFORM set_config('walback.dropped', 'yes', true);
EXCEPTION WHEN OTHERS THEN
  PERFORM walback.say_failed('sql_drop', tg_tag, SQLSTATE, SQLERRM);
END
$walback$;`

const rewriteFunction = (runAs: RunAs): string => `
CREATE OR REPLACE FUNCTION walback.note_rewrite() RETURNS event_trigger LANGUAGE plpgsql ${pinned(runAs)} AS $walback$
BEGIN
  PERFORM set_config('walback.rewritten', concat_ws(' ', nullif(current_setting('walback.rewritten', true), ''),
    pg_event_trigger_table_rewrite_oid()::text || '.' || pg_event_trigger_table_rewrite_reason()), true);
EXCEPTION WHEN OTHERS THEN
  PERFORM walback.say_failed('table_rewrite', tg_tag, SQLSTATE, SQLERRM);
END
$walback$;`

/**
 * Whether replay would compute other values than the command did. Of a new or retyped column (its catalog row is of the
 * transaction that rewrote the table) a default that draws on anything volatile, or identity; of a conversion, any call
 * in the statement of what is not immutable; of SET LOGGED, always, since the rows of an unlogged table are not in the
 * stream.
 */
const computableFunction = `
CREATE OR REPLACE FUNCTION walback.is_computable(relation oid, reason int, statement text) RETURNS boolean LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $walback$
DECLARE
  expressions text;
BEGIN
  IF reason & 1 <> 0 AND (SELECT relpersistence = 'p' FROM pg_class WHERE oid = relation) THEN RETURN false; END IF;
  IF reason & 2 <> 0 THEN
    IF EXISTS (SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
               WHERE c.oid = relation AND a.xmin = c.xmin AND a.attidentity <> '') THEN RETURN false; END IF;
    SELECT string_agg(coalesce(pg_get_expr(d.adbin, d.adrelid), pg_get_expr(t.typdefaultbin, 0), ''), ' ; ') INTO expressions
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE c.oid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.xmin = c.xmin;
    IF walback.calls(expressions, '{v}') THEN RETURN false; END IF;
  END IF;
  IF reason & 4 <> 0 AND statement ~* '\\yusing\\y' AND walback.calls(statement, '{v,s}') THEN RETURN false; END IF;
  RETURN true;
END
$walback$;
  -- Whether an expression seems to call a function of one of these volatilities; by name, so that it errs to yes.
CREATE OR REPLACE FUNCTION walback.calls(expression text, volatilities "char"[]) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $walback$
  SELECT expression ~* '\\y(current_(timestamp|date|time|user|role|schema|catalog)|local(timestamp|time)|session_user|user)\\y' AND 's' = ANY (volatilities)
    OR EXISTS (SELECT FROM regexp_matches(expression, '("(?:[^"]|"")+"|[[:alpha:]_][[:alnum:]_$]*)\\s*\\(', 'g') m
               JOIN pg_proc p ON p.proname = CASE WHEN m[1] LIKE '"%' THEN replace(substr(m[1], 2, length(m[1]) - 2), '""', '"') ELSE lower(m[1]) END
               WHERE p.provolatile = ANY (volatilities))
$walback$;`

/** All rows of a table as they are now, as text by the types' output functions, in pieces of about a megabyte. */
const rowsFunction = `
CREATE OR REPLACE FUNCTION walback.say_rows(relation oid) RETURNS boolean LANGUAGE plpgsql AS $walback$
DECLARE
  names jsonb;
  fields text;
  piece jsonb;
  is_first boolean := true;
  per_piece int;
BEGIN
  IF pg_catalog.pg_table_size(relation) > coalesce(nullif(current_setting('walback.rows_cap', true), '')::bigint, ${rowsCap_bytes}) THEN RETURN false; END IF;
  SELECT coalesce(jsonb_agg(attname ORDER BY attnum), '[]'),
      coalesce(string_agg(format('CASE WHEN t.%1$I IS NOT DISTINCT FROM NULL THEN NULL ELSE format(''%%s'', t.%1$I) END', attname), ', ' ORDER BY attnum), '')
    INTO names, fields
    FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
  SELECT greatest(1, (1048576 / greatest(1, pg_table_size(relation) / greatest(1, reltuples)))::int) INTO per_piece FROM pg_class WHERE oid = relation;
  per_piece := least(per_piece, 1000);
  FOR piece IN EXECUTE format(
    'SELECT jsonb_agg(to_jsonb(r.fields)) FROM (SELECT (row_number() OVER () - 1) / %s AS n, ARRAY[%s]::text[] AS fields FROM ONLY %s t) r GROUP BY r.n ORDER BY r.n',
    per_piece, fields, relation::regclass)
  LOOP
    PERFORM walback.say(jsonb_build_object('v', 1, 'kind', 'ddl-rows', 'oid', relation::bigint, 'first', is_first, 'columns', names, 'rows', piece));
    is_first := false;
  END LOOP;
  IF is_first THEN
    PERFORM walback.say(jsonb_build_object('v', 1, 'kind', 'ddl-rows', 'oid', relation::bigint, 'first', true, 'columns', names, 'rows', '[]'::jsonb));
  END IF;
  RETURN true;
END
$walback$;`

/** What is revoked from PUBLIC in the schema walback would leave every other role's changes of the schema untold. */
const openFunction = `
CREATE OR REPLACE FUNCTION walback.open_to_all() RETURNS void LANGUAGE plpgsql AS $walback$
BEGIN
  IF has_schema_privilege('public', 'walback', 'USAGE') AND NOT EXISTS (
    SELECT FROM pg_proc WHERE pronamespace = 'walback'::regnamespace AND NOT has_function_privilege('public', oid, 'EXECUTE')) THEN RETURN; END IF;
  PERFORM set_config('walback.quiet', 'on', true);
  GRANT USAGE ON SCHEMA walback TO PUBLIC;
  GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA walback TO PUBLIC;
  PERFORM set_config('walback.quiet', '', true);
END
$walback$;`

const commandFunction = (runAs: RunAs): string => `
  -- Where an object is found in any database, and its state; what cannot be told of one is no reason to lose the others.
CREATE OR REPLACE FUNCTION walback.address(class oid, object oid, part int) RETURNS jsonb LANGUAGE plpgsql AS $walback$
DECLARE
  a record;
BEGIN
  SELECT * INTO a FROM pg_identify_object_as_address(class, object, part);
  RETURN CASE WHEN a.object_names IS NOT NULL THEN jsonb_build_object('type', a.type, 'names', a.object_names, 'args', a.object_args) END;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END
$walback$;
CREATE OR REPLACE FUNCTION walback.state(class oid, object oid, tag text) RETURNS jsonb LANGUAGE plpgsql AS $walback$
BEGIN
  RETURN walback.describe(class, object);
EXCEPTION WHEN OTHERS THEN
  PERFORM walback.say_failed('describe', tag, SQLSTATE, SQLERRM);
  RETURN NULL;
END
$walback$;
  -- A function of a temporary table's type, and its like, go with the session, and no event tells of that.
CREATE OR REPLACE FUNCTION walback.is_fleeting(class oid, object oid) RETURNS boolean LANGUAGE plpgsql AS $walback$
BEGIN
  RETURN pg_my_temp_schema() <> 0 AND EXISTS (
    SELECT FROM pg_depend d
    WHERE d.classid = class AND d.objid = object AND d.deptype = 'n' AND pg_my_temp_schema() IN (
      (SELECT c.relnamespace FROM pg_class c WHERE d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid),
      (SELECT t.typnamespace FROM pg_type t WHERE d.refclassid = 'pg_type'::regclass AND t.oid = d.refobjid)));
END
$walback$;
  -- Children of what was altered are not told of; those count whose rows got a value of that moment in a new column.
CREATE OR REPLACE FUNCTION walback.below() RETURNS TABLE (classid oid, objid oid, objsubid int, command_tag text, object_type text, schema_name text, object_identity text, in_extension boolean, ordinality bigint) LANGUAGE sql AS $walback$
  WITH RECURSIVE tree (relid) AS (
    SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent IN (
      SELECT d.objid FROM pg_event_trigger_ddl_commands() d WHERE d.classid = 'pg_class'::regclass AND d.command_tag = 'ALTER TABLE')
    UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.relid
  )
  SELECT 'pg_class'::regclass::oid, c.oid, 0, 'ALTER TABLE', 'table', n.nspname::text, c.oid::regclass::text, false, 1000000::bigint
  FROM tree JOIN pg_class c ON c.oid = tree.relid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE EXISTS (SELECT FROM pg_attribute a JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
    WHERE a.attrelid = c.oid AND a.atthasmissing AND a.xmin = c.xmin AND walback.calls(pg_get_expr(f.adbin, f.adrelid), '{s,v}'))
$walback$;
  -- What the command made and changed; a GRANT names no object.
CREATE OR REPLACE FUNCTION walback.touched() RETURNS jsonb LANGUAGE sql AS $walback$
  SELECT coalesce(jsonb_agg(jsonb_build_object('class', coalesce(d.classid::regclass::text, ''), 'oid', coalesce(d.objid::bigint, 0), 'sub', coalesce(d.objsubid, 0),
      'tag', d.command_tag, 'type', d.object_type, 'schema', d.schema_name, 'identity', d.object_identity, 'extension', d.in_extension,
      'address', CASE WHEN d.objid IS NOT NULL THEN walback.address(d.classid, d.objid, d.objsubid) END,
      'state', CASE WHEN d.objid IS NOT NULL AND NOT d.in_extension THEN walback.state(d.classid, d.objid, d.command_tag) END) ORDER BY d.ordinality), '[]')
    FROM (
      SELECT classid, objid, objsubid, command_tag, object_type, schema_name, object_identity, in_extension, ordinality FROM pg_event_trigger_ddl_commands() WITH ORDINALITY
      UNION ALL SELECT * FROM walback.below()
    ) d
    WHERE ${isLasting('d')}
$walback$;
${runAs === 'user' ? openFunction : ''}
CREATE OR REPLACE FUNCTION walback.note_command() RETURNS event_trigger LANGUAGE plpgsql ${pinned(runAs)} AS $walback$
DECLARE
  frames text;
  language text := current_setting('lc_messages');
  who jsonb;
  is_dropping boolean;
  rewritten text;
  sources jsonb := '[]';
  objects jsonb;
  lasting int;
  statement text;
  rewrites jsonb := '[]';
  resend oid[] := '{}';
  unknown jsonb := '[]';
  r record;
BEGIN
  IF current_setting('walback.quiet', true) = 'on' THEN RETURN; END IF;
  -- Frames are in the language of messages, which not everybody may set.
  IF language !~ '^(C|POSIX|en)' THEN
    BEGIN
      PERFORM set_config('lc_messages', 'C', true);
    EXCEPTION WHEN OTHERS THEN
      NULL;
    END;
  END IF;
  GET DIAGNOSTICS frames = PG_CONTEXT;
  IF current_setting('lc_messages') <> language THEN PERFORM set_config('lc_messages', language, true); END IF;
  who := nullif(current_setting('walback.who', true), '')::jsonb;
  is_dropping := coalesce(current_setting('walback.dropped', true) = 'yes', false);
  rewritten := nullif(current_setting('walback.rewritten', true), '');
  IF is_dropping THEN PERFORM set_config('walback.dropped', '', true); END IF;
  IF rewritten IS NOT NULL THEN PERFORM set_config('walback.rewritten', '', true); END IF;
${runAs === 'user' ? `  IF tg_tag = 'REVOKE' THEN PERFORM walback.open_to_all(); END IF;\n` : ''}  SELECT count(*) INTO lasting FROM pg_event_trigger_ddl_commands() d WHERE ${isLasting('d')};
  -- Nothing was done (IF EXISTS, IF NOT EXISTS), or to temporary things only. What DROP OWNED takes away besides objects is told nowhere.
  IF lasting = 0 AND NOT is_dropping AND tg_tag <> 'DROP OWNED' THEN RETURN; END IF;
  BEGIN
    PERFORM walback.keep_identities();
  EXCEPTION WHEN OTHERS THEN
    PERFORM walback.say_failed('identity', tg_tag, SQLSTATE, SQLERRM);
    RAISE WARNING 'walback could not set a replica identity: %', SQLERRM;
  END;
  -- The first line is this function's own frame.
  frames := CASE WHEN position(E'\\n' IN frames) = 0 THEN '' ELSE substr(frames, position(E'\\n' IN frames) + 1) END;
  IF frames LIKE 'SQL function "%' THEN
    SELECT coalesce(jsonb_agg(jsonb_build_object('schema', n.nspname, 'name', p.proname, 'source', p.prosrc)), '[]') INTO sources
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
      WHERE l.lanname = 'sql' AND p.proname = (regexp_match(frames, '^SQL function "(.*?)" (?:statement|during)'))[1];
  END IF;
  objects := walback.touched();
  statement := CASE WHEN frames = '' THEN current_query() ELSE frames END;
  FOR r IN SELECT split_part(w, '.', 1)::oid AS relation, bit_or(split_part(w, '.', 2)::int) AS reason
           FROM regexp_split_to_table(rewritten, ' ') w WHERE rewritten IS NOT NULL GROUP BY 1
  LOOP
    CONTINUE WHEN NOT EXISTS (SELECT FROM pg_class WHERE oid = r.relation AND relkind = 'r' AND relpersistence <> 't');
    rewrites := rewrites || jsonb_build_object('oid', r.relation::bigint, 'reason', r.reason);
    IF NOT walback.is_computable(r.relation, r.reason, statement) THEN resend := resend || r.relation; END IF;
  END LOOP;
  FOR r IN SELECT relation FROM unnest(resend) relation LOOP
    IF pg_table_size(r.relation) > coalesce(nullif(current_setting('walback.rows_cap', true), '')::bigint, ${rowsCap_bytes}) THEN
      unknown := unknown || to_jsonb(r.relation::bigint);
    END IF;
  END LOOP;
  PERFORM walback.say(jsonb_build_object('v', 1, 'kind', 'ddl', 'tag', tg_tag,
    'query', CASE WHEN frames ~ '^SQL (statement|function) "' THEN '' ELSE walback.say_text(coalesce(current_query(), '')) END,
    'context', walback.say_text(frames), 'functions', sources,
    'role', coalesce(who->>'role', current_user), 'session', session_user, 'settings', coalesce(who->'settings', '{}'),
    'time', now(), 'objects', objects, 'rewritten', rewrites, 'unknownRows', unknown));
  FOR r IN SELECT relation FROM unnest(resend) relation LOOP
    BEGIN
      PERFORM walback.say_rows(r.relation);
    EXCEPTION WHEN query_canceled OR OTHERS THEN
      -- A statement_timeout that expires here is ours to bear, not the user's.
      PERFORM walback.say_failed('rows', tg_tag, SQLSTATE, format('%s: %s', r.relation::regclass, SQLERRM));
    END;
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  PERFORM walback.say_failed('ddl_command_end', tg_tag, SQLSTATE, SQLERRM);
END
$walback$;`

const triggers = `
  -- Of version 0.1 before it followed the schema.
DROP EVENT TRIGGER IF EXISTS walback_replica_identity;
DROP EVENT TRIGGER IF EXISTS walback_1_who;
DROP EVENT TRIGGER IF EXISTS walback_2_command;
DROP EVENT TRIGGER IF EXISTS walback_dropped;
DROP EVENT TRIGGER IF EXISTS walback_rewrite;
  -- Triggers of one event fire in the order of their names.
CREATE EVENT TRIGGER walback_1_who ON ddl_command_end EXECUTE FUNCTION walback.note_who();
CREATE EVENT TRIGGER walback_2_command ON ddl_command_end EXECUTE FUNCTION walback.note_command();
CREATE EVENT TRIGGER walback_dropped ON sql_drop EXECUTE FUNCTION walback.note_dropped();
CREATE EVENT TRIGGER walback_rewrite ON table_rewrite EXECUTE FUNCTION walback.note_rewrite();
ALTER EVENT TRIGGER walback_1_who ENABLE ALWAYS;
ALTER EVENT TRIGGER walback_2_command ENABLE ALWAYS;
ALTER EVENT TRIGGER walback_dropped ENABLE ALWAYS;
ALTER EVENT TRIGGER walback_rewrite ENABLE ALWAYS;`

export const eventTriggers = ['walback_1_who', 'walback_2_command', 'walback_dropped', 'walback_rewrite'] as const

/** Whether all of them are there and fire in every session, a replica's too. */
export const allFireAlwaysSql = `(SELECT count(*) FROM pg_catalog.pg_event_trigger
  WHERE evtname IN (${eventTriggers.map((name) => `'${name}'`).join(', ')}) AND evtenabled = 'A') = ${eventTriggers.length}`

/** Everything but `walback.describe` and `walback.keep_identities`, which it calls. */
export const ddlCaptureSql = (runAs: RunAs): string =>
  [
    sayFunction,
    whoFunction,
    droppedFunction(runAs),
    rewriteFunction(runAs),
    computableFunction,
    rowsFunction,
    commandFunction(runAs),
    triggers,
  ].join('\n')
