import { estimateRestore_ms, findProof, type ProofRecord, type Repository, type RestorePlan } from '../src/index.ts'
import type { Context } from './context.ts'
import { duration, plural, printable } from './format.ts'

/** The last restore that proved a source restorable, and the last one that was tried, which may have failed. */
export interface Proofs {
  readonly proven: ProofRecord | undefined
  readonly last: ProofRecord | undefined
}

export async function lookAtProofs(repository: Repository, source: string, signal: AbortSignal): Promise<Proofs> {
  const last = await findProof(repository, source, () => true, signal)
  const isProven = ({ outcome }: ProofRecord): boolean => outcome === 'proven'
  if (last === undefined || isProven(last)) return { proven: last, last }
  return { last, proven: await findProof(repository, source, isProven, signal) }
}

/** When, to which target, in how long. */
export function proofInWords({ out }: Context, { proven, last }: Proofs): string {
  const lastProven = proven === undefined ? undefined : `${agoOf(proven)}: restorable to ${whereInWords(proven)}`
  const [first] = last?.findings ?? []
  if (last === undefined || last === proven)
    return `${lastProven ?? 'never (walback verify --restore)'}${first ? `; ${out.paintData('TOO SLOW', 'yellow')}: ${first.message}` : ''}`
  const failure = `${out.paintData('NOT PROVEN', 'red')} ${agoOf(last)} at ${whereInWords(last)}, ${plural(last.findings.length, 'finding')}: ${printable(`${first?.kind} ${first?.name}: ${first?.message}`)}`
  return `${failure}; before that, ${lastProven ?? 'never'}`
}

const agoOf = ({ finished }: ProofRecord): string => `${duration(Date.now() - Date.parse(finished))} ago`

export const proofsJson = ({ proven, last }: Proofs): Record<string, unknown> => ({
  last_proven: proven ? proofJson(proven) : null,
  last_proof: last ? proofJson(last) : null,
})

/** What is known of how long a plan will take. */
export interface Eta {
  readonly duration_ms: number
  readonly from: ProofRecord
}

export async function etaOf(repository: Repository, plan: RestorePlan, signal: AbortSignal): Promise<Eta | undefined> {
  const { proven } = await lookAtProofs(repository, plan.source, signal)
  const duration_ms = estimateRestore_ms(plan, proven)
  return proven === undefined || duration_ms === undefined ? undefined : { duration_ms, from: proven }
}

export const etaInWords = (eta: Eta | undefined): string =>
  eta === undefined
    ? 'not known: no restore was measured yet (walback verify --restore)'
    : `about ${duration(eta.duration_ms)}, from the restore of ${eta.from.finished.slice(0, 16)}Z on a ${eta.from.server.kind === 'throwaway' ? 'throwaway' : 'given'} server`

export const etaJson = (eta: Eta | undefined): Record<string, unknown> | null =>
  eta === undefined ? null : { duration_ms: eta.duration_ms, measured: eta.from.finished, bytes: eta.from.bytes }

/** The target and how long it took. */
export function whereInWords({ lsn, time, target, random, restore_ms }: ProofRecord): string {
  const asked = random ? ', drawn at random' : target === 'latest' ? ', the latest' : ''
  const took = restore_ms === null ? '' : ` in ${duration(restore_ms)}`
  return `${lsn} (${time}${asked})${took}`
}

export const proofJson = (record: ProofRecord): Record<string, unknown> => ({
  source: record.source,
  outcome: record.outcome,
  finished: record.finished,
  target: record.target,
  random: record.random,
  lsn: record.lsn,
  time: record.time,
  base: record.base,
  timeline: record.timeline,
  server: record.server,
  restore_ms: record.restore_ms,
  duration_ms: record.duration_ms,
  bytes: record.bytes,
  tables: record.tables,
  rows: record.rows,
  proven: record.proven,
  checked: {
    foreign_keys: record.checked.foreignKeys,
    indexes: record.checked.indexes,
    assertions: record.checked.assertions,
  },
  warnings: record.warnings,
  findings: record.findings,
})
