import { acl, describer, lasting, routine } from './describe-parts.ts'
import { constraintJson } from './describe-relation-sql.ts'

/** Types and routines. */
export function describeTypeSql(s: string): string {
  return [type(s), rangeDefinition(s), baseDefinition(s), describeRoutine(s), aggregateDefinition(s)].join('\n')
}

const type = (s: string): string =>
  describer(
    `${s}.describe_type`,
    `
DECLARE
  this record;
  kind text;
BEGIN
  SELECT t.*, n.nspname, c.relkind INTO this
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE t.oid = subject AND ${lasting('n')}
      AND NOT EXISTS (SELECT FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid);
  IF NOT FOUND OR this.relkind <> 'c' OR this.typtype = 'm' THEN RETURN NULL; END IF;
  kind := CASE WHEN NOT this.typisdefined THEN 'shell type'
    ELSE CASE this.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'c' THEN 'composite type' WHEN 'r' THEN 'range' ELSE 'base type' END END;
  RETURN jsonb_build_object('kind', kind,
      'target', format('%s %I.%I', CASE kind WHEN 'domain' THEN 'DOMAIN' ELSE 'TYPE' END, this.nspname, this.typname),
      'schema', this.nspname, 'name', this.typname, 'owner', pg_get_userbyid(this.typowner), 'acl', ${acl('this.typacl')})
    || CASE kind
    WHEN 'enum' THEN (SELECT jsonb_build_object('values', coalesce(jsonb_agg(e.enumlabel ORDER BY e.enumsortorder), '[]')) FROM pg_enum e WHERE e.enumtypid = subject)
    WHEN 'domain' THEN jsonb_build_object('type', format_type(this.typbasetype, this.typtypmod), 'notNull', nullif(this.typnotnull, false),
      'collation', (SELECT this.typcollation::regcollation::text FROM pg_type b WHERE b.oid = this.typbasetype AND b.typcollation <> this.typcollation),
      'default', pg_get_expr(this.typdefaultbin, 0),
      'constraints', (SELECT jsonb_agg(${constraintJson()} ORDER BY k.conname) FROM pg_constraint k WHERE k.contypid = subject AND k.contype IN ('c', 'n')))
    WHEN 'composite type' THEN jsonb_build_object('columns', coalesce(${s}.describe_columns(this.typrelid), '[]'))
    WHEN 'range' THEN jsonb_build_object('definition', ${s}.range_definition(subject))
    WHEN 'base type' THEN jsonb_build_object('definition', ${s}.base_type_definition(subject))
    ELSE jsonb_build_object('definition', format('CREATE TYPE %I.%I', this.nspname, this.typname)) END;
END`,
  )

const definer = (name: string, body: string): string => `
CREATE OR REPLACE FUNCTION ${name}(subject oid) RETURNS text LANGUAGE plpgsql STABLE AS $walback$
BEGIN
  RETURN (${body.trim()});
END
$walback$;`

const rangeDefinition = (s: string): string =>
  definer(
    `${s}.range_definition`,
    `SELECT format('CREATE TYPE %I.%I AS RANGE (%s)', n.nspname, t.typname, concat_ws(', ',
      'subtype = ' || format_type(r.rngsubtype, NULL), 'multirange_type_name = ' || format_type(r.rngmultitypid, NULL),
      (SELECT format('subtype_opclass = %I.%I', m.nspname, o.opcname) FROM pg_opclass o JOIN pg_namespace m ON m.oid = o.opcnamespace WHERE o.oid = r.rngsubopc AND NOT o.opcdefault),
      CASE WHEN r.rngcollation <> b.typcollation THEN 'collation = ' || r.rngcollation::regcollation END,
      'canonical = ' || ${routine('r.rngcanonical')}, 'subtype_diff = ' || ${routine('r.rngsubdiff')}))
    FROM pg_range r JOIN pg_type t ON t.oid = r.rngtypid JOIN pg_namespace n ON n.oid = t.typnamespace JOIN pg_type b ON b.oid = r.rngsubtype
    WHERE r.rngtypid = subject`,
  )

const baseDefinition = (s: string): string =>
  definer(
    `${s}.base_type_definition`,
    `SELECT format('CREATE TYPE %I.%I (%s)', n.nspname, t.typname, concat_ws(', ',
      'INPUT = ' || ${routine('t.typinput')}, 'OUTPUT = ' || ${routine('t.typoutput')}, 'RECEIVE = ' || ${routine('t.typreceive')}, 'SEND = ' || ${routine('t.typsend')},
      'TYPMOD_IN = ' || ${routine('t.typmodin')}, 'TYPMOD_OUT = ' || ${routine('t.typmodout')}, 'ANALYZE = ' || ${routine('t.typanalyze')}, 'SUBSCRIPT = ' || ${routine('t.typsubscript')},
      'INTERNALLENGTH = ' || CASE t.typlen WHEN -1 THEN 'variable' ELSE t.typlen::text END, CASE WHEN t.typbyval THEN 'PASSEDBYVALUE' END,
      'ALIGNMENT = ' || CASE t.typalign WHEN 'c' THEN 'char' WHEN 's' THEN 'int2' WHEN 'i' THEN 'int4' ELSE 'double' END,
      'STORAGE = ' || CASE t.typstorage WHEN 'p' THEN 'plain' WHEN 'e' THEN 'external' WHEN 'm' THEN 'main' ELSE 'extended' END,
      format('CATEGORY = %L', t.typcategory), CASE WHEN t.typispreferred THEN 'PREFERRED = true' END, 'DEFAULT = ' || quote_literal(t.typdefault),
      CASE WHEN t.typelem <> 0 THEN 'ELEMENT = ' || format_type(t.typelem, NULL) END, format('DELIMITER = %L', t.typdelim), CASE WHEN t.typcollation <> 0 THEN 'COLLATABLE = true' END))
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = subject`,
  )

