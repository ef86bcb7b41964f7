/** Pieces of the SQL that describes objects (postgres/describe-sql.ts), for the functions of which it is made. */

/** Of a row `n` of pg_namespace: one whose objects are described, that is neither for a session's own nor ours. */
export const lasting = (n: string): string =>
  `(${n}.nspname <> 'walback' AND left(${n}.nspname::text, 8) NOT IN ('pg_temp_', 'pg_toast'))`

/** An ACL as sorted texts; null where it is the default. */
export const acl = (value: string): string =>
  `CASE WHEN ${value} IS NOT NULL THEN coalesce((SELECT jsonb_agg(x.item::text ORDER BY x.item::text COLLATE "C") FROM unnest(${value}) x (item)), '[]') END`

/** Options and storage parameters, whose order means nothing. */
export const options = (value: string): string =>
  `CASE WHEN ${value} IS NOT NULL THEN (SELECT jsonb_agg(x.item ORDER BY x.item COLLATE "C") FROM unnest(${value}) x (item)) END`

export const comment = (catalog: string, object: string): string =>
  `(SELECT s.description FROM pg_description s WHERE s.objoid = ${object} AND s.classoid = '${catalog}'::regclass AND s.objsubid = 0)`

/** Extensions without which an object cannot be (ALTER … DEPENDS ON EXTENSION). */
export const needed = (catalog: string, object: string): string =>
  `(SELECT jsonb_agg(e.extname ORDER BY e.extname) FROM pg_depend s JOIN pg_extension e ON e.oid = s.refobjid
      WHERE s.classid = ${catalog} AND s.objid = ${object} AND s.refclassid = 'pg_extension'::regclass AND s.deptype = 'x')`

/** How a trigger or rule fires, null where it is as usual. */
export const firing = (state: string): string =>
  `CASE ${state} WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica' WHEN 'A' THEN 'always' END`

/** A statistics target, null where it is the default (-1 up to 16). */
export const statisticsTarget = (value: string): string => `CASE WHEN ${value} >= 0 THEN ${value} END`

/** A function's name as it is written where its arguments are known, null for none. */
export const routine = (value: string): string => `CASE WHEN ${value} <> 0 THEN ${value}::regproc::text END`

/** A name that is not in a schema, or in one. */
export const named = (kind: string, ...names: readonly string[]): string =>
  `format('${kind} ${names.map(() => '%I').join('.')}', ${names.join(', ')})`

/** A function that describes the objects of one catalog; `body` is plpgsql. */
export const describer = (name: string, body: string): string => `
CREATE OR REPLACE FUNCTION ${name}(subject oid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $walback$
${body.trim()}
$walback$;`
