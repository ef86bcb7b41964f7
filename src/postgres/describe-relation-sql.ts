import { acl, comment, describer, firing, lasting, named, needed, options, statisticsTarget } from './describe-parts.ts'

/** Relations: tables of all kinds, views, sequences, indexes; and columns, which composite types have too. */
export function describeRelationSql(s: string): string {
  return [relation(s), columns(s), sequence(s), index(s)].join('\n')
}

/** What belongs to a relation, in the order of names; each is one scan of an index. */
const parts = {
  constraints: `SELECT jsonb_agg(${constraintJson()} ORDER BY k.conname) FROM pg_constraint k
      WHERE k.conrelid = subject AND k.contype IN ('p', 'u', 'x', 'c', 'f', 'n')
        -- A foreign key on a partitioned table has a constraint for each partition that it refers to.
        AND NOT (k.conparentid <> 0 AND EXISTS (SELECT FROM pg_constraint p WHERE p.oid = k.conparentid AND p.conrelid = subject))`,
  indexes: `SELECT jsonb_agg(${indexJson()} ORDER BY x.relname) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = subject`,
  triggers: `SELECT jsonb_agg(${triggerJson()} ORDER BY t.tgname) FROM pg_trigger t WHERE t.tgrelid = subject AND ${usersTrigger()}`,
  rules: `SELECT jsonb_agg(${ruleJson()} ORDER BY w.rulename) FROM pg_rewrite w WHERE w.ev_class = subject AND w.rulename <> '_RETURN'`,
  policies: `SELECT jsonb_agg(${policyJson()} ORDER BY p.polname) FROM pg_policy p WHERE p.polrelid = subject`,
  statistics: `SELECT jsonb_agg(${statisticsJson()} ORDER BY n.nspname, x.stxname) FROM pg_statistic_ext x JOIN pg_namespace n ON n.oid = x.stxnamespace WHERE x.stxrelid = subject`,
} as const

/** A statement of its own: the server prepares all of a statement's parts at each run, needed or not. */
const part = (name: keyof typeof parts, condition: string, exists?: string): string => `
  IF ${condition}${exists === undefined ? '' : ` AND EXISTS (SELECT FROM ${exists} = subject)`} THEN
    state := state || jsonb_build_object('${name}', (${parts[name]}));
  END IF;`

