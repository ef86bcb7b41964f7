import { describer, lasting, named } from './describe-parts.ts'
import {
  constraintJson,
  policyJson,
  ruleJson,
  statisticsJson,
  triggerJson,
  usersTrigger,
} from './describe-relation-sql.ts'

/** What belongs to a relation or domain, each as it is in that one's own description, and what it belongs to. */
export function describeSubObjectSql(s: string): string {
  const ofRelation = (
    name: string,
    kind: string,
    catalog: string,
    row: string,
    key: string,
    json: string,
    condition?: string,
  ) =>
    describer(
      `${s}.${name}`,
      `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', '${kind}', 'target', format('${kind.toUpperCase()} %I ON %s', ${row}.${nameColumn[catalog]}, c.oid::regclass), 'relation', c.oid::regclass::text)
      || ${json}
    FROM ${catalog} ${row} JOIN pg_class c ON c.oid = ${row}.${key} JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE ${row}.oid = subject AND c.relpersistence <> 't' AND ${lasting('n')}${condition === undefined ? '' : ` AND ${condition}`});
END`,
    )
  return [
    ofRelation('describe_trigger', 'trigger', 'pg_trigger', 't', 'tgrelid', triggerJson(), usersTrigger()),
    ofRelation('describe_rule', 'rule', 'pg_rewrite', 'w', 'ev_class', ruleJson(), `w.rulename <> '_RETURN'`),
    ofRelation('describe_policy', 'policy', 'pg_policy', 'p', 'polrelid', policyJson()),
    ofRelation('describe_table_constraint', 'constraint', 'pg_constraint', 'k', 'conrelid', constraintJson()),
    constraint(s),
    columnDefault(s),
    statistics(s),
  ].join('\n')
}

const nameColumn: Readonly<Record<string, string>> = {
  pg_trigger: 'tgname',
  pg_rewrite: 'rulename',
  pg_policy: 'polname',
  pg_constraint: 'conname',
}

const constraint = (s: string): string =>
  describer(
    `${s}.describe_constraint`,
    `
BEGIN
  RETURN coalesce(${s}.describe_table_constraint(subject),
    (SELECT jsonb_build_object('kind', 'constraint', 'target', format('CONSTRAINT %I ON DOMAIN %s', k.conname, format_type(k.contypid, NULL)), 'domain', format_type(k.contypid, NULL))
      || ${constraintJson()}
    FROM pg_constraint k JOIN pg_type t ON t.oid = k.contypid JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE k.oid = subject AND k.conrelid = 0 AND ${lasting('n')}));
END`,
  )

const columnDefault = (s: string): string =>
  describer(
    `${s}.describe_default`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'default', 'relation', d.adrelid::regclass::text, 'column', a.attname,
      'expression', pg_get_expr(d.adbin, d.adrelid), 'generated', nullif(a.attgenerated <> '', false))
    FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
      JOIN pg_class c ON c.oid = d.adrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE d.oid = subject AND c.relpersistence <> 't' AND ${lasting('n')});
END`,
  )

const statistics = (s: string): string =>
  describer(
    `${s}.describe_statistics`,
    `
BEGIN
  RETURN (SELECT jsonb_build_object('kind', 'statistics', 'target', ${named('STATISTICS', 'n.nspname', 'x.stxname')}, 'relation', x.stxrelid::regclass::text)
      || ${statisticsJson()}
    FROM pg_statistic_ext x JOIN pg_namespace n ON n.oid = x.stxnamespace WHERE x.oid = subject AND ${lasting('n')});
END`,
  )
