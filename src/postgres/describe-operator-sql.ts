import { acl, describer, lasting, named, routine } from './describe-parts.ts'

/** What extends the language itself. Each has a definition that makes it, written as pg_dump writes it. */
export function describeOperatorSql(s: string): string {
  return [
    operator(s),
    operatorClass(s),
    operatorFamily(s),
    cast(s),
    conversion(s),
    language(s),
    transform(s),
    accessMethod(s),
  ].join('\n')
}

/** Of rows `o` of pg_operator and `m` of pg_namespace. */
const operatorName = `format('%I.%s', m.nspname, o.oprname)`
const operands = `format('(%s, %s)', CASE o.oprleft WHEN 0 THEN 'NONE' ELSE format_type(o.oprleft, NULL) END, CASE o.oprright WHEN 0 THEN 'NONE' ELSE format_type(o.oprright, NULL) END)`
const otherOperator = (word: string, oid: string): string =>
  `(SELECT format('${word} = OPERATOR(%I.%s)', w.nspname, v.oprname) FROM pg_operator v JOIN pg_namespace w ON w.oid = v.oprnamespace WHERE v.oid = ${oid})`

const operator = (s: string): string =>
  describer(
    `${s}.describe_operator`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'operator', 'target', format('OPERATOR %s %s', ${operatorName}, ${operands}),
      'schema', m.nspname, 'name', o.oprname, 'owner', pg_get_userbyid(o.oprowner),
      'definition', CASE WHEN o.oprcode::oid <> 0 THEN format('CREATE OPERATOR %s (%s)', ${operatorName}, concat_ws(', ', 'FUNCTION = ' || ${routine('o.oprcode::oid')},
        CASE WHEN o.oprleft <> 0 THEN 'LEFTARG = ' || format_type(o.oprleft, NULL) END, CASE WHEN o.oprright <> 0 THEN 'RIGHTARG = ' || format_type(o.oprright, NULL) END,
        ${otherOperator('COMMUTATOR', 'o.oprcom')}, ${otherOperator('NEGATOR', 'o.oprnegate')},
        'RESTRICT = ' || ${routine('o.oprrest::oid')}, 'JOIN = ' || ${routine('o.oprjoin::oid')},
        CASE WHEN o.oprcanmerge THEN 'MERGES' END, CASE WHEN o.oprcanhash THEN 'HASHES' END)) END)
    FROM pg_operator o JOIN pg_namespace m ON m.oid = o.oprnamespace WHERE o.oid = subject AND ${lasting('m')});
END`,
  )

/** Operators and functions that hang on a class or on a family itself, with what drops each. */
const members = (catalog: string): string => `(
      SELECT jsonb_agg(jsonb_build_object('item', x.item, 'names', x.names) ORDER BY x.item COLLATE "C") FROM (
        SELECT format('OPERATOR %s %s %s', a.amopstrategy, ${operatorName}, ${operands}) || coalesce((SELECT format(' FOR ORDER BY %I.%I', g.nspname, f.opfname)
            FROM pg_opfamily f JOIN pg_namespace g ON g.oid = f.opfnamespace WHERE f.oid = a.amopsortfamily), '') AS item,
          format('OPERATOR %s (%s, %s)', a.amopstrategy, format_type(a.amoplefttype, NULL), format_type(a.amoprighttype, NULL)) AS names
        FROM pg_depend d JOIN pg_amop a ON a.oid = d.objid JOIN pg_operator o ON o.oid = a.amopopr JOIN pg_namespace m ON m.oid = o.oprnamespace
        WHERE d.refclassid = '${catalog}'::regclass AND d.refobjid = subject AND d.classid = 'pg_amop'::regclass
        UNION ALL
        SELECT format('FUNCTION %s (%s, %s) %s', a.amprocnum, format_type(a.amproclefttype, NULL), format_type(a.amprocrighttype, NULL), a.amproc::oid::regprocedure),
          format('FUNCTION %s (%s, %s)', a.amprocnum, format_type(a.amproclefttype, NULL), format_type(a.amprocrighttype, NULL))
        FROM pg_depend d JOIN pg_amproc a ON a.oid = d.objid
        WHERE d.refclassid = '${catalog}'::regclass AND d.refobjid = subject AND d.classid = 'pg_amproc'::regclass) x)`

const operatorClass = (s: string): string =>
  describer(
    `${s}.describe_operator_class`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'operator class', 'target', format('OPERATOR CLASS %I.%I USING %I', n.nspname, c.opcname, a.amname),
      'schema', n.nspname, 'name', c.opcname, 'method', a.amname, 'owner', pg_get_userbyid(c.opcowner),
      'definition', format('CREATE OPERATOR CLASS %I.%I %sFOR TYPE %s USING %I%s AS ', n.nspname, c.opcname, CASE WHEN c.opcdefault THEN 'DEFAULT ' END, format_type(c.opcintype, NULL), a.amname,
          CASE WHEN f.opfname <> c.opcname OR f.opfnamespace <> c.opcnamespace THEN format(' FAMILY %I.%I', g.nspname, f.opfname) END)
        || concat_ws(', ', CASE WHEN c.opckeytype <> 0 OR m.list IS NULL THEN 'STORAGE ' || format_type(coalesce(nullif(c.opckeytype, 0), c.opcintype), NULL) END,
          (SELECT string_agg(e->>'item', ', ' ORDER BY e->>'item' COLLATE "C") FROM jsonb_array_elements(m.list) e)))
    FROM pg_opclass c JOIN pg_namespace n ON n.oid = c.opcnamespace JOIN pg_am a ON a.oid = c.opcmethod
      JOIN pg_opfamily f ON f.oid = c.opcfamily JOIN pg_namespace g ON g.oid = f.opfnamespace CROSS JOIN LATERAL ${members('pg_opclass')} m (list)
    WHERE c.oid = subject AND ${lasting('n')});
END`,
  )

