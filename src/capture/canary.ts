import { randomUUID } from 'node:crypto'
import type pg from 'pg'
import { sleep } from '../base/abort.ts'
import { messageOf, WalbackError } from '../base/errors.ts'
import type { Lsn } from '../model/lsn.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { readSlot } from '../postgres/source.ts'
import { readContainer } from '../repository/container.ts'
import { segmentKey } from '../repository/layout.ts'
import type { Repository } from '../repository/repository.ts'
import { readHead, readSegment } from '../repository/segments.ts'
import type { RequiredRepository } from './capture.ts'
import type { CheckReport } from './check.ts'
import { type Finding, type FindingCode, finding } from './check-finding.ts'
import { emit } from './heartbeat.ts'
import { captureUpToNow, requireTimeline } from './session.ts'

/** What became of a canary: a transaction that is sent through stream and store, and read back from the store. */
export type CanaryOutcome =
  | {
      readonly state: 'back'
      /** From its commit until it had been read back. */
      readonly duration_ms: number
      /** Who captured it. */
      readonly by: 'agent' | 'check'
      readonly key: string
    }
  | { readonly state: 'late'; readonly why: string }
  | { readonly state: 'failed'; readonly why: string; readonly hint: string | undefined }
  | { readonly state: 'skipped'; readonly why: string }

export interface CanaryOptions {
  readonly conninfo: Conninfo
  readonly repository: Repository
  readonly source: string
  /** What has to have what is confirmed, as every capture has it. */
  readonly required?: readonly RequiredRepository[] | undefined
  readonly timeout_ms: number
  readonly signal: AbortSignal
}

/** What makes a canary pointless: it is known already that it would not come back, or whose it would be. */
const obstacles: readonly FindingCode[] = [
  'not-set-up',
  'standby',
  'wal-level',
  'server-version',
  'slot-missing',
  'slot-lost',
  'slot-foreign',
  'stream-broken',
  'repository-missing',
  'repository-unreadable',
  'other-database',
  'other-repository',
]

/** The finding that makes a canary pointless, if there is one. */
export const obstacleTo = ({ findings }: CheckReport): Finding | undefined =>
  findings.find(({ code }) => obstacles.includes(code))

/**
 * Commits a message that only the stream carries, and waits until it can be read from the store, whole and with its hash
 * right. Where an agent is capturing, that is who stores it; where none is, it is captured here, as
 * `backup --incremental` would, which carries the chain on and takes nothing from it.
 */
export async function sendCanary(client: pg.Client, options: CanaryOptions): Promise<CanaryOutcome> {
  const over = AbortSignal.any([options.signal, AbortSignal.timeout(options.timeout_ms)])
  const timeout_s = options.timeout_ms / 1000
  const late = sleep(options.timeout_ms, options.signal).then(
    (): CanaryOutcome => ({ state: 'late', why: `it is not back from the store after ${timeout_s} s` }),
  )
  late.catch(() => undefined)
  const flight = fly(client, { ...options, signal: over })
  flight.catch(() => undefined)
  try {
    return await Promise.race([flight, late])
  } catch (error) {
    if (options.signal.aborted) throw error
    if (over.aborted) return await late
    return { state: 'failed', why: messageOf(error), hint: error instanceof WalbackError ? error.hint : undefined }
  }
}

async function fly(client: pg.Client, options: CanaryOptions): Promise<CanaryOutcome> {
  const { conninfo, repository, source, required, signal } = options
  const timeline = await requireTimeline(repository, source)
  const { end } = await readHead(repository, timeline, signal)
  const token = randomUUID()
  const isTaken = (await readSlot(client, timeline.slot))?.active === true
  const lsn = await emit(client, { v: 1, kind: 'canary', token })
  const begun = performance.now()
  if (!isTaken) {
    await captureUpToNow(conninfo, repository, source, { ...promptly, required, stop: signal }).catch(
      (error: unknown) => {
        // An agent has begun in this moment, and captures it.
        if (!(error instanceof WalbackError) || error.code !== 'locked') throw error
      },
    )
  }
  for (let start = end; ; ) {
    const found = await nextSegment(repository, segmentKey(source, timeline.id, start), start, signal)
    if (found.end > lsn && (await holds(repository, found, token, signal))) {
      const duration_ms = Math.round(performance.now() - begun)
      return { state: 'back', duration_ms, by: isTaken ? 'agent' : 'check', key: found.key }
    }
    start = found.end
  }
}

interface Found {
  readonly key: string
  readonly sha256: string
  readonly end: Lsn
}

async function nextSegment(repository: Repository, key: string, start: Lsn, signal: AbortSignal): Promise<Found> {
  for (;;) {
    const size_bytes = await repository.storage.size(key, { signal })
    if (size_bytes !== undefined)
      return await readSegment(repository, { key, start, size_bytes, parts_bytes: 0 }, signal)
    await sleep(look_ms, signal)
  }
}

/** Reads all of it, to its end: only then do its hashes hold. */
async function holds(
  repository: Repository,
  { key, sha256 }: Found,
  token: string,
  signal: AbortSignal,
): Promise<boolean> {
  let isThere = false
  for await (const part of readContainer(repository.storage, { key, sha256 }, signal))
    if (part.kind === 'block') isThere ||= part.raw.includes(token)
  return isThere
}

/** What `check` says of it; one that came back is no finding. */
export function canaryFindings(outcome: CanaryOutcome, object: string): Finding[] {
  switch (outcome.state) {
    case 'back':
    case 'skipped':
      return []
    case 'late':
      return [
        finding('canary', 'warning', `a transaction was sent through stream and store, and ${outcome.why}`, {
          object,
          hint: 'look at the log of the agent, and at slot-retention: is it far behind? or give it longer with --timeout',
        }),
      ]
    case 'failed':
      return [
        finding(
          'canary',
          'error',
          `a transaction that was sent through stream and store did not come back: ${outcome.why}`,
          {
            object,
            hint: outcome.hint ?? null,
          },
        ),
      ]
  }
}

const look_ms = 50
const promptly = { segmentBytes: 8 << 20, segmentAge_ms: 20, heartbeat_ms: 60_000 }
