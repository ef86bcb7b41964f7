import type { Logger } from 'pino'
import {
  type Conninfo,
  connect,
  currentInsertLsn,
  type Lsn,
  messageOf,
  probeStorage,
  type Repository,
  readServerLoad,
  sleep,
  throwIfAborted,
  unrest,
} from '../src/index.ts'

export interface CalmOptions {
  readonly conninfo: Conninfo
  readonly repository: Repository
  readonly source: string
  readonly limit_bytes: number
  readonly log: Logger
  readonly signal: AbortSignal
  /** How long between looks; half a minute if not given. */
  readonly interval_ms?: number | undefined
}

/**
 * Resolves when a new slot would not soon be where the one was that has been dropped: the store takes and gives objects
 * back, several times in a row, no transaction holds the log, and not much is written. As long as that takes.
 */
export async function waitForCalm(options: CalmOptions): Promise<void> {
  const { log, source, signal, interval_ms = usualInterval_ms } = options
  const last: { lsn?: Lsn; at_ms?: number } = {}
  let [calm, told] = [0, '']
  while (calm < calmLooks) {
    const reasons = await look(options, last).catch((error: unknown) => [messageOf(error)])
    throwIfAborted(signal)
    calm = reasons.length === 0 ? calm + 1 : 0
    const why = reasons.join('; ')
    if (why !== '' && why !== told) log.warn({ source }, `not calm yet, so there is no new slot: ${why}`)
    told = why
    await sleep(interval_ms, signal)
  }
}

async function look(options: CalmOptions, last: { lsn?: Lsn; at_ms?: number }): Promise<string[]> {
  const { conninfo, repository, limit_bytes, signal } = options
  await probeStorage(repository.storage, AbortSignal.any([signal, AbortSignal.timeout(storePatience_ms)]))
  const client = await connect(conninfo, { application: 'walback guard', settings: { search_path: '' }, signal })
  try {
    const [lsn, at_ms] = [await currentInsertLsn(client), performance.now()]
    const span_s = last.at_ms === undefined ? 0 : (at_ms - last.at_ms) / 1000
    const log_bytes_s = last.lsn === undefined || span_s <= 0 ? undefined : Number(lsn - last.lsn) / span_s
    Object.assign(last, { lsn, at_ms })
    return unrest({ load: await readServerLoad(client), log_bytes_s }, limit_bytes)
  } finally {
    await client.end().catch(() => undefined)
  }
}

const usualInterval_ms = 30_000
const calmLooks = 3
const storePatience_ms = 30_000
