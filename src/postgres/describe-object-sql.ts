import { acl, describer, firing, lasting, named, options, routine } from './describe-parts.ts'

/** What stands by itself: extensions, publications, foreign servers, rights to come, event triggers, collations, text search. */
export function describeObjectSql(s: string): string {
  return [
    extension(s),
    publication(s),
    eventTrigger(s),
    defaultAcl(s),
    foreign(s),
    collation(s),
    textSearch(s),
    textSearchConfiguration(s),
  ].join('\n')
}

const extension = (s: string): string =>
  describer(
    `${s}.describe_extension`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'extension', 'target', ${named('EXTENSION', 'e.extname')}, 'name', e.extname,
      'schema', n.nspname, 'version', e.extversion, 'owner', pg_get_userbyid(e.extowner),
      'configuration', (SELECT jsonb_agg(jsonb_build_object('table', t.oid::regclass::text, 'condition', nullif(t.condition, '')) ORDER BY t.oid::regclass::text COLLATE "C")
        FROM unnest(e.extconfig, e.extcondition) t (oid, condition)))
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.oid = subject);
END`,
  )

/** From 15 on a publication has lists of columns, conditions and schemas; plpgsql looks at a statement when it runs it. */
const publication = (s: string): string =>
  describer(
    `${s}.describe_publication`,
    `
DECLARE
  state jsonb;
BEGIN
  SELECT jsonb_build_object('kind', 'publication', 'target', ${named('PUBLICATION', 'p.pubname')}, 'name', p.pubname,
      'owner', pg_get_userbyid(p.pubowner), 'allTables', nullif(p.puballtables, false),
      'publish', concat_ws(', ', CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END, CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END),
      'viaRoot', nullif(p.pubviaroot, false), 'generatedColumns', CASE to_jsonb(p)->>'pubgencols' WHEN 's' THEN 'stored' END)
    INTO state FROM pg_publication p WHERE p.oid = subject;
  IF current_setting('server_version_num')::int < 150000 THEN
    RETURN state || jsonb_build_object('tables', (SELECT jsonb_agg(jsonb_build_object('table', r.prrelid::regclass::text) ORDER BY r.prrelid::regclass::text COLLATE "C")
      FROM pg_publication_rel r WHERE r.prpubid = subject));
  END IF;
  RETURN state || jsonb_build_object(
    'tables', (SELECT jsonb_agg(jsonb_build_object('table', r.prrelid::regclass::text, 'where', pg_get_expr(r.prqual, r.prrelid),
        'columns', (SELECT jsonb_agg(a.attname ORDER BY a.attname) FROM unnest(r.prattrs::int2[]) k JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = k)) ORDER BY r.prrelid::regclass::text COLLATE "C")
      FROM pg_publication_rel r WHERE r.prpubid = subject),
    'schemas', (SELECT jsonb_agg(n.nspname ORDER BY n.nspname) FROM pg_publication_namespace r JOIN pg_namespace n ON n.oid = r.pnnspid WHERE r.pnpubid = subject));
END`,
  ) +
  describer(
    `${s}.describe_publication_part`,
    `
DECLARE
  publication oid := (SELECT r.prpubid FROM pg_publication_rel r WHERE r.oid = subject);
BEGIN
  -- Only from 15 on is a schema a part, and there the catalog to look into.
  IF publication IS NULL AND current_setting('server_version_num')::int >= 150000 THEN
    SELECT r.pnpubid INTO publication FROM pg_publication_namespace r WHERE r.oid = subject;
  END IF;
  RETURN ${s}.describe_publication(publication) || ${s}.describe_common('pg_publication'::regclass, publication);
END`,
  )

const eventTrigger = (s: string): string =>
  describer(
    `${s}.describe_event_trigger`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'event trigger', 'target', ${named('EVENT TRIGGER', 'e.evtname')}, 'name', e.evtname,
      'owner', pg_get_userbyid(e.evtowner), 'fires', ${firing('e.evtenabled')},
      'definition', format('CREATE EVENT TRIGGER %I ON %s', e.evtname, e.evtevent) || coalesce(' WHEN TAG IN (' || (SELECT string_agg(quote_literal(t), ', ' ORDER BY t COLLATE "C") FROM unnest(e.evttags) t) || ')', '')
        || ' EXECUTE FUNCTION ' || e.evtfoid::regproc || '()')
    FROM pg_event_trigger e WHERE e.oid = subject);
END`,
  )

const defaultAcl = (s: string): string =>
  describer(
    `${s}.describe_default_acl`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'default privileges', 'role', pg_get_userbyid(d.defaclrole), 'schema', n.nspname,
      'objects', CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' WHEN 'L' THEN 'LARGE OBJECTS' END,
      'acl', ${acl('d.defaclacl')})
    FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace WHERE d.oid = subject);
END`,
  )

const foreign = (s: string): string =>
  describer(
    `${s}.describe_wrapper`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'foreign data wrapper', 'target', ${named('FOREIGN DATA WRAPPER', 'w.fdwname')}, 'name', w.fdwname,
      'owner', pg_get_userbyid(w.fdwowner), 'acl', ${acl('w.fdwacl')}, 'fdwOptions', ${options('w.fdwoptions')},
      'definition', format('CREATE FOREIGN DATA WRAPPER %I', w.fdwname) || coalesce(' HANDLER ' || ${routine('w.fdwhandler')}, '') || coalesce(' VALIDATOR ' || ${routine('w.fdwvalidator')}, ''))
    FROM pg_foreign_data_wrapper w WHERE w.oid = subject);
END`,
  ) +
  describer(
    `${s}.describe_server`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'server', 'target', ${named('SERVER', 'v.srvname')}, 'name', v.srvname,
      'owner', pg_get_userbyid(v.srvowner), 'acl', ${acl('v.srvacl')}, 'fdwOptions', ${options('v.srvoptions')}, 'version', v.srvversion,
      'definition', format('CREATE SERVER %I', v.srvname) || coalesce(' TYPE ' || quote_literal(v.srvtype), '') || format(' FOREIGN DATA WRAPPER %I', w.fdwname))
    FROM pg_foreign_server v JOIN pg_foreign_data_wrapper w ON w.oid = v.srvfdw WHERE v.oid = subject);