const operatorFamily = (s: string): string =>
  describer(
    `${s}.describe_operator_family`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'operator family', 'target', format('OPERATOR FAMILY %I.%I USING %I', n.nspname, f.opfname, a.amname),
      'schema', n.nspname, 'name', f.opfname, 'method', a.amname, 'owner', pg_get_userbyid(f.opfowner),
      'definition', format('CREATE OPERATOR FAMILY %I.%I USING %I', n.nspname, f.opfname, a.amname), 'members', m.list)
    FROM pg_opfamily f JOIN pg_namespace n ON n.oid = f.opfnamespace JOIN pg_am a ON a.oid = f.opfmethod CROSS JOIN LATERAL ${members('pg_opfamily')} m (list)
    WHERE f.oid = subject AND ${lasting('n')});
END`,
  )

const cast = (s: string): string =>
  describer(
    `${s}.describe_cast`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'cast', 'target', format('CAST (%s AS %s)', format_type(c.castsource, NULL), format_type(c.casttarget, NULL)),
      'definition', format('CREATE CAST (%s AS %s) ', format_type(c.castsource, NULL), format_type(c.casttarget, NULL))
        || CASE c.castmethod WHEN 'f' THEN 'WITH FUNCTION ' || c.castfunc::regprocedure WHEN 'i' THEN 'WITH INOUT' ELSE 'WITHOUT FUNCTION' END
        || CASE c.castcontext WHEN 'a' THEN ' AS ASSIGNMENT' WHEN 'i' THEN ' AS IMPLICIT' ELSE '' END)
    FROM pg_cast c WHERE c.oid = subject);
END`,
  )

const conversion = (s: string): string =>
  describer(
    `${s}.describe_conversion`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'conversion', 'target', ${named('CONVERSION', 'n.nspname', 'c.conname')},
      'schema', n.nspname, 'name', c.conname, 'owner', pg_get_userbyid(c.conowner),
      'definition', format('CREATE %sCONVERSION %I.%I FOR %L TO %L FROM %s', CASE WHEN c.condefault THEN 'DEFAULT ' END, n.nspname, c.conname,
        pg_encoding_to_char(c.conforencoding), pg_encoding_to_char(c.contoencoding), c.conproc::oid::regproc))
    FROM pg_conversion c JOIN pg_namespace n ON n.oid = c.connamespace WHERE c.oid = subject AND ${lasting('n')});
END`,
  )

const language = (s: string): string =>
  describer(
    `${s}.describe_language`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'language', 'target', ${named('LANGUAGE', 'l.lanname')}, 'name', l.lanname,
      'owner', pg_get_userbyid(l.lanowner), 'acl', ${acl('l.lanacl')},
      'definition', format('CREATE %sLANGUAGE %I', CASE WHEN l.lanpltrusted THEN 'TRUSTED ' END, l.lanname) || coalesce(' HANDLER ' || ${routine('l.lanplcallfoid')}, '')
        || coalesce(' INLINE ' || ${routine('l.laninline')}, '') || coalesce(' VALIDATOR ' || ${routine('l.lanvalidator')}, ''))
    FROM pg_language l WHERE l.oid = subject);
END`,
  )

const transform = (s: string): string =>
  describer(
    `${s}.describe_transform`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'transform', 'target', format('TRANSFORM FOR %s LANGUAGE %I', format_type(t.trftype, NULL), l.lanname),
      'definition', format('CREATE TRANSFORM FOR %s LANGUAGE %I (%s)', format_type(t.trftype, NULL), l.lanname, concat_ws(', ',
        CASE WHEN t.trffromsql::oid <> 0 THEN 'FROM SQL WITH FUNCTION ' || t.trffromsql::oid::regprocedure END,
        CASE WHEN t.trftosql::oid <> 0 THEN 'TO SQL WITH FUNCTION ' || t.trftosql::oid::regprocedure END)))
    FROM pg_transform t JOIN pg_language l ON l.oid = t.trflang WHERE t.oid = subject);
END`,
  )

const accessMethod = (s: string): string =>
  describer(
    `${s}.describe_access_method`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'access method', 'target', ${named('ACCESS METHOD', 'a.amname')}, 'name', a.amname,
      'definition', format('CREATE ACCESS METHOD %I TYPE %s HANDLER %s', a.amname, CASE a.amtype WHEN 't' THEN 'TABLE' ELSE 'INDEX' END, a.amhandler::oid::regproc))
    FROM pg_am a WHERE a.oid = subject);
END`,
  )
