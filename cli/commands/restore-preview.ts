import {
  type Preview,
  previewPast,
  type Repository,
  type RestorePlan,
  type RowCount,
  WalbackError,
} from '../../src/index.ts'
import type { Context } from '../context.ts'
import { count, plural, printable, table } from '../format.ts'
import { bringBack, type StageFlags, stageFor } from '../past.ts'
import { rowInWords } from './diff.ts'

export interface PreviewFlags extends StageFlags {
  readonly preview?: boolean
}

export function checkPreviewFlags({
  preview: isPreview,
  sqlOut,
  on,
}: PreviewFlags & { readonly sqlOut?: string }): void {
  if (on === undefined || isPreview || sqlOut !== undefined) return
  throw new WalbackError('usage', '--on belongs to --preview and --sql-out', {
    hint: 'to restore on another server, give --into-url postgres://…/newdb',
  })
}

/** `walback restore --preview`: what a restore would give, brought back on a throwaway server, beside what there is now. */
export async function preview(
  context: Context,
  repository: Repository,
  plan: RestorePlan,
  flags: PreviewFlags,
): Promise<Preview> {
  await using stage = await stageFor(context, [plan], flags)
  const past = await bringBack(context, stage, repository, plan, flags)
  const { conninfo } = await context.settings()
  return await previewPast(past, conninfo, { samples: samplesShown, signal: context.signal })
}

const samplesShown = 3

export function previewInWords({ tables, notAsked }: Preview): string {
  const rows = tables.map(({ schema, name, rowsThen, rowsNow }) => [
    printable(`${schema}.${name}`),
    rowsThen === undefined ? 'no table' : count(rowsThen),
    rowsNow === undefined ? (notAsked === undefined ? 'no table' : '?') : nowInWords(rowsNow),
    rowsThen !== undefined && rowsNow?.isExact ? signed(rowsNow.rows - rowsThen) : '',
  ])
  const samples = tables.flatMap(({ schema, name, samples: some }) =>
    some.map(
      (row, place) => `${place === 0 ? `${printable(`${schema}.${name}`)}, then:\n` : ''}  ${rowInWords(row)}\n`,
    ),
  )
  const isGuessed = tables.some(({ rowsNow }) => rowsNow?.isExact === false)
  return [
    table([['TABLE', 'ROWS THEN', 'ROWS NOW', 'SINCE'], ...rows], [1, 2, 3]),
    ...(notAsked === undefined ? [] : [`now is not known: ${printable(notAsked)}\n`]),
    ...(isGuessed ? ["~ is the live server's own estimate; all other numbers were counted\n"] : []),
    ...samples,
    `${plural(tables.length, 'table')}; nothing was changed\n`,
  ].join('')
}

const nowInWords = ({ rows, isExact }: RowCount): string => `${isExact ? '' : '~'}${count(rows)}`

const signed = (value: number): string => (value === 0 ? '=' : `${value > 0 ? '+' : '-'}${count(Math.abs(value))}`)

export const previewJson = ({ tables, notAsked }: Preview): Record<string, unknown> => ({
  tables: tables.map(({ schema, name, rowsThen, rowsNow, samples }) => ({
    schema,
    name,
    rows_then: rowsThen ?? null,
    rows_now: rowsNow?.rows ?? null,
    rows_now_exact: rowsNow?.isExact ?? null,
    samples,
  })),
  now_unknown: notAsked ?? null,
})
