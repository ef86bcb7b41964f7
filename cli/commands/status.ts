import type { GuardSettings } from '../../src/config.ts'
import {
  type Conninfo,
  connect,
  type Finding,
  findVerification,
  formatLsn,
  formatTime,
  type Holdings,
  measures,
  messageOf,
  nearestLimit,
  nowMicros,
  readHoldings,
  readSlotReading,
  readSourceFacts,
  type SlotLimits,
  type SlotReading,
  slotLimit_bytes,
  slotPressure,
  type Timeline,
  type UncertainSpan,
  type Verification,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { copyInWords, copyJson, lacksOpening, lookAtCopies } from '../copies.ts'
import { bytes, duration, plural } from '../format.ts'
import { baseJson, brief, coverageJson, point, segmentsJson, windowLines } from '../holdings.ts'
import { lookAtProofs, proofInWords, proofsJson } from '../proofs.ts'
import { passedOverJson, readFirst } from '../readable.ts'
import { encryptionInWords, encryptionJson } from './key.ts'

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
  | { readonly kind: 'there'; readonly reading: SlotReading | undefined; readonly limits: SlotLimits }

async function status(context: Context): Promise<undefined> {
  const { out, signal } = context
  const opened = await readFirst(context, ({ repository, source }) => readHoldings(repository, source, signal))
  const { repository, source, passedOver, value: holdings } = opened
  const { conninfo, guard } = await context.settings()
  const database = await ask(conninfo, holdings.timelines.at(-1), guard, signal)
  const copies = await lookAtCopies(context, repository, source)
  const isProtected =
    holdings.windows.length > 0 &&
    holdings.gaps.every((gap) => gap.to !== undefined) &&
    slotHolds(database) &&
    !lacksOpening(copies)
  const verified = await findVerification(repository, source, ({ outcome }) => outcome !== 'interrupted', signal)
  const proofs = await lookAtProofs(repository, source, signal)
  out.data(inWords(context, holdings, database, isProtected))
  out.data(`  verified     ${verifiedInWords(context, verified)}`)
  out.data(`  proven       ${proofInWords(context, proofs)}`)
  out.data(`  repository   ${repository.storage.url}`)
  for (const copy of copies) out.data(`  copy         ${copyInWords(copy)}`)
  out.data(`  encryption   ${encryptionInWords(repository.key, await context.access(repository.clear))}`)
  out.document({
    source,
    repository: repository.storage.url,
    ...passedOverJson(passedOver),
    copies: copies.map(copyJson),
    encryption: encryptionJson(repository.key),
    protected: isProtected,
    ...coverageJson(holdings),
    archive_end: holdings.end ? point(holdings.end) : null,
    bases: {
      count: holdings.bases.length,
      partial: holdings.partialBases.length,
      stored_bytes: [...holdings.bases, ...holdings.partialBases].reduce((sum, base) => sum + base.stored_bytes, 0),
    },
    last_base: holdings.bases.length > 0 ? baseJson(holdings.bases.at(-1) as (typeof holdings.bases)[number]) : null,
    segments: segmentsJson(holdings),
    timeline: holdings.timelines.at(-1)?.id ?? null,
    schema: schemaJson(holdings),
    last_verification: verified ? verifiedJson(verified) : null,
    ...proofsJson(proofs),
    database: databaseJson(database, guard),
    checked: formatTime(nowMicros()),
  })
}

/** A slot that is gone or lost protects nothing from now on, whatever is archived; one that cannot be asked may be fine. */
const slotHolds = (database: Database): boolean =>
  database.kind !== 'there' || (database.reading !== undefined && database.reading.slot.walStatus !== 'lost')

async function ask(
  conninfo: Conninfo | undefined,
  timeline: Timeline | undefined,
  guard: GuardSettings,
  signal: AbortSignal,
): Promise<Database> {
  if (conninfo === undefined || timeline === undefined) return { kind: 'unasked' }
  try {
    const client = await connect(conninfo, { application: 'walback status', settings: { search_path: '' }, signal })
    try {
      const facts = await readSourceFacts(client)
      if (facts.systemIdentifier !== timeline.systemIdentifier || facts.database.oid !== timeline.database.oid) {
        return {
          kind: 'other',
          why: `${facts.database.name} on this server is not the database that the archive was made from`,
        }
      }
      const limits = { server_bytes: slotLimit_bytes(facts), guard_bytes: guard.maxSlotWal_bytes }
      return { kind: 'there', reading: await readSlotReading(client, timeline.slot), limits }
    } finally {
      await client.end().catch(() => undefined)
    }
  } catch (error) {
    if (signal.aborted) throw error
    return { kind: 'unreachable', why: messageOf(error) }
  }
}

function inWords({ out }: Context, holdings: Holdings, database: Database, isProtected: boolean): string {
  const open = openSpan(holdings)
  const word = isProtected ? out.paintData('protected', 'green') : out.paintData('NOT PROTECTED', 'red')
  const what = open?.changes.every(({ kind }) => kind === 'unpublished') ? 'ROWS' : 'SCHEMA'
  const but = open === undefined ? '' : `  ${out.paintData(`${what} CHANGED UNSEEN`, 'yellow')}`
  const lines = [
    `${out.paintData(holdings.source, 'bold')}  ${word}${but}`,
    ...windowLines(holdings).map((line) => `  ${line}`),
  ]
  const { end, bases, segments } = holdings
  if (end) lines.push(`  archive      ends ${duration(Number((nowMicros() - end.time) / 1000n))} ago`)
  lines.push(`  schema       ${schemaInWords(holdings, open)}`)
  lines.push(`  slot         ${slotInWords(database, holdings.timelines.at(-1)?.slot ?? '')}`)
  for (const { level, why, object } of pressureOf(database))
    lines.push(
      `  ${out.paintData(level.toUpperCase().padEnd(11), level === 'error' ? 'red' : 'yellow')}  ${object}: ${why}`,
    )
  const base = bases.at(-1)
  const { partialBases } = holdings
  const size = bytes([...bases, ...partialBases].reduce((sum, one) => sum + one.stored_bytes, 0))
  const ofSome = partialBases.length > 0 ? `, and ${partialBases.length} of some tables` : ''
  lines.push(`  bases        ${base === undefined ? 'none' : `${bases.length}${ofSome}, ${size}; the last ${base.id}`}`)
  lines.push(
    `  segments     ${plural(segments.count, 'segment')}, ${bytes(segments.stored_bytes)}, ${plural(segments.transactions, 'transaction')}`,
  )
  return lines.join('\n')
}

/** The uncertain span that goes on: no base has mended it yet. */
const openSpan = ({ uncertain, timelines }: Holdings): UncertainSpan | undefined =>
  uncertain.find(({ timeline, to }) => timeline === timelines.at(-1)?.id && to === undefined)

function schemaJson(holdings: Holdings): Record<string, unknown> {
  const open = openSpan(holdings)
  return { followed_by: holdings.timelines.at(-1)?.ddl ?? null, unseen_since: open ? point(open.from) : null }
}

function schemaInWords({ timelines }: Holdings, open: UncertainSpan | undefined): string {
  if (open !== undefined) {
    const { from, changes } = open
    const count = plural(changes.length, 'change')
    return `${count} since ${brief(from.time)} (${formatLsn(from.lsn)}) not in the stream: later targets lack them or are refused; walback backup --full records the schema anew`
  }
  return timelines.at(-1)?.ddl === 'triggers'
    ? 'changes are followed by event triggers'
    : 'changes are not followed: each needs a base after it, which the agent takes (schema.on_unseen_change)'
}

function verifiedInWords({ out }: Context, verified: Verification | undefined): string {
  if (verified === undefined) return 'never (walback verify)'
  const { finished, read, damaged } = verified
  const ago = `${duration(Date.now() - Date.parse(finished))} ago`
  const part =
    read === null ? 'nothing read whole' : read.of === 1 ? 'all of it read' : `part ${read.part} of ${read.of} read`
  return damaged === 0
    ? `${ago}: sound, ${part}`
    : `${ago}: ${out.paintData('DAMAGED', 'red')}, ${plural(damaged, 'finding')} (walback verify names them)`
}

const verifiedJson = (verified: Verification): Record<string, unknown> => ({
  finished: verified.finished,
  outcome: verified.outcome,
  read: verified.read,
  objects: verified.objects,
  read_bytes: verified.read_bytes,
  damaged: verified.damaged,
  findings: verified.findings,
  walback_version: verified.walbackVersion,
})

function slotInWords(database: Database, name: string): string {
  switch (database.kind) {
    case 'unasked':
      return 'unknown: no database was given (--db)'
    case 'unreachable':
      return `unknown: ${database.why}`
    case 'other':
      return `unknown: ${database.why}`
    case 'there': {
      const { reading, limits } = database
      if (reading === undefined)
        return `${name} is GONE: nothing is captured (walback init, then walback backup --full)`
      const { slot } = reading
      if (slot.walStatus === 'lost')
        return `${name} is LOST: the server has thrown away log (walback uninstall, init, backup --full)`
      const nearest = nearestLimit(limits)
      const limit = nearest === undefined ? 'without a limit' : `of ${bytes(nearest.bytes)} (${nearest.name})`
      return `${name}, ${slot.active ? `active (pid ${slot.activePid})` : 'not active: no agent is capturing'}, keeps ${bytes(slot.retained_bytes)} ${limit}`
    }
  }
}

/** What presses on the slot, or through it on the server; of one that is lost there is nothing more to say. */
const pressureOf = (database: Database): Finding[] =>
  database.kind === 'there' && database.reading !== undefined && database.reading.slot.walStatus !== 'lost'
    ? slotPressure(database.reading, database.limits)
    : []

function databaseJson(database: Database, guard: GuardSettings): Record<string, unknown> | null {
  switch (database.kind) {
    case 'unasked':
      return null
    case 'unreachable':
    case 'other':
      return { state: database.kind, why: database.why, slot: null }
    case 'there': {
      const { reading, limits } = database
      return {
        state: 'reachable',
        slot:
          reading === undefined
            ? null
            : {
                name: reading.slot.name,
                active: reading.slot.active,
                ...measures(reading),
                limit_bytes: limits.server_bytes ?? null,
              },
        guard: {
          limit_bytes: guard.maxSlotWal_bytes,
          on_limit: guard.onLimit,
          findings: pressureOf(database).map(({ code, level, object, why }) => ({ code, level, object, why })),
        },
      }
    }
  }
}