/** What CREATE OR REPLACE cannot change is told beside the definition. */
const describeRoutine = (s: string): string =>
  describer(
    `${s}.describe_routine`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', k.kind,
      'target', format('%s %I.%I(%s)', upper(k.kind), n.nspname, p.proname, CASE WHEN p.prokind = 'a' AND p.pronargs = 0 THEN '*' ELSE pg_get_function_identity_arguments(p.oid) END),
      'schema', n.nspname, 'name', p.proname, 'types', (SELECT coalesce(string_agg(format_type(t.type, NULL), ', ' ORDER BY t.place), '') FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY t (type, place)),
      'owner', pg_get_userbyid(p.proowner), 'acl', ${acl('p.proacl')})
      || CASE p.prokind WHEN 'a' THEN jsonb_build_object('definition', ${s}.aggregate_definition(subject))
      ELSE jsonb_build_object('definition', pg_get_functiondef(p.oid), 'window', nullif(p.prokind = 'w', false), 'result', pg_get_function_result(p.oid),
        'parameters', to_jsonb(p.proargnames), 'modes', to_jsonb(p.proargmodes::text[]), 'defaults', nullif(p.pronargdefaults, 0)) END
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      CROSS JOIN LATERAL (SELECT CASE p.prokind WHEN 'a' THEN 'aggregate' WHEN 'p' THEN 'procedure' ELSE 'function' END AS kind) k
    WHERE p.oid = subject AND ${lasting('n')});
END`,
  )

const aggregateDefinition = (s: string): string =>
  definer(
    `${s}.aggregate_definition`,
    `SELECT format('CREATE AGGREGATE %I.%I(%s) (%s)', n.nspname, p.proname, CASE WHEN p.pronargs = 0 THEN '*' ELSE pg_get_function_arguments(p.oid) END, concat_ws(', ',
      'SFUNC = ' || ${routine('a.aggtransfn::oid')}, 'STYPE = ' || format_type(a.aggtranstype, NULL), 'SSPACE = ' || nullif(a.aggtransspace, 0), 'INITCOND = ' || quote_literal(a.agginitval),
      'FINALFUNC = ' || ${routine('a.aggfinalfn::oid')}, CASE WHEN a.aggfinalextra THEN 'FINALFUNC_EXTRA' END, ${modify('a.aggfinalfn', 'a.aggfinalmodify', 'FINALFUNC_MODIFY')},
      'COMBINEFUNC = ' || ${routine('a.aggcombinefn::oid')}, 'SERIALFUNC = ' || ${routine('a.aggserialfn::oid')}, 'DESERIALFUNC = ' || ${routine('a.aggdeserialfn::oid')},
      'MSFUNC = ' || ${routine('a.aggmtransfn::oid')}, 'MINVFUNC = ' || ${routine('a.aggminvtransfn::oid')}, CASE WHEN a.aggmtranstype <> 0 THEN 'MSTYPE = ' || format_type(a.aggmtranstype, NULL) END,
      'MSSPACE = ' || nullif(a.aggmtransspace, 0), 'MINITCOND = ' || quote_literal(a.aggminitval),
      'MFINALFUNC = ' || ${routine('a.aggmfinalfn::oid')}, CASE WHEN a.aggmfinalextra THEN 'MFINALFUNC_EXTRA' END, ${modify('a.aggmfinalfn', 'a.aggmfinalmodify', 'MFINALFUNC_MODIFY')},
      (SELECT format('SORTOP = OPERATOR(%I.%s)', m.nspname, o.oprname) FROM pg_operator o JOIN pg_namespace m ON m.oid = o.oprnamespace WHERE o.oid = a.aggsortop),
      CASE p.proparallel WHEN 's' THEN 'PARALLEL = safe' WHEN 'r' THEN 'PARALLEL = restricted' END, CASE WHEN a.aggkind = 'h' THEN 'HYPOTHETICAL' END))
    FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid JOIN pg_namespace n ON n.oid = p.pronamespace WHERE a.aggfnoid = subject`,
  )

function modify(final: string, value: string, word: string): string {
  return `CASE WHEN ${final}::oid <> 0 THEN '${word} = ' || CASE ${value} WHEN 'r' THEN 'read_only' WHEN 's' THEN 'shareable' ELSE 'read_write' END END`
}