const relation = (s: string): string =>
  describer(
    `${s}.describe_relation`,
    `
DECLARE
  this record;
  kind text;
  state jsonb;
BEGIN
  SELECT c.*, n.nspname INTO this FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = subject AND c.relpersistence <> 't' AND ${lasting('n')};
  IF NOT FOUND THEN RETURN NULL; END IF;
  IF this.relkind = 'S' THEN RETURN ${s}.describe_sequence(subject); END IF;
  IF this.relkind IN ('i', 'I') THEN RETURN ${s}.describe_index(subject); END IF;
  kind := CASE this.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'f' THEN 'foreign table'
    WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' END;
  IF kind IS NULL THEN RETURN NULL; END IF;
  state := jsonb_build_object(
    'kind', kind,
    'target', format('%s %I.%I', CASE this.relkind WHEN 'p' THEN 'TABLE' ELSE upper(kind) END, this.nspname, this.relname),
    'schema', this.nspname, 'name', this.relname, 'owner', pg_get_userbyid(this.relowner),
    'unlogged', nullif(this.relpersistence = 'u', false),
    'accessMethod', CASE WHEN this.relam <> 0 THEN (SELECT x.amname FROM pg_am x WHERE x.oid = this.relam) END,
    'columns', coalesce(${s}.describe_columns(subject), '[]'));
  IF this.relacl IS NOT NULL OR this.reloptions IS NOT NULL OR this.reltablespace <> 0 THEN
    state := state || jsonb_build_object('acl', ${acl('this.relacl')},
      'options', ${options('this.reloptions')},
      'tablespace', CASE WHEN this.reltablespace <> 0 THEN (SELECT x.spcname FROM pg_tablespace x WHERE x.oid = this.reltablespace) END);
  END IF;
  IF this.reltoastrelid <> 0 THEN
    state := state || jsonb_build_object('toastOptions', (SELECT jsonb_agg(o ORDER BY o COLLATE "C") FROM pg_class x, unnest(x.reloptions) o WHERE x.oid = this.reltoastrelid));
  END IF;
  IF this.relkind IN ('v', 'm') THEN
    state := state || jsonb_build_object('definition', pg_get_viewdef(subject), 'populated', CASE this.relkind WHEN 'm' THEN this.relispopulated END);
  ELSE
    state := state || jsonb_build_object(
      'ofType', CASE WHEN this.reloftype <> 0 THEN format_type(this.reloftype, NULL) END,
      'partitionKey', CASE this.relkind WHEN 'p' THEN pg_get_partkeydef(subject) END,
      'replicaIdentity', CASE this.relreplident WHEN 'n' THEN 'nothing' WHEN 'f' THEN 'full' WHEN 'i' THEN 'index' END,
      'rowSecurity', nullif(this.relrowsecurity, false), 'forceRowSecurity', nullif(this.relforcerowsecurity, false),
      'bound', CASE WHEN this.relispartition THEN pg_get_expr(this.relpartbound, subject) END);
    IF this.relispartition THEN
      state := state || (SELECT jsonb_build_object(CASE WHEN x.inhdetachpending THEN 'detaching' ELSE 'partitionOf' END, x.inhparent::regclass::text) FROM pg_inherits x WHERE x.inhrelid = subject);
    ELSE
      state := state || jsonb_build_object('parents', (SELECT jsonb_agg(x.inhparent::regclass::text ORDER BY x.inhseqno) FROM pg_inherits x WHERE x.inhrelid = subject));
    END IF;
  END IF;
  IF this.relkind IN ('r', 'm') THEN
    state := state || jsonb_build_object('empty', nullif(pg_relation_size(subject) = 0, false));
  END IF;
  IF this.relkind = 'f' THEN
    state := state || (SELECT jsonb_build_object('server', x.srvname, 'fdwOptions', ${options('f.ftoptions')})
      FROM pg_foreign_table f JOIN pg_foreign_server x ON x.oid = f.ftserver WHERE f.ftrelid = subject);
  END IF;${[
    part('indexes', 'this.relhasindex'),
    part('constraints', `this.relkind IN ('r', 'p', 'f')`, 'pg_constraint x WHERE x.conrelid'),
    part('triggers', 'this.relhastriggers'),
    part('rules', 'this.relhasrules'),
    part('policies', `this.relkind IN ('r', 'p')`, 'pg_policy x WHERE x.polrelid'),
    part('statistics', `this.relkind IN ('r', 'p', 'm', 'f')`, 'pg_statistic_ext x WHERE x.stxrelid'),
  ].join('')}
  RETURN state;
END`,
  )

/**
 * Columns, or attributes of a composite type, in their order. \`missing\` is the value that rows have which are older
 * than the column, of a column that was added without a rewrite: an array of one element, whatever the delimiter.
 */
