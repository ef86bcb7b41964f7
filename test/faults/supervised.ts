import type { RequiredRepository } from '../../src/capture/capture.ts'
import { captureContinuously } from '../../src/capture/session.ts'
import { supervise } from '../../src/capture/supervise.ts'
import type { Conninfo } from '../../src/postgres/conninfo.ts'
import type { Repository } from '../../src/repository/repository.ts'

/** Small segments, often. */
export const stream = { segmentBytes: 64 << 10, segmentAge_ms: 50, heartbeat_ms: 500 }

/** Supervised capture into a repository whose store may misbehave, as the agent runs it. */
export function supervised(
  conninfo: Conninfo,
  repository: Repository,
  required: readonly RequiredRepository[] = [],
): { readonly retries: string[]; end(): Promise<void> } {
  const stop = new AbortController()
  const retries: string[] = []
  let since: number | undefined
  const running = supervise({
    stop: stop.signal,
    streamingSince: () => since,
    attempt: () => {
      since = undefined
      const onStart = (): void => {
        since = performance.now()
      }
      return captureContinuously(conninfo, repository, 'app', { ...stream, required, stop: stop.signal, onStart })
    },
    onRetry: (reason) => retries.push(reason),
  })
  running.catch(() => undefined)
  return {
    retries,
    end: async () => {
      stop.abort()
      await running
    },
  }
}
