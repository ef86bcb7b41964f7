import type pg from 'pg'
import { quoteLiteral } from '../model/identifier.ts'
import { rowSettings } from '../postgres/row-session.ts'
import { actedOn, type Policy } from './apply-rows.ts'
import type { ForeignKey } from './constraints.ts'
import { type Kind, quoted, type StagedTable } from './staged-table.ts'

/** Rows that are fetched at a time. */
const batchRows = 1000

/**
 * The undo as SQL, for whoever wants to read it or to run it otherwise: a statement for each row whose state allows it.
 * Rows are guarded: what is changed between now and then is left as it is, and a key that is taken by then fails.
 * Ordinary triggers fire, so deletes of rows that refer to others come first, and inserts of them last.
 */
export async function* scriptFor(
  client: pg.Client,
  tables: readonly StagedTable[],
  layers: readonly number[],
  { policy, foreignKeys }: { readonly policy: Policy; readonly foreignKeys: readonly ForeignKey[] },
): AsyncGenerator<string> {
  const inserting = parentsFirst(tables, foreignKeys)
  const order = { d: inserting.toReversed(), u: inserting, i: inserting } as const
  yield head()
  for (const layer of layers)
    for (const kind of ['d', 'u', 'i'] satisfies Kind[])
      for (const table of order[kind])
        if (table.layers.has(layer) && table.counts[kind] > 0) yield* statements(client, table, layer, kind, policy)
  yield 'COMMIT;\n'
}

function head(): string {
  const { search_path: _, ...settings } = rowSettings
  const sets = Object.entries(settings).map(([name, value]) => `SET LOCAL ${name} = ${quoteLiteral(value)};`)
  return [
    '-- Made by walback undo --sql. Triggers fire, unless a superuser adds: SET LOCAL session_replication_role = replica;',
    `SET client_encoding = 'UTF8';`,
    'BEGIN;',
    ...sets,
    'SET CONSTRAINTS ALL DEFERRED;',
    '',
  ].join('\n')
}

/** Tables that are referred to, before those that refer to them; in a circle the order is as it comes. */
function parentsFirst(tables: readonly StagedTable[], foreignKeys: readonly ForeignKey[]): StagedTable[] {
  const ordered: StagedTable[] = []
  const seen = new Set<StagedTable>()
  const visit = (table: StagedTable): void => {
    if (seen.has(table)) return
    seen.add(table)
    for (const key of foreignKeys.filter(({ child }) => child.oid === table.table.oid))
      for (const parent of tables.filter((one) => one.table.oid === key.referenced || one.sql === parentName(key)))
        visit(parent)
    ordered.push(table)
  }
  for (const table of tables) visit(table)
  return ordered
}

const parentName = ({ parent }: ForeignKey): string =>
  `${quoted({ name: parent.schema })}.${quoted({ name: parent.name })}`

async function* statements(
  client: pg.Client,
  staged: StagedTable,
  layer: number,
  kind: Kind,
  policy: Policy,
): AsyncGenerator<string> {
  await client.query(
    `DECLARE walback_script NO SCROLL CURSOR FOR SELECT ${statementSql(staged, kind, policy)} AS statement
      FROM ${staged.check} c JOIN ${staged.stage} s ON s.ord = c.ord
      WHERE c.layer = ${layer} AND c.kind = '${kind}' AND c.state IN ${actedOn(kind, policy)} ORDER BY s.ord`,
  )
  for (;;) {
    const { rows } = await client.query<{ statement: string }>(`FETCH ${batchRows} FROM walback_script`)
    if (rows.length === 0) break
    yield `${rows.map(({ statement }) => statement).join('\n')}\n`
  }
  await client.query('CLOSE walback_script')
}

