import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** What a process holds, as far as the garbage collector knows of it, in bytes. */
export interface MemoryInUse {
  readonly heapUsed: number
  /** Memory of buffers, which is not on the heap. */
  readonly external: number
}

const mib = 1 << 20
const look_ms = 200
/** Below this nothing is done. */
const floor_bytes = 96 * mib
/** So much may come on top of what the last collection left. */
const growth_bytes = 48 * mib

/**
 * Decides when to collect: when more has come since the last collection than may wait, and not only because much is in
 * use, of which a collection would free nothing.
 */
export class CollectionRule {
  private threshold_bytes = floor_bytes

  isDue({ heapUsed, external }: MemoryInUse): boolean {
    return heapUsed + external > this.threshold_bytes
  }

  collected({ heapUsed, external }: MemoryInUse): void {
    this.threshold_bytes = Math.max(floor_bytes, heapUsed + external + growth_bytes)
  }
}

/**
 * Collects garbage before much of it has gathered. Most of what a stream leaves behind is buffers, whose memory is not on
 * the heap: the collector by itself lets a hundred megabytes and more of them wait, however soon they were let go.
 */
export function collectInTime(): Disposable {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const rule = new CollectionRule()
  const timer = setInterval(() => {
    if (!rule.isDue(process.memoryUsage())) return
    collect()
    rule.collected(process.memoryUsage())
  }, look_ms)
  timer.unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}
