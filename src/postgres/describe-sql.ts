import { quoteIdent } from '../model/identifier.ts'
import { describeObjectSql } from './describe-object-sql.ts'
import { describeOperatorSql } from './describe-operator-sql.ts'
import { acl, describer, lasting } from './describe-parts.ts'
import { describeRelationSql } from './describe-relation-sql.ts'
import { describeSubObjectSql } from './describe-sub-object-sql.ts'
import { describeTypeSql } from './describe-type-sql.ts'

/**
 * SQL of `describe(class oid, object oid) RETURNS jsonb`: the whole definition of one object, without any object id, for
 * servers 14 to 18. It runs inside the application's DDL, and on a restore's target to compare.
 *
 * - What has its default is left out, so that absent and default are one; an ACL that was never changed is absent too.
 * - Neither the caller's search_path nor any setting shows in it. Every identifier is quoted: a word that is none in one
 *   version may be a keyword in the next.
 * - `kind` says what it is, `target` is how commands name it (`TABLE "s"."t"`), `definition` is the command that makes
 *   it or, of a view, its query.
 * - A relation holds its columns, constraints, indexes, triggers, rules, policies, statistics objects, and the sequences
 *   that its columns own, so that it can be made whole from it.
 * - NULL: it is gone, it is a session's own or of the schema walback, or it has no definition of its own (row types,
 *   array types, TOAST).
 * - It reads through indexes only, with plans that are made once a session. It calls no function of the user's, the
 *   output functions of base types aside, which deparsing cannot do without.
 * - It takes no lock but ACCESS SHARE, on the tables of a view, a rule, a policy or a SQL body. What it cannot have in
 *   half a second it does without, by an error: deadlocks are looked for after a second, and it must not be ours.
 *
 * SQL sees the catalogs as of its snapshot. In a REPEATABLE READ or SERIALIZABLE transaction that is the transaction's,
 * so what others have since done to the object may be missing; `stale` says that.
 */
export function describeFunctionsSql(schema: string): string {
  const s = quoteIdent(schema)
  return [
    describeCommonSql(s),
    describeRelationSql(s),
    describeSubObjectSql(s),
    describeTypeSql(s),
    describeObjectSql(s),
    describeOperatorSql(s),
    describeEntrySql(s),
  ].join('\n')
}

/** Which function describes the objects of which catalog. */
const describers: Readonly<Record<string, string>> = {
  pg_class: 'describe_relation',
  pg_type: 'describe_type',
  pg_proc: 'describe_routine',
  pg_namespace: 'describe_schema',
  pg_constraint: 'describe_constraint',
  pg_trigger: 'describe_trigger',
  pg_rewrite: 'describe_rule',
  pg_policy: 'describe_policy',
  pg_attrdef: 'describe_default',
  pg_statistic_ext: 'describe_statistics',
  pg_extension: 'describe_extension',
  pg_publication: 'describe_publication',
  pg_publication_rel: 'describe_publication_part',
  pg_publication_namespace: 'describe_publication_part',
  pg_event_trigger: 'describe_event_trigger',
  pg_default_acl: 'describe_default_acl',
  pg_foreign_data_wrapper: 'describe_wrapper',
  pg_foreign_server: 'describe_server',
  pg_user_mapping: 'describe_user_mapping',
  pg_operator: 'describe_operator',
  pg_opclass: 'describe_operator_class',
  pg_opfamily: 'describe_operator_family',
  pg_cast: 'describe_cast',
  pg_collation: 'describe_collation',
  pg_conversion: 'describe_conversion',
  pg_language: 'describe_language',
  pg_transform: 'describe_transform',
  pg_am: 'describe_access_method',
  pg_ts_parser: 'describe_ts_parser',
  pg_ts_template: 'describe_ts_template',
  pg_ts_dict: 'describe_ts_dictionary',
  pg_ts_config: 'describe_ts_configuration',
}

