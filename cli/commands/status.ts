import {
  type Conninfo,
  connect,
  formatTime,
  type Holdings,
  messageOf,
  nowMicros,
  readHoldings,
  readSlot,
  readSourceFacts,
  type SlotState,
  type Timeline,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { bytes, duration, plural } from '../format.ts'
import { baseJson, coverageJson, point, segmentsJson, windowLines } from '../holdings.ts'

export const addStatus: AddCommand = (program, bind) => {
  program
    .command('status')
    .description('what can be restored now, and how the replication slot stands')
    .action(bind(status))
}

/** What the database says; it may be away, which is no reason to fail: the archive can be restored without it. */
type Database =
  | { readonly kind: 'unasked' }
  | { readonly kind: 'unreachable'; readonly why: string }
  | { readonly kind: 'other'; readonly why: string }
  | { readonly kind: 'there'; readonly slot: SlotState | undefined; readonly limit_bytes: number | undefined }

async function status(context: Context): Promise<undefined> {
  const { out, signal } = context
  const { repository, source } = await context.openSource()
  const holdings = await readHoldings(repository, source, signal)
  const database = await ask((await context.settings()).conninfo, holdings.timelines.at(-1), signal)
  const isProtected =
    holdings.windows.length > 0 && holdings.gaps.every((gap) => gap.to !== undefined) && slotHolds(database)
  out.data(inWords(context, holdings, database, isProtected))
  out.data(`  repository   ${repository.storage.url}`)
  out.document({
    source,
    repository: repository.storage.url,
    protected: isProtected,
    ...coverageJson(holdings),
    archive_end: holdings.end ? point(holdings.end) : null,
    bases: {
      count: holdings.bases.length,
      stored_bytes: holdings.bases.reduce((sum, base) => sum + base.stored_bytes, 0),
    },
    last_base: holdings.bases.length > 0 ? baseJson(holdings.bases.at(-1) as (typeof holdings.bases)[number]) : null,
    segments: segmentsJson(holdings),
    timeline: holdings.timelines.at(-1)?.id ?? null,
    database: databaseJson(database),
    checked: formatTime(nowMicros()),
  })
}

/** A slot that is gone or lost protects nothing from now on, whatever is archived; one that cannot be asked may be fine. */
const slotHolds = (database: Database): boolean =>
  database.kind !== 'there' || (database.slot !== undefined && database.slot.walStatus !== 'lost')

async function ask(
  conninfo: Conninfo | undefined,
  timeline: Timeline | undefined,
  signal: AbortSignal,
): Promise<Database> {
  if (conninfo === undefined || timeline === undefined) return { kind: 'unasked' }
  try {
    const client = await connect(conninfo, { application: 'walback status', signal })
    try {
      const facts = await readSourceFacts(client)
      if (facts.systemIdentifier !== timeline.systemIdentifier || facts.database.oid !== timeline.database.oid) {
        return {
          kind: 'other',
          why: `${facts.database.name} on this server is not the database that the archive was made from`,
        }
      }
      const limit_bytes = facts.maxSlotWalKeepSize_mb < 0 ? undefined : facts.maxSlotWalKeepSize_mb * 1024 * 1024
      return { kind: 'there', slot: await readSlot(client, timeline.slot), limit_bytes }
    } finally {
      await client.end().catch(() => undefined)
    }
  } catch (error) {
    if (signal.aborted) throw error
    return { kind: 'unreachable', why: messageOf(error) }
  }
}

function inWords({ out }: Context, holdings: Holdings, database: Database, isProtected: boolean): string {
  const word = isProtected ? out.paintData('protected', 'green') : out.paintData('NOT PROTECTED', 'red')
  const lines = [
    `${out.paintData(holdings.source, 'bold')}  ${word}`,
    ...windowLines(holdings).map((line) => `  ${line}`),
  ]
  const { end, bases, segments } = holdings
  if (end) lines.push(`  archive      ends ${duration(Number((nowMicros() - end.time) / 1000n))} ago`)
  lines.push(`  slot         ${slotInWords(database, holdings.timelines.at(-1)?.slot ?? '')}`)
  const base = bases.at(-1)
  const size = bytes(bases.reduce((sum, one) => sum + one.stored_bytes, 0))
  lines.push(`  bases        ${base === undefined ? 'none' : `${bases.length}, ${size}; the last ${base.id}`}`)
  lines.push(
    `  segments     ${plural(segments.count, 'segment')}, ${bytes(segments.stored_bytes)}, ${plural(segments.transactions, 'transaction')}`,
  )
  return lines.join('\n')
}

function slotInWords(database: Database, name: string): string {
  switch (database.kind) {
    case 'unasked':
      return 'unknown: no database was given (--db)'
    case 'unreachable':
      return `unknown: ${database.why}`
    case 'other':
      return `unknown: ${database.why}`
    case 'there': {
      const { slot, limit_bytes } = database
      if (slot === undefined) return `${name} is GONE: nothing is captured (walback init, then walback backup --full)`
      if (slot.walStatus === 'lost')
        return `${name} is LOST: the server has thrown away log (walback uninstall, init, backup --full)`
      const limit = limit_bytes === undefined ? 'without a limit (max_slot_wal_keep_size)' : `of ${bytes(limit_bytes)}`
      return `${name}, ${slot.active ? `active (pid ${slot.activePid})` : 'not active: no agent is capturing'}, keeps ${bytes(slot.retained_bytes)} ${limit}`
    }
  }
}

function databaseJson(database: Database): Record<string, unknown> | null {
  switch (database.kind) {
    case 'unasked':
      return null
    case 'unreachable':
    case 'other':
      return { state: database.kind, why: database.why, slot: null }
    case 'there': {
      const { slot, limit_bytes } = database
      return {
        state: 'reachable',
        slot:
          slot === undefined
            ? null
            : {
                name: slot.name,
                active: slot.active,
                wal_status: slot.walStatus,
                retained_bytes: slot.retained_bytes,
                limit_bytes: limit_bytes ?? null,
              },
      }
    }
  }
}