END`,
  ) +
  // The view shows the options to those only who may see them; the catalog itself is a superuser's.
  describer(
    `${s}.describe_user_mapping`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'user mapping', 'target', format('USER MAPPING FOR %s SERVER %I', CASE u.umuser WHEN 0 THEN 'PUBLIC' ELSE quote_ident(u.usename) END, u.srvname),
      'definition', format('CREATE USER MAPPING FOR %s SERVER %I', CASE u.umuser WHEN 0 THEN 'PUBLIC' ELSE quote_ident(u.usename) END, u.srvname), 'fdwOptions', ${options('u.umoptions')})
    FROM pg_user_mappings u WHERE u.umid = subject);
END`,
  )

/** Where the locale is has changed: in 14 an ICU one is in collcollate, in 15 and 16 in colliculocale, then in colllocale. The version is the server's, not the definition's. */
const collation = (s: string): string =>
  describer(
    `${s}.describe_collation`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'collation', 'target', ${named('COLLATION', 'n.nspname', 'c.collname')},
      'schema', n.nspname, 'name', c.collname, 'owner', pg_get_userbyid(c.collowner),
      'definition', format('CREATE COLLATION %I.%I (%s)', n.nspname, c.collname, concat_ws(', ',
        'provider = ' || CASE c.collprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' WHEN 'd' THEN 'default' ELSE 'libc' END, CASE WHEN NOT c.collisdeterministic THEN 'deterministic = false' END,
        CASE WHEN c.collprovider IN ('i', 'b') THEN format('locale = %L', coalesce(to_jsonb(c)->>'colllocale', to_jsonb(c)->>'colliculocale', c.collcollate))
          WHEN c.collcollate = c.collctype THEN format('locale = %L', c.collcollate) ELSE format('lc_collate = %L, lc_ctype = %L', c.collcollate, c.collctype) END,
        'rules = ' || quote_literal(to_jsonb(c)->>'collicurules'))))
    FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace WHERE c.oid = subject AND ${lasting('n')});
END`,
  )

const textSearch = (s: string): string => {
  const one = (name: string, kind: string, catalog: string, prefix: string, owner: string, items: string): string =>
    describer(
      `${s}.describe_ts_${name}`,
      `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', '${kind}', 'target', ${named(kind.toUpperCase(), 'n.nspname', `t.${prefix}name`)}, 'schema', n.nspname, 'name', t.${prefix}name,
      'owner', ${owner}, 'definition', format('CREATE ${kind.toUpperCase()} %I.%I (%s)', n.nspname, t.${prefix}name, concat_ws(', ', ${items})))
    FROM ${catalog} t JOIN pg_namespace n ON n.oid = t.${prefix}namespace WHERE t.oid = subject AND ${lasting('n')});
END`,
    )
  const part = (word: string, value: string): string => `'${word} = ' || ${routine(`${value}::oid`)}`
  return [
    one(
      'parser',
      'text search parser',
      'pg_ts_parser',
      'prs',
      'NULL',
      `${part('START', 't.prsstart')}, ${part('GETTOKEN', 't.prstoken')}, ${part('END', 't.prsend')}, ${part('HEADLINE', 't.prsheadline')}, ${part('LEXTYPES', 't.prslextype')}`,
    ),
    one(
      'template',
      'text search template',
      'pg_ts_template',
      'tmpl',
      'NULL',
      `${part('INIT', 't.tmplinit')}, ${part('LEXIZE', 't.tmpllexize')}`,
    ),
    one(
      'dictionary',
      'text search dictionary',
      'pg_ts_dict',
      'dict',
      'pg_get_userbyid(t.dictowner)',
      `(SELECT format('TEMPLATE = %I.%I', m.nspname, p.tmplname) FROM pg_ts_template p JOIN pg_namespace m ON m.oid = p.tmplnamespace WHERE p.oid = t.dicttemplate), t.dictinitoption`,
    ),
  ].join('')
}

const textSearchConfiguration = (s: string): string =>
  describer(
    `${s}.describe_ts_configuration`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'text search configuration', 'target', ${named('TEXT SEARCH CONFIGURATION', 'n.nspname', 'c.cfgname')}, 'schema', n.nspname, 'name', c.cfgname,
      'owner', pg_get_userbyid(c.cfgowner), 'definition', format('CREATE TEXT SEARCH CONFIGURATION %I.%I (PARSER = %I.%I)', n.nspname, c.cfgname, m.nspname, p.prsname),
      'mapping', (SELECT jsonb_object_agg(k.alias, k.dictionaries) FROM (
        SELECT t.alias, jsonb_agg(m.mapdict::regdictionary::text ORDER BY m.mapseqno) AS dictionaries
        FROM pg_ts_config_map m JOIN ts_token_type(c.cfgparser) t ON t.tokid = m.maptokentype WHERE m.mapcfg = c.oid GROUP BY 1) k))
    FROM pg_ts_config c JOIN pg_namespace n ON n.oid = c.cfgnamespace JOIN pg_ts_parser p ON p.oid = c.cfgparser JOIN pg_namespace m ON m.oid = p.prsnamespace
    WHERE c.oid = subject AND ${lasting('n')});
END`,
  )