const describeEntrySql = (s: string): string => `
CREATE OR REPLACE FUNCTION ${s}.describe(class oid, object oid) RETURNS jsonb LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = on SET standard_conforming_strings = on
SET datestyle = 'ISO, YMD' SET intervalstyle = postgres SET timezone = 'UTC' SET extra_float_digits = 3
SET bytea_output = hex SET xmlbinary = base64 SET xmloption = content SET lc_monetary = 'C' SET jit = off
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET lock_timeout = '20ms' AS $walback$
DECLARE
  catalog text := (SELECT c.relname FROM pg_class c WHERE c.oid = class);
  composite oid;
  state jsonb;
BEGIN
  IF catalog = 'pg_class' THEN
    -- Rights and comment of a composite type are the type's, not its relation's.
    SELECT c.reltype INTO composite FROM pg_class c WHERE c.oid = object AND c.relkind = 'c';
    IF composite IS NOT NULL THEN
      RETURN ${s}.describe('pg_type'::regclass, composite);
    END IF;
  END IF;
  state := CASE catalog
${Object.entries(describers)
  .map(([catalog, name]) => `    WHEN '${catalog}' THEN ${s}.${name}(object)`)
  .join('\n')}
    ELSE ${s}.describe_other(class, object) END;
  IF state IS NULL THEN RETURN NULL; END IF;
  IF catalog NOT IN ('pg_publication_rel', 'pg_publication_namespace') THEN
    state := state || ${s}.describe_common(class, object);
  END IF;
  IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
    state := state || '{"stale": true}';
  END IF;
  RETURN jsonb_strip_nulls(state);
END
$walback$;`

const describeCommonSql = (s: string): string => `
CREATE OR REPLACE FUNCTION ${s}.describe_common(class oid, object oid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $walback$
BEGIN
  RETURN jsonb_build_object(
    'comment', (SELECT d.description FROM pg_description d WHERE d.objoid = object AND d.classoid = class AND d.objsubid = 0),
    'labels', (SELECT jsonb_agg(jsonb_build_object('provider', l.provider, 'label', l.label) ORDER BY l.provider COLLATE "C")
      FROM pg_seclabel l WHERE l.objoid = object AND l.classoid = class AND l.objsubid = 0),
    'extension', (SELECT e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
      WHERE d.classid = class AND d.objid = object AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'),
    'needs', (SELECT jsonb_agg(e.extname ORDER BY e.extname) FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
      WHERE d.classid = class AND d.objid = object AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'x'));
END
$walback$;
  -- What has no describer of its own: subscriptions, members of operator families, large objects.
CREATE OR REPLACE FUNCTION ${s}.describe_other(class oid, object oid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $walback$
DECLARE
  what record;
BEGIN
  IF class = 'pg_largeobject'::regclass THEN
    RETURN (SELECT jsonb_build_object('kind', 'large object', 'target', format('LARGE OBJECT %s', m.oid), 'identity', m.oid::text,
        'owner', pg_get_userbyid(m.lomowner), 'acl', ${acl('m.lomacl')})
      FROM pg_largeobject_metadata m WHERE m.oid = object);
  END IF;
  SELECT i.* INTO what FROM pg_identify_object(class, object, 0) i;
  RETURN CASE WHEN what.identity IS NOT NULL THEN
    jsonb_build_object('kind', what.type, 'identity', what.identity,
      'owner', CASE WHEN class = 'pg_subscription'::regclass THEN (SELECT pg_get_userbyid(u.subowner) FROM pg_subscription u WHERE u.oid = object) END) END;
END
$walback$;${describer(
  `${s}.describe_schema`,
  `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'schema', 'target', format('SCHEMA %I', n.nspname), 'name', n.nspname,
      'owner', pg_get_userbyid(n.nspowner), 'acl', ${acl('n.nspacl')})
    FROM pg_namespace n WHERE n.oid = subject AND ${lasting('n')});
END`,
)}`

/** The functions on a source. The schema must be there. */
export const describeSql: string = describeFunctionsSql('walback')
