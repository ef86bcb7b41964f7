/** What every fault test ends with: nothing was confirmed that was not stored, and what is stored is the source. */
import pg from 'pg'
import { expect } from 'vitest'
import { sleep } from '../../src/base/abort.ts'
import { formatLsn, type Lsn, parseLsn } from '../../src/model/lsn.ts'
import type { Repository } from '../../src/repository/repository.ts'
import type { SegmentSummary, TransactionEntry } from '../../src/repository/segment-format.ts'
import { listSegments, readSegment, readSoundHead } from '../../src/repository/segments.ts'
import { currentTimeline, readTimelines, type Timeline } from '../../src/repository/timeline.ts'
import { isAbsent } from '../../src/storage/storage.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import type { Random } from '../support/random.ts'
import { type PhysicalBase, recoverTo } from '../support/referee.ts'
import { ourObjects, type TestArchive } from '../support/walback.ts'
import type { Sample } from '../support/workload.ts'

export async function withClient<T>(url: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url, application_name: 'test' })
  client.on('error', () => undefined)
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end()
  }
}

export async function sql<Row extends Record<string, unknown>>(url: string, text: string): Promise<Row[]> {
  return withClient(url, async (client) => (await client.query<Row>(text)).rows)
}

export interface SlotWatch {
  /** Positions seen, each of which the repository held. */
  readonly seen: ReadonlySet<string>
  readonly polls: number
  /** Ends it, and throws if a position was ever confirmed that the repository did not hold. */
  end(): Promise<void>
}

/**
 * Where the archive ends, also while a store cuts objects short that the writer then removes. Undefined if it removed one
 * between our listing and our reading.
 */
async function storedEnd(repository: Repository, timeline: Timeline): Promise<Lsn | undefined> {
  try {
    return (await readSoundHead(repository, timeline)).head.end
  } catch (error) {
    if (isAbsent(error)) return undefined
    throw error
  }
}

/** Asks all the while what the slot has been told, and then what the repository holds: the first is never ahead. */
export function watchSlot(url: string, archive: TestArchive, every_ms = 15): SlotWatch {
  const stop = new AbortController()
  const seen = new Set<string>()
  let polls = 0
  let client: pg.Client | undefined
  const ask = async (): Promise<string | undefined> => {
    try {
      if (client === undefined) {
        const made = new pg.Client({ connectionString: url, application_name: 'slot watch' })
        made.on('error', () => undefined)
        await made.connect()
        client = made
      }
      const { rows } = await client.query<{ lsn: string | null }>(
        `SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = 'walback_${archive.source}'`,
      )
      return rows[0]?.lsn ?? undefined
    } catch {
      // The server is away; the next poll connects anew.
      void client?.end().catch(() => undefined)
      client = undefined
      return undefined
    }
  }
  const work = (async () => {
    while (!stop.signal.aborted) {
      const confirmed = await ask()
      const timeline = await currentTimeline(archive.repository, archive.source)
      if (confirmed !== undefined && timeline !== undefined) {
        const end = await storedEnd(archive.repository, timeline)
        if (end !== undefined) {
          if (parseLsn(confirmed) > end) throw new Error(`confirmed ${confirmed}, stored ${formatLsn(end)}`)
          seen.add(confirmed)
          polls++
        }
      }
      await sleep(every_ms)
    }
  })()
  work.catch(() => undefined)
  return {
    seen,
    get polls() {
      return polls
    },
    end: async () => {
      stop.abort()
      await work
      await client?.end().catch(() => undefined)
    },
  }
}

/** All segments of the current timeline, of which each begins where the one before ends, and all transactions in order. */
export async function chainOf(archive: TestArchive): Promise<SegmentSummary[]> {
  const timeline = await currentTimeline(archive.repository, archive.source)
  if (timeline === undefined) throw new Error('no timeline')
  const segments: SegmentSummary[] = []
  let end = parseLsn(timeline.start)
  for (const stored of await listSegments(archive.repository, timeline)) {
    const segment = await readSegment(archive.repository, stored)
    expect(formatLsn(segment.start)).toBe(formatLsn(end))
    for (const entry of segment.trailer.transactions) {
      expect(parseLsn(entry.commit)).toBeGreaterThanOrEqual(end)
      end = parseLsn(entry.end)
    }
    expect(segment.end).toBeGreaterThanOrEqual(end)
    end = segment.end
    segments.push(segment)
  }
  return segments
}

export const transactionsOf = async (archive: TestArchive): Promise<TransactionEntry[]> =>
  (await chainOf(archive)).flatMap(({ trailer }) => trailer.transactions)

/** The chain is whole, on one timeline, and its latest state is the source's. */
export async function proveLatest(archive: TestArchive, url: string): Promise<void> {
  const timelines = await readTimelines(archive.repository, archive.source)
  expect(timelines.map(({ id }) => id)).toEqual(['00000001'])
  await chainOf(archive)
  const golden = await fingerprint(url)
  await archive.restored({ kind: 'latest' }, async (restored) => {
    expect(differences(golden, await fingerprint(restored), ourObjects)).toEqual([])
  })
}

/** Restores to transactions drawn from the samples equal PostgreSQL's own recovery to them. */
export async function proveSamples(
  archive: TestArchive,
  physical: PhysicalBase,
  samples: readonly Sample[],
  draw: { readonly after: string; readonly count: number; readonly random: Random },
): Promise<void> {
  const captured = new Set((await transactionsOf(archive)).map((entry) => entry.xid))
  const known = samples.filter(
    (sample) => captured.has(sample.xid) && parseLsn(sample.commitLsnAfter) > parseLsn(draw.after),
  )
  expect(known.length).toBeGreaterThan(0)
  for (let n = 0; n < draw.count; n++) {
    const { xid } = draw.random.pick(known)
    const inclusive = n % 2 === 0
    const golden = await recoverTo(physical, { xid, inclusive }, (at) => fingerprint(at('postgres')))
    const found = await archive.restored({ kind: 'tx', xid: BigInt(xid), inclusive }, async (restored) =>
      differences(golden, await fingerprint(restored), ourObjects),
    )
    expect({ xid, inclusive, found }).toEqual({ xid, inclusive, found: [] })
  }
}
