import { WalbackError } from '../base/errors.ts'
import { type Lsn, lsnKey, parseLsnKey } from '../model/lsn.ts'

/** Object keys. Positions are sixteen hexadecimal digits, so that listing order is stream order. */
export const repositoryKey = 'walback.json'
export const sourcesPrefix = 'sources/'
/** What wraps an encrypted repository's key; clear, as `walback.json` is (storage/encrypted.ts). */
export const keysPrefix = 'keys/'
const generationName = (generation: number): string => String(generation).padStart(8, '0')
export const keyKey = (generation: number): string => `${keysPrefix}${generationName(generation)}.json`
/** `attempt` tells apart what an interrupted rotation left and what the next one writes. */
export const recipientsPrefix = (generation: number, attempt: string): string =>
  `${keysPrefix}${generationName(generation)}-${attempt}/`
/** Objects that try the store out; nothing reads them later. */
export const probeKey = (name: string): string => `probes/${name}`
export const timelinesPrefix = (source: string): string => `sources/${source}/timelines/`
export const timelinePrefix = (source: string, timeline: string): string => `${timelinesPrefix(source)}${timeline}/`
export const timelineKey = (source: string, timeline: string): string =>
  `${timelinePrefix(source, timeline)}timeline.json`
export const segmentsPrefix = (source: string, timeline: string): string =>
  `${timelinePrefix(source, timeline)}segments/`
/** What retention has removed of a timeline (repository/pruned.ts). */
export const prunedPrefix = (source: string, timeline: string): string => `${timelinePrefix(source, timeline)}pruned/`
export const basesPrefix = (source: string): string => `sources/${source}/bases/`
export const basePrefix = (source: string, base: string): string => `${basesPrefix(source)}${base}/`
export const manifestKey = (source: string, base: string): string => `${basePrefix(source, base)}manifest.json`
/** What is done of a base that is being taken (repository/base-progress.ts). */
export const baseProgressPrefix = (source: string, base: string): string => `${basePrefix(source, base)}progress/`
/** Who reads or removes now, and whose word is not taken any more (repository/lease.ts). */
export const leasesPrefix = (source: string): string => `sources/${source}/leases/`
/** Recovery points that are kept for ever (repository/pins.ts). */
export const pinsPrefix = (source: string): string => `sources/${source}/pins/`
/** What `verify` has found, one record for each run; numbered, so that their order does not hang on clocks. */
export const verificationsPrefix = (source: string): string => `sources/${source}/verifications/`
export const verificationKey = (source: string, number: number): string =>
  recordKey(verificationsPrefix(source), number)
/** What restores on a throwaway server have proven, in the same way. */
export const proofsPrefix = (source: string): string => `sources/${source}/proofs/`
export const proofKey = (source: string, number: number): string => recordKey(proofsPrefix(source), number)
/** What was done with a source's archive (repository/audit-record.ts): each repository writes a chain of its own. */
export const auditPrefix = (source: string): string => `sources/${source}/audit/`
export const auditChainPrefix = (source: string, repository: string): string => `${auditPrefix(source)}${repository}/`
export const auditKey = (source: string, repository: string, number: number): string =>
  recordKey(auditChainPrefix(source, repository), number)
/** Records that are numbered (repository/numbered-records.ts). */
export const recordKey = (prefix: string, number: number): string => `${prefix}${String(number).padStart(8, '0')}.json`

/** Segments are grouped by their position's upper half, that is by 4 GiB of log. */
export function segmentKey(source: string, timeline: string, start: Lsn): string {
  const key = lsnKey(start)
  return `${segmentsPrefix(source, timeline)}${key.slice(0, 8)}/${key}.wbs`
}

/** `attempt` tells apart what an interrupted agent left behind and what the next one writes. */
export function partKey(source: string, timeline: string, start: Lsn, attempt: string, index: number): string {
  return segmentKey(source, timeline, start).replace(/\.wbs$/, `.${attempt}.${String(index).padStart(6, '0')}.wbp`)
}

/** Where the segment under this key starts, or undefined for any other object. */
export function segmentStart(key: string): Lsn | undefined {
  const match = /\/([0-9A-F]{16})\.wbs$/.exec(key)
  return match?.[1] === undefined ? undefined : parseLsnKey(match[1])
}

/** Where the segment starts that the part under this key belongs to. */
export function partStart(key: string): Lsn | undefined {
  const match = /\/([0-9A-F]{16})\.[0-9a-f]{8}\.\d{6}\.wbp$/.exec(key)
  return match?.[1] === undefined ? undefined : parseLsnKey(match[1])
}

/** Names of sources are parts of keys. */
export function checkSourceName(name: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name)) return name
  throw new WalbackError('usage', `not a name for a source: ${JSON.stringify(name)}`, {
    hint: `use letters, digits, '.', '_' and '-', at most 63, for example --source ${suggestSourceName(name)}`,
  })
}

/** A source's default name: its database's, as far as keys can hold it. */
export function suggestSourceName(database: string): string {
  return (
    database
      .replace(/[^A-Za-z0-9._-]+/g, '-')
      .replace(/^[^A-Za-z0-9]+/, '')
      .slice(0, 63) || 'source'
  )
}