const columns = (s: string): string =>
  describer(
    `${s}.describe_columns`,
    String.raw`
BEGIN
  RETURN (SELECT jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod))
      || CASE WHEN a.attnotnull THEN '{"notNull": true}'::jsonb ELSE '{}' END
      || CASE WHEN a.attislocal THEN '{}'::jsonb ELSE '{"inherited": true}' END
      || CASE WHEN a.attcollation <> t.typcollation THEN jsonb_build_object('collation', a.attcollation::regcollation::text) ELSE '{}'::jsonb END
      || CASE WHEN a.attstorage <> t.typstorage THEN jsonb_build_object('storage', CASE a.attstorage WHEN 'p' THEN 'plain' WHEN 'e' THEN 'external' WHEN 'm' THEN 'main' ELSE 'extended' END) ELSE '{}'::jsonb END
      || CASE a.atthasdef WHEN true THEN (SELECT CASE a.attgenerated WHEN '' THEN jsonb_build_object('default', pg_get_expr(d.adbin, 0))
           ELSE jsonb_build_object('generated', CASE a.attgenerated WHEN 'v' THEN 'virtual' ELSE 'stored' END, 'expression', pg_get_expr(d.adbin, subject)) END
         FROM pg_attrdef d WHERE d.adrelid = subject AND d.adnum = a.attnum) ELSE '{}'::jsonb END
      || CASE WHEN a.attidentity <> '' OR a.attcompression <> '' OR a.attstattarget >= 0 OR a.atthasmissing OR a.attacl IS NOT NULL OR a.attoptions IS NOT NULL OR a.attfdwoptions IS NOT NULL
         THEN jsonb_build_object(
           'identity', CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' END,
           'compression', CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END,
           'statistics', ${statisticsTarget('a.attstattarget')},
           'options', ${options('a.attoptions')}, 'fdwOptions', ${options('a.attfdwoptions')}, 'acl', ${acl('a.attacl')},
           'missing', CASE WHEN a.atthasmissing THEN (SELECT CASE WHEN m LIKE '{"%' THEN regexp_replace(substr(m, 3, length(m) - 4), '\\(.)', '\1', 'g') ELSE substr(m, 2, length(m) - 2) END FROM CAST(a.attmissingval AS text) m) END) ELSE '{}'::jsonb END
      || coalesce(e.said, '{}'::jsonb) || coalesce(l.said, '{}'::jsonb) || coalesce(q.said, '{}'::jsonb) ORDER BY a.attnum)
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN (SELECT d.objsubid, jsonb_build_object('comment', d.description) AS said
        FROM pg_description d WHERE d.objoid = subject AND d.classoid = 'pg_class'::regclass AND d.objsubid > 0) e ON e.objsubid = a.attnum
      LEFT JOIN (SELECT x.objsubid, jsonb_build_object('labels', jsonb_agg(jsonb_build_object('provider', x.provider, 'label', x.label) ORDER BY x.provider COLLATE "C")) AS said
        FROM pg_seclabel x WHERE x.objoid = subject AND x.classoid = 'pg_class'::regclass AND x.objsubid > 0 GROUP BY 1) l ON l.objsubid = a.attnum
      -- Owned by the column, or an identity's.
      LEFT JOIN (SELECT d.refobjsubid, jsonb_build_object('sequences', jsonb_agg(${s}.describe_sequence(o.oid) || ${s}.describe_common('pg_class'::regclass, o.oid) ORDER BY o.relname)) AS said
        FROM pg_depend d JOIN pg_class o ON o.oid = d.objid AND o.relkind = 'S'
        WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = subject AND d.refobjsubid > 0 AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
        GROUP BY 1) q ON q.refobjsubid = a.attnum
    WHERE a.attrelid = subject AND a.attnum > 0 AND NOT a.attisdropped);
END`,
  )

