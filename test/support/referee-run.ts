/**
 * The referee's run: load through base and capture, then restores to targets drawn from it, each compared with
 * PostgreSQL's own physical recovery to the same target.
 */

import { parseLsn } from '../../src/model/lsn.ts'
import type { RecoveryTarget } from '../../src/model/target.ts'
import { parseTime } from '../../src/model/time.ts'
import { differences, fingerprint } from './fingerprint.ts'
import { Random } from './random.ts'
import { type PhysicalTarget, recoverTo, startRefereed } from './referee.ts'
import { openArchive, ourObjects } from './walback.ts'
import { createNasty, createPgbench, runNasty, runPgbench, type Sample } from './workload.ts'

export interface RefereeRun {
  readonly package: string
  readonly seed: number
  /** How long load runs before the base, and after it. */
  readonly before_ms: number
  readonly after_ms: number
  readonly targets: number
  readonly pgbenchClients: number
  readonly nastyClients: number
  readonly scale: number
  /** Memory for net changes; small, so that later rounds are exercised too. */
  readonly memory_bytes?: number
  /** Another program in the place of the driver that imitates pgbench, on the same tables. */
  readonly program?: (url: string, signal: AbortSignal) => Promise<void>
  readonly onTarget?: (line: string) => void
}

export interface RefereeResult {
  readonly transactions: number
  readonly compared: readonly string[]
  readonly wrong: readonly { readonly target: string; readonly differences: readonly string[] }[]
}

interface Pair {
  readonly name: string
  readonly ours: RecoveryTarget
  readonly physical: PhysicalTarget
}

export async function refereeRun(run: RefereeRun): Promise<RefereeResult> {
  await using source = await startRefereed({ package: run.package, settings: { max_prepared_transactions: '20' } })
  const url = source.server.url()
  await createNasty(url)
  await createPgbench(url, run.scale)
  await using archive = await openArchive(url)
  await using physical = await source.archive.baseBackup()
  const stopCapture = archive.capture()
  const ending = new AbortController()
  const loads = [
    runNasty(url, { clients: run.nastyClients, seed: run.seed, signal: ending.signal }),
    run.program
      ? run.program(url, ending.signal).then(() => undefined)
      : runPgbench(url, { clients: run.pgbenchClients, seed: run.seed, signal: ending.signal }),
  ]
  await new Promise((resolve) => setTimeout(resolve, run.before_ms))
  const base = await archive.base()
  await new Promise((resolve) => setTimeout(resolve, run.after_ms))
  ending.abort()
  const [nasty, pgbench] = await Promise.all(loads)
  await archive.catchUpAfter(stopCapture)
  await source.archive.flush()
  const samples = [...(nasty?.samples ?? []), ...(pgbench?.samples ?? [])].filter(
    (sample) => parseLsn(sample.commitLsnAfter) > parseLsn(base.lsn),
  )
  const captured = new Set((await archive.history()).transactions.map((entry) => entry.xid))
  const compared: string[] = []
  const wrong: { target: string; differences: string[] }[] = []
  for (const pair of drawTargets(samples, captured, run)) {
    const golden = await recoverTo(physical, pair.physical, (at) => fingerprint(at('postgres')))
    const found = await archive.restored(
      pair.ours,
      async (restored) => differences(golden, await fingerprint(restored), ourObjects),
      run.memory_bytes,
    )
    compared.push(pair.name)
    if (found.length > 0) wrong.push({ target: pair.name, differences: found })
    run.onTarget?.(`${pair.name}: ${found.length === 0 ? 'equal' : found.join('\n  ')}`)
  }
  return { transactions: captured.size, compared, wrong }
}

function drawTargets(samples: readonly Sample[], captured: ReadonlySet<string>, run: RefereeRun): Pair[] {
  const random = new Random(run.seed)
  // A transaction without a change in a table is not in the stream (from 15 on), so it is no target by its id.
  const known = samples.filter((sample) => captured.has(sample.xid))
  return Array.from({ length: run.targets }, (_, n): Pair => {
    const sample = random.pick(n % 4 < 2 ? samples : known)
    if (n % 4 === 0)
      return {
        name: `lsn ${sample.commitLsnAfter}`,
        ours: { kind: 'lsn', lsn: parseLsn(sample.commitLsnAfter) },
        physical: { lsn: sample.commitLsnAfter },
      }
    if (n % 4 === 1) {
      const time = parseTime(sample.timeAfter, { zone: 'UTC' }).time
      return { name: `time ${sample.timeAfter}`, ours: { kind: 'time', time }, physical: { time: sample.timeAfter } }
    }
    const inclusive = n % 4 === 2
    return {
      name: `xid ${sample.xid} ${inclusive ? 'inclusive' : 'exclusive'}`,
      ours: { kind: 'tx', xid: BigInt(sample.xid), inclusive },
      physical: { xid: sample.xid, inclusive },
    }
  })
}
