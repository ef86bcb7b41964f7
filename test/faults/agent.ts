/** The agent as a program of its own, so that it can be killed. Its one argument is an AgentSetting as JSON. */
import pino from 'pino'
import { runAgent } from '../../agent/agent.ts'
import { WalbackError } from '../../src/base/errors.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { Repository } from '../../src/repository/repository.ts'
import { openStorage } from '../../src/storage/open.ts'
import type { AgentSetting } from '../support/agent-process.ts'
import { StallingStorage } from '../support/faults.ts'
import { FlakyStorage } from '../support/flaky.ts'

const setting = JSON.parse(process.argv[2] ?? '') as AgentSetting
const stop = new AbortController()
process.on('SIGTERM', () => stop.abort(new WalbackError('interrupted', 'interrupted')))
// The test's end of this pipe closes with the test, however that ends.
process.stdin.on('end', () => process.exit(99)).resume()

const { url, repository, required, source, memory_ms, storeFaults, backup = {}, compact, ...stream } = setting
const log = pino({ level: 'debug', base: null }, pino.destination({ fd: 1, sync: true }))
// SIGUSR2 stalls the store, and lets it work again; SIGHUP mends one that flaps.
const flaky = new FlakyStorage(openStorage(repository), storeFaults ?? { seed: 0, rate: 0, stall_ms: 0 })
const store = new StallingStorage(flaky)
const far = required === undefined ? undefined : new StallingStorage(openStorage(required))
const stalling = far ?? store
process.on('SIGHUP', () => flaky.mend())
process.on('SIGUSR2', () => {
  const isStalled = stalling.mode !== 'well'
  if (isStalled) stalling.release()
  else stalling.mode = 'hang'
  log.info(isStalled ? 'working' : 'stalled')
})
if (memory_ms !== undefined)
  setInterval(() => log.debug({ rss_bytes: process.memoryUsage.rss() }, 'memory'), memory_ms).unref()
try {
  await runAgent({
    conninfo: resolveConninfo(url, {}),
    repository: await Repository.open(store),
    required: far === undefined ? [] : [far],
    source,
    stream,
    backup,
    compact: compact && {
      settings: compact,
      place: { url: repository, env: {}, access: undefined },
      niceness: compact.niceness,
    },
    log,
    signal: stop.signal,
  })
} catch (error) {
  log.fatal({ err: error, code: error instanceof WalbackError ? error.code : 'unexpected' }, 'agent failed')
  process.exitCode = error instanceof WalbackError ? error.exit : 70
} finally {
  // Whatever else were still to happen in this process would keep it alive; the pipe must not be what does.
  process.stdin.destroy()
}