const sequence = (s: string): string =>
  describer(
    `${s}.describe_sequence`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'sequence', 'target', ${named('SEQUENCE', 'n.nspname', 'c.relname')},
      'schema', n.nspname, 'name', c.relname, 'owner', pg_get_userbyid(c.relowner), 'acl', ${acl('c.relacl')},
      'unlogged', nullif(c.relpersistence = 'u', false), 'type', format_type(q.seqtypid, NULL),
      'start', q.seqstart::text, 'increment', q.seqincrement::text, 'minimum', q.seqmin::text, 'maximum', q.seqmax::text,
      'cache', q.seqcache::text, 'cycle', nullif(q.seqcycle, false))
      || coalesce((SELECT jsonb_build_object(CASE d.deptype WHEN 'i' THEN 'identityOf' ELSE 'ownedBy' END,
          format('%s.%I', d.refobjid::regclass, a.attname))
        FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = subject AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')), '{}')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_sequence q ON q.seqrelid = c.oid WHERE c.oid = subject);
END`,
  )

const index = (s: string): string =>
  describer(
    `${s}.describe_index`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'index', 'target', ${named('INDEX', 'n.nspname', 'x.relname')},
      'schema', n.nspname, 'table', i.indrelid::regclass::text) || ${indexJson()}
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace WHERE x.oid = subject);
END`,
  )

/** Of rows `i` of pg_index and `x` of pg_class. */
function indexJson(): string {
  return `jsonb_build_object('name', x.relname, 'definition', pg_get_indexdef(x.oid),
          'constraint', (SELECT k.conname FROM pg_constraint k WHERE k.conrelid = i.indrelid AND k.conindid = x.oid AND k.contype IN ('p', 'u', 'x')),
          'parent', CASE WHEN x.relispartition THEN (SELECT h.inhparent::regclass::text FROM pg_inherits h WHERE h.inhrelid = x.oid) END,
          'invalid', nullif(NOT i.indisvalid, false), 'clustered', nullif(i.indisclustered, false), 'replicaIdentity', nullif(i.indisreplident, false),
          'options', ${options('x.reloptions')},
          'tablespace', CASE WHEN x.reltablespace <> 0 THEN (SELECT z.spcname FROM pg_tablespace z WHERE z.oid = x.reltablespace) END,
          'statistics', (SELECT jsonb_object_agg(a.attnum, a.attstattarget) FROM pg_attribute a WHERE a.attrelid = x.oid AND a.attstattarget >= 0),
          'comment', ${comment('pg_class', 'x.oid')}, 'needs', ${needed(`'pg_class'::regclass`, 'x.oid')})`
}

/** Of a row `k` of pg_constraint. */
export function constraintJson(): string {
  return `jsonb_build_object('name', k.conname,
          'type', CASE k.contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique' WHEN 'x' THEN 'exclude' WHEN 'c' THEN 'check' WHEN 'f' THEN 'foreign key' ELSE 'not null' END,
          'definition', pg_get_constraintdef(k.oid), 'invalid', nullif(NOT k.convalidated, false), 'inherited', nullif(NOT k.conislocal, false),
          'column', CASE k.contype WHEN 'n' THEN (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = k.conkey[1]) END,
          'comment', ${comment('pg_constraint', 'k.oid')})`
}

/**
 * Of a row `t` of pg_trigger: neither a constraint's own nor, up to 14 where they are internal too, anything but a
 * partition's copy of a user's.
 */
export function usersTrigger(): string {
  return `(NOT t.tgisinternal OR t.tgparentid <> 0 AND coalesce((SELECT k.contype FROM pg_constraint k WHERE k.oid = t.tgconstraint), 't') = 't')`
}

/** Of a row `t` of pg_trigger. */
export function triggerJson(): string {
  return `jsonb_build_object('name', t.tgname, 'definition', pg_get_triggerdef(t.oid), 'inherited', nullif(t.tgparentid <> 0, false),
          'fires', ${firing('t.tgenabled')}, 'comment', ${comment('pg_trigger', 't.oid')}, 'needs', ${needed(`'pg_trigger'::regclass`, 't.oid')})`
}

/** Of a row `w` of pg_rewrite. */
export function ruleJson(): string {
  return `jsonb_build_object('name', w.rulename, 'definition', pg_get_ruledef(w.oid), 'fires', ${firing('w.ev_enabled')}, 'comment', ${comment('pg_rewrite', 'w.oid')})`
}

/** Of a row `p` of pg_policy; no roles is all. */
export function policyJson(): string {
  return `jsonb_build_object('name', p.polname, 'restrictive', nullif(NOT p.polpermissive, false),
          'command', CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' END,
          'roles', (SELECT jsonb_agg(pg_get_userbyid(r)::text ORDER BY pg_get_userbyid(r)) FROM unnest(p.polroles) r WHERE r <> 0),
          'using', pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid), 'comment', ${comment('pg_policy', 'p.oid')})`
}

/** Of rows `x` of pg_statistic_ext and `n` of pg_namespace. */
export function statisticsJson(): string {
  return `jsonb_build_object('schema', n.nspname, 'name', x.stxname, 'owner', pg_get_userbyid(x.stxowner),
          'definition', pg_get_statisticsobjdef(x.oid), 'statistics', ${statisticsTarget('x.stxstattarget')}, 'comment', ${comment('pg_statistic_ext', 'x.oid')})`
}
