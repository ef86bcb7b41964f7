import {
  type FoundTransaction,
  findTransactions,
  formatTime,
  parseTransactionName,
  type Repository,
  type ShownChange,
  type ShownRow,
  type ShownValue,
  showTransaction,
  timeOf,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { bytes, count, plural, printable } from '../format.ts'
import { parseLimit, parseList } from '../options.ts'
import { passedOverJson, readFirst } from '../readable.ts'

interface Options {
  readonly table?: readonly string[]
  readonly limit: number
}

export const addShow: AddCommand = (program, bind) => {
  program
    .command('show <tx>')
    .description('what a transaction did: its rows before and after, its truncations and changes of the schema')
    .option('--table <pattern>', 'only rows of these: name, schema.name, * for any; several with commas', parseList)
    .option('--limit <n>', 'at most so many changes', parseLimit, 50)
    .action(bind<Options>(show))
}

interface Shown {
  readonly found: FoundTransaction
  readonly changes: readonly ShownChange[]
  /** Whether there are more than are shown. */
  readonly hasMore: boolean
}

async function show(context: Context, options: Options, [word = '']: readonly string[]): Promise<undefined> {
  const { out, signal } = context
  const name = parseTransactionName(word)
  const { repository, source, passedOver, value } = await readFirst(context, async (opened): Promise<Shown> => {
    const [found] = await findTransactions(opened.repository, opened.source, [name], signal)
    return await readSome(opened.repository, found as FoundTransaction, options, signal)
  })
  const { found, changes, hasMore } = value
  const { entry, timeline } = found
  out.data([heading(found), ...countsInWords(found), '', ...grouped(changes)].join('\n').replace(/\n+$/, ''))
  if (hasMore) out.say(`only the first ${count(options.limit)} changes are shown; --limit shows more`)
  out.say(await nextStep(context, found))
  out.document({
    source,
    repository: repository.storage.url,
    ...passedOverJson(passedOver),
    xid: entry.xid,
    timeline: timeline.id,
    commit_lsn: entry.commit,
    lsn: entry.end,
    time: formatTime(timeOf(entry)),
    bytes: entry.bytes,
    tables: tablesOf(found),
    ddl_count: entry.ddlCount ?? 0,
    ...(entry.marks === undefined ? {} : { marks: entry.marks }),
    changes: changes.map(changeJson),
    has_more_changes: hasMore,
  })
}

/** What to type to be rid of it. Rows that a truncation took, and what was dropped, are not in the stream. */
async function nextStep(context: Context, { entry }: FoundTransaction): Promise<string> {
  const same = await context.sameFlags()
  const mayBeUndone = (entry.ddlCount ?? 0) === 0 && entry.counts.every(([, , , , truncates]) => truncates === 0)
  return mayBeUndone
    ? `undo: walback undo tx:${entry.xid}${same}`
    : `to just before it: walback restore --before-tx ${entry.xid} --into NEWDB${same}`
}

async function readSome(
  repository: Repository,
  found: FoundTransaction,
  { table, limit }: Options,
  signal: AbortSignal,
): Promise<Shown> {
  const changes: ShownChange[] = []
  for await (const change of showTransaction(repository, found, { tables: table, signal })) {
    if (changes.length === limit) return { found, changes, hasMore: true }
    changes.push(change)
  }
  return { found, changes, hasMore: false }
}

const tablesOf = ({ segment, entry }: FoundTransaction) =>
  entry.counts.map(([place, inserted, updated, deleted, truncated]) => {
    const { schema, name } = segment.trailer.tables[place] ?? { schema: '', name: `relation ${place}` }
    return { schema, name, insert: inserted, update: updated, delete: deleted, truncate: truncated }
  })

const heading = ({ timeline, entry }: FoundTransaction): string =>
  `tx:${entry.xid}  committed ${formatTime(timeOf(entry)).replace('T', ' ')}  ${entry.end}  timeline ${timeline.id}  ${bytes(entry.bytes)}`

function countsInWords(found: FoundTransaction): string[] {
  return tablesOf(found).map((table) => {
    const parts = [
      ...(table.insert > 0 ? [`${count(table.insert)} inserted`] : []),
      ...(table.update > 0 ? [`${count(table.update)} updated`] : []),
      ...(table.delete > 0 ? [`${count(table.delete)} deleted`] : []),
      ...(table.truncate > 0 ? [table.truncate === 1 ? 'truncated' : `truncated ${count(table.truncate)} times`] : []),
    ]
    return `  ${tableName(table)}: ${parts.join(', ')}`
  })
}

const tableName = ({ schema, name }: { readonly schema: string; readonly name: string }): string =>
  printable(`${schema}.${name}`)

/** Changes in their order, with a table's name where it begins or changes. */
function grouped(changes: readonly ShownChange[]): string[] {
  const lines: string[] = []
  let current = ''
  for (const change of changes) {
    const of = 'schema' in change ? tableName(change) : ''
    if (of !== '' && of !== current) lines.push(of)
    current = of
    lines.push(...changeInWords(change))
  }
  return lines
}

function changeInWords(change: ShownChange): string[] {
  switch (change.kind) {
    case 'insert':
      return [`  + ${rowInWords(change.after)}`]
    case 'delete':
      return [`  - ${rowInWords(change.before)}${change.isWhole ? '' : '  (only the key was sent)'}`]
    case 'update':
      return [`  ~ ${updateInWords(change)}`]
    case 'truncate':
      return [`truncated ${change.tables.map(tableName).join(', ')}: which rows it took is not in the stream`]
    case 'ddl':
      return [printable(`${change.tag} ${change.objects.join(', ')}  by ${change.role}`)]
  }
}

const rowInWords = (row: ShownRow): string =>
  [...row].map(([column, value]) => `${printable(column)}=${valueInWords(value)}`).join(' ')

function updateInWords({ key, before, after, isWhole }: Extract<ShownChange, { kind: 'update' }>): string {
  const changed = [...after].filter(([column, value]) =>
    isWhole || before.has(column) ? before.get(column) !== value : !key.has(column) && typeof value !== 'symbol',
  )
  const which = key.size > 0 ? key : new Map([...before].filter(([column]) => before.get(column) === after.get(column)))
  const sets = changed.map(([column, value]) => {
    const was = isWhole || before.has(column) ? `${valueInWords(before.get(column) ?? null)} → ` : '→ '
    return `${printable(column)}: ${was}${valueInWords(value)}`
  })
  const note = isWhole ? '' : '  (old values were not sent)'
  return `${rowInWords(which)}  ${sets.length === 0 ? 'set to what it was' : sets.join(', ')}${note}`
}

const mostShown = 200

/** NULL stays a word of its own: text that reads so is quoted. */
function valueInWords(value: ShownValue): string {
  if (value === null) return 'NULL'
  if (typeof value === 'symbol') return '(not sent)'
  const cut = value.length > mostShown ? `${value.slice(0, mostShown)}…` : value
  const more = value.length > mostShown ? ` (${plural(value.length, 'character')})` : ''
  const plain = /^[\w.+:/@-]+$/.test(value) && value !== 'NULL'
  return `${plain ? cut : `'${printable(cut).replaceAll("'", "''")}'`}${more}`
}

/** Columns whose values were not sent are named, and not in `after`. */
function changeJson(change: ShownChange): Record<string, unknown> {
  if (change.kind === 'truncate' || change.kind === 'ddl') return { ...change }
  const { kind, schema, name } = change
  if (kind === 'insert') return { kind, schema, name, after: rowJson(change.after) }
  const { before, isWhole } = change
  const old = { before: rowJson(before), before_is_whole: isWhole }
  if (kind === 'delete') return { kind, schema, name, ...old }
  const notSent = [...change.after].flatMap(([column, value]) => (typeof value === 'symbol' ? [column] : []))
  return { kind, schema, name, key: rowJson(change.key), ...old, after: rowJson(change.after), not_sent: notSent }
}

const rowJson = (row: ShownRow): Record<string, string | null> =>
  Object.fromEntries([...row].flatMap(([column, value]) => (typeof value === 'symbol' ? [] : [[column, value]])))
