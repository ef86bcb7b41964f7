import pino from 'pino'
import { expect, test } from 'vitest'
import { Events } from '../../agent/events.ts'
import { pruneRegularly } from '../../agent/pruner.ts'
import { waitFor } from '../../src/base/abort.ts'
import { copySource } from '../../src/copy/copy.ts'
import { openTarget } from '../../src/copy/target.ts'
import type { WalbackEvent } from '../../src/model/event.ts'
import { readManifests } from '../../src/repository/base.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'
import { MadeArchive } from '../retention/made-archive.ts'

test('the agent prunes nothing before a required repository has what takes its place', async () => {
  const archive = await MadeArchive.begin()
  for (let n = 0; n < 3; n++) {
    await archive.base()
    await archive.segment({ commits: 2, hours: 4, heartbeat: 0 })
  }
  const [{ repository }, far, told, stop] = [archive, new MemoryStorage(), [] as WalbackEvent[], new AbortController()]
  const log = pino({ level: 'silent' })
  const pruning = pruneRegularly({
    repository,
    source: 'app',
    policy: { last: 1 },
    every_ms: 20,
    required: [far],
    log,
    events: new Events('app', log, (event) => told.push(event)),
    signal: stop.signal,
  })
  const heard = (kind: string) =>
    waitFor(async () => told.find((one) => one.kind === kind), { timeout_ms: 60_000, interval_ms: 5 })
  expect(await heard('prune-failed')).toMatchObject({ message: expect.stringContaining('every required repository') })
  expect(await readManifests(repository, 'app')).toHaveLength(3)
  // A copy and a prune of what it reads go side by side.
  await copySource(repository, await openTarget(repository, far), 'app')
  const isDone = async () => (await readManifests(repository, 'app')).length === 1 || undefined
  expect(await waitFor(isDone, { timeout_ms: 60_000, interval_ms: 5 })).toBe(true)
  expect(await heard('pruned')).toMatchObject({ severity: 'info' })
  stop.abort()
  await pruning
})
