/** The fault loop: rounds of faults under load on one server, each of which ends with a proof of everything. */
import { expect } from 'vitest'
import { sleep, waitFor } from '../../src/base/abort.ts'
import type { BaseManifest } from '../../src/repository/base.ts'
import { Random } from '../support/random.ts'
import { type RefereedServer, startRefereed } from '../support/referee.ts'
import { openArchive, type TestArchive } from '../support/walback.ts'
import { createNasty, createPgbench, runNasty, runPgbench } from '../support/workload.ts'
import { CuttingProxy } from './cutting-proxy.ts'
import { Injector } from './injector.ts'
import { proveLatest, proveSamples, sql, watchSlot } from './proof.ts'
import { describeRound, drawRound, type Round } from './round.ts'

/** After so many rounds the archive is long, and begun anew on a server of its own. */
const roundsPerScene = 8

/** Runs rounds with the seeds `seed`, `seed + 1`, ...; each alone can be run again by its own. */
export async function faultLoop(options: { seed: number; rounds: number; targets: number }): Promise<void> {
  const until = options.seed + options.rounds
  for (let first = options.seed; first < until; first += roundsPerScene) {
    await using scene = await setScene()
    for (let seed = first; seed < Math.min(first + roundsPerScene, until); seed++) {
      const round = drawRound(seed)
      console.log(describeRound(round))
      const begun = performance.now()
      try {
        const said = await runRound(scene, round, options.targets)
        console.log(`round ${seed}: proved, ${seconds(begun)}, ${said}`)
      } catch (error) {
        throw new Error(`round ${seed} (WALBACK_SEED=${seed}; its server began with round ${first})`, { cause: error })
      }
    }
  }
}

interface LoopScene extends AsyncDisposable {
  readonly source: RefereedServer
  readonly archive: TestArchive
  readonly base: BaseManifest
  readonly proxy: CuttingProxy
}

async function setScene(): Promise<LoopScene> {
  const source = await startRefereed({
    // The server gives a walsender that hears nothing up while the round lasts.
    settings: { max_prepared_transactions: '20', wal_sender_timeout: '3s' },
  })
  try {
    const url = source.server.url()
    await createNasty(url)
    await createPgbench(url, 0.05)
    const archive = await openArchive(url)
    const base = await archive.base()
    await archive.catchUp()
    const proxy = await CuttingProxy.listen(source.server.port)
    return {
      source,
      archive,
      base,
      proxy,
      [Symbol.asyncDispose]: async () => {
        await proxy[Symbol.asyncDispose]()
        await archive[Symbol.asyncDispose]()
        await source[Symbol.asyncDispose]()
      },
    }
  } catch (error) {
    await source[Symbol.asyncDispose]()
    throw error
  }
}

async function runRound({ source, archive, base, proxy }: LoopScene, round: Round, targets: number): Promise<string> {
  const url = source.server.url()
  await using physical = await source.archive.baseBackup()
  const ending = new AbortController()
  const load = { clients: 3, seed: round.seed, signal: ending.signal }
  const loads = [runNasty(url, load), runPgbench(url, load)]
  for (const running of loads) running.catch(() => undefined)
  const watch = watchSlot(url, archive, 30)
  const injector = new Injector({ server: source.server, archive, proxy })
  try {
    await injector.begin(round)
    for (const { streams, wait_ms, injection } of round.steps) {
      if (streams) await injector.stored(8000)
      await sleep(wait_ms)
      await injector.inject(injection)
    }
    await injector.end(round)
  } finally {
    ending.abort()
    await injector[Symbol.asyncDispose]()
  }
  const samples = (await Promise.all(loads)).flatMap((report) => report.samples)
  await watch.end()
  const faults_ms = performance.now()
  await slotIsFree(url)
  await archive.catchUp()
  await source.archive.flush()
  await proveLatest(archive, url)
  const random = new Random(round.seed + 1)
  await proveSamples(archive, physical, samples, { after: base.lsn, count: targets, random })
  return `${samples.length} samples, ${watch.seen.size} positions, proof ${seconds(faults_ms)}, ${injector.said.join(', ')}`
}

/** The server may take its time to see that a reader is gone. */
async function slotIsFree(url: string): Promise<void> {
  const probe = async (): Promise<true | undefined> => {
    const [slot] = await sql<{ active: boolean }>(url, 'select active from pg_replication_slots')
    return slot?.active === false || undefined
  }
  expect(await waitFor(probe, { timeout_ms: 60_000, interval_ms: 50 })).toBe(true)
}

const seconds = (since_ms: number): string => `${((performance.now() - since_ms) / 1000).toFixed(1)} s`
