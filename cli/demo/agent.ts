/** The agent of the demo, which runs in this process, so that it cannot outlive it. */
import { appendFileSync } from 'node:fs'
import path from 'node:path'
import pino from 'pino'
import { runAgent } from '../../agent/agent.ts'
import { loadConfig, resolveSettings } from '../../src/config.ts'
import { type Lsn, openStorage, Repository, readHoldings, sleep, WalbackError } from '../../src/index.ts'

/** The agent stores what it has every five seconds; this is for a machine that hardly moves. */
const archiveWithin_ms = 60_000
const lookEvery_ms = 200

export interface RunningAgent extends AsyncDisposable {
  /** Waits until everything that was committed before a position is in the repository. */
  reach(lsn: Lsn, signal: AbortSignal): Promise<void>
}

/** What `walback agent` does in this folder, with its log in `agent.log`; `fail` hears of its breakdown. */
export async function startAgent(folder: string, fail: (error: unknown) => void): Promise<RunningAgent> {
  const config = await loadConfig({ file: path.join(folder, 'walback.yaml'), env: {}, cwd: folder })
  const { source, conninfo, repositories, stream } = resolveSettings({}, config, {})
  if (source === undefined || conninfo === undefined || repositories?.[0] === undefined)
    throw new WalbackError('failed', `${config?.file} does not name one source, its database and its repository`)
  const repository = await Repository.open(openStorage(repositories[0].url))
  const stop = new AbortController()
  const log = pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime }, toFile(path.join(folder, 'agent.log')))
  const running = runAgent({ conninfo, repository, source, stream, log, signal: stop.signal }).catch(fail)
  return {
    async reach(lsn, signal) {
      const deadline = performance.now() + archiveWithin_ms
      for (;;) {
        const { end } = await readHoldings(repository, source, signal)
        if (end !== undefined && end.lsn >= lsn) return
        if (performance.now() > deadline) {
          throw new WalbackError('failed', 'the agent does not keep up', { hint: `it says why in ${folder}/agent.log` })
        }
        await sleep(lookEvery_ms, signal)
      }
    },
    async [Symbol.asyncDispose]() {
      stop.abort()
      await running
    },
  }
}

const toFile = (file: string): pino.DestinationStream => ({ write: (line) => appendFileSync(file, line) })
