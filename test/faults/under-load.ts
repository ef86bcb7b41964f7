/** The scene of the kill tests: a refereed server with both loads on it, a base, and the agent beside it. */
import { sleep } from '../../src/base/abort.ts'
import type { BaseManifest } from '../../src/repository/base.ts'
import { type AgentProcess, type AgentSetting, startAgent } from '../support/agent-process.ts'
import { Random } from '../support/random.ts'
import { type PhysicalBase, type RefereedServer, startRefereed } from '../support/referee.ts'
import { openArchive, type TestArchive } from '../support/walback.ts'
import { createNasty, createPgbench, runNasty, runPgbench, type Sample } from '../support/workload.ts'
import { proveLatest, proveSamples, type SlotWatch, watchSlot } from './proof.ts'

export interface Scene {
  readonly source: RefereedServer
  readonly url: string
  readonly archive: TestArchive
  readonly random: Random
  readonly watch: SlotWatch
  agent(): AgentProcess
}

export interface Outcome {
  readonly samples: number
  readonly polls: number
  readonly positions: number
  readonly reconnects: number
}

/**
 * Sets the scene, lets `fault` happen under load, and proves the end: the source restored, and the drawn transactions.
 * `fault` leaves the server running and no agent behind.
 */
export async function underLoad(
  options: { readonly seed: number; readonly targets: number; readonly stream?: Partial<AgentSetting> },
  fault: (scene: Scene) => Promise<void>,
): Promise<Outcome> {
  await using source = await startRefereed({ settings: { max_prepared_transactions: '20' } })
  const url = source.server.url()
  await createNasty(url)
  await createPgbench(url, 0.05)
  await using archive = await openArchive(url)
  await using physical = await source.archive.baseBackup()
  const base = await archive.base()
  await archive.catchUp()
  const ending = new AbortController()
  const loads = [
    runNasty(url, { clients: 3, seed: options.seed, signal: ending.signal }),
    runPgbench(url, { clients: 3, seed: options.seed, signal: ending.signal }),
  ]
  for (const load of loads) load.catch(() => undefined)
  const watch = watchSlot(url, archive)
  const stream = { segmentBytes: 128 << 10, segmentAge_ms: 50, heartbeat_ms: 1000, ...options.stream }
  const agent = (): AgentProcess => startAgent({ url, repository: archive.folder, source: archive.source, ...stream })
  try {
    await fault({ source, url, archive, random: new Random(options.seed), watch, agent })
  } finally {
    ending.abort()
  }
  show('faults done')
  const reports = await Promise.all(loads)
  await watch.end()
  show('load ended')
  await archive.catchUp()
  show('caught up')
  await source.archive.flush()
  const samples = reports.flatMap((report) => report.samples)
  await prove({ archive, physical, base, samples, url, options })
  return {
    samples: samples.length,
    polls: watch.polls,
    positions: watch.seen.size,
    reconnects: reports.reduce((sum, report) => sum + report.reconnects, 0),
  }
}

async function prove(ended: {
  readonly archive: TestArchive
  readonly physical: PhysicalBase
  readonly base: BaseManifest
  readonly samples: readonly Sample[]
  readonly url: string
  readonly options: { readonly seed: number; readonly targets: number }
}): Promise<void> {
  const { archive, physical, base, samples, url, options } = ended
  await proveLatest(archive, url)
  show('latest proved')
  const random = new Random(options.seed + 1)
  await proveSamples(archive, physical, samples, { after: base.lsn, count: options.targets, random })
}

const show = (what: string): void => {
  if (process.env.WALBACK_SHOW) console.log(`${(performance.now() / 1000).toFixed(1)} s: ${what}`)
}

/** Somewhere in an agent's life: while it starts, while it streams, while it stores. */
export const aMoment = (random: Random): Promise<void> => sleep(random.int(0, 1500))