/** An expression of the server's that gives a reversal's statement; the server quotes the values. */
function statementSql(staged: StagedTable, kind: Kind, policy: Policy): string {
  const { columns } = staged.table
  const values = (side: 'o' | 'n'): Part[] => columns.map((column, index) => valueOf(side, index, column.type))
  const wholeRow = image(columns.map(quoted), values('n'))
  if (kind === 'i') {
    const settable = columns.flatMap((column, index) =>
      column.isAlways || staged.table.key?.some((one) => one.column === column) === true
        ? []
        : [[`${quoted(column)} = `, valueOf('o', index, column.type)]],
    )
    const insert = insertInto(staged, values('o'))
    if (policy !== 'force' || settable.length === 0) return text(insert)
    const overwrite = [
      `UPDATE ONLY ${staged.sql} SET `,
      ...joined(settable, ', '),
      ' WHERE ',
      ...keyIs(staged, 'o'),
      ';',
    ]
    return `CASE c.state WHEN 'exists' THEN ${text(overwrite)} ELSE ${text(insert)} END`
  }
  const place = (guard: Part[]): Part[] =>
    staged.table.key === undefined
      ? [`ctid = (SELECT ctid FROM ONLY ${staged.sql} WHERE `, ...wholeRow, ' LIMIT 1)']
      : [...keyIs(staged, 'n'), ...(policy === 'force' || guard.length === 0 ? [] : [' AND ', ...guard])]
  if (kind === 'd') return text([`DELETE FROM ONLY ${staged.sql} WHERE `, ...place(wholeRow), ';'])
  const ifChanged = (index: number, parts: readonly Part[]): { readonly sql: string } => ({
    sql: `CASE WHEN substr(s.marks, ${index + 1}, 1) = 'x' THEN ${text(parts)} END`,
  })
  const sets = staged.setBack.map(({ column, index }) =>
    ifChanged(index, [`, ${quoted(column)} = `, valueOf('o', index, column.type)]),
  )
  const guards = staged.setBack.map(({ column, index }) =>
    ifChanged(index, [' AND ', ...image([quoted(column)], [valueOf('n', index, column.type)])]),
  )
  const keyed = [...keyIs(staged, 'n'), ...(policy === 'force' ? [] : guards), ';']
  return text([
    `UPDATE ONLY ${staged.sql} SET `,
    { sql: `substr(${text(sets)}, 3)` },
    ' WHERE ',
    ...(staged.table.key === undefined ? [...place([]), ';'] : keyed),
  ])
}

/** A piece of a statement: text as it stands, or an expression of the server's. */
type Part = string | { readonly sql: string }

/** A function takes a hundred arguments, a table may have more columns. NULL is nothing. */
const text = (parts: readonly Part[]): string =>
  `array_to_string(ARRAY[${parts.map((part) => (typeof part === 'string' ? quoteLiteral(part).trimStart() : part.sql)).join(', ')}]::text[], '')`

/** As the type's output function writes it, which is what its input function reads. */
const valueOf = (side: 'o' | 'n', index: number, type: string): { readonly sql: string } => {
  const value = `s.${side}${index + 1}`
  return {
    sql: `concat(CASE WHEN num_nulls(${value}) = 1 THEN 'NULL' ELSE quote_literal(concat(${value})) END, ${quoteLiteral(`::${type}`).trimStart()})`,
  }
}

function joined(parts: readonly (readonly Part[])[], separator: string): Part[] {
  return parts.flatMap((part, index) => (index === 0 ? part : [separator, ...part]))
}

const image = (names: readonly string[], values: readonly Part[]): Part[] => [
  `ROW(${names.join(', ')})::text = ROW(`,
  ...joined(
    values.map((value) => [value]),
    ', ',
  ),
  ')::text',
]

function insertInto(staged: StagedTable, values: readonly Part[]): Part[] {
  const { columns } = staged.table
  if (columns.length === 0) return [`INSERT INTO ${staged.sql} DEFAULT VALUES;`]
  const list = joined(
    values.map((value) => [value]),
    ', ',
  )
  return [
    `INSERT INTO ${staged.sql} (${columns.map(quoted).join(', ')}) OVERRIDING SYSTEM VALUE VALUES (`,
    ...list,
    ');',
  ]
}

function keyIs(staged: StagedTable, side: 'o' | 'n'): Part[] {
  const { key = [], columns } = staged.table
  return joined(
    key.map(({ column, operator }) => {
      const value = valueOf(side, columns.indexOf(column), column.type)
      return operator === undefined ? image([quoted(column)], [value]) : [`${quoted(column)} ${operator} `, value]
    }),
    ' AND ',
  )
}
