import { sleep } from './abort.ts'

/**
 * Holds what passes through it to a rate, for all who share it together. What was not used is not saved up, so that a
 * pause is not followed by a burst.
 */
export class Throttle {
  private readonly bytes_per_ms: number
  private readonly now: () => number
  /** Until when what has passed takes, at the rate (monotonic, ms). */
  private busyUntil = 0

  /** `rate`: bytes a second. */
  constructor(rate: number, now: () => number = () => performance.now()) {
    this.bytes_per_ms = rate / 1000
    this.now = now
  }

  /** How long the caller, who has had so many bytes, is to wait before it takes more. */
  delay_ms(bytes: number): number {
    const now = this.now()
    this.busyUntil = Math.max(this.busyUntil, now) + bytes / this.bytes_per_ms
    return this.busyUntil - now
  }

  async pass(bytes: number, signal?: AbortSignal): Promise<void> {
    // In steps, since a timer of Node's takes no more than 2^31 ms.
    for (let left = this.delay_ms(bytes); left > 0; left -= longestSleep_ms) {
      await sleep(Math.min(left, longestSleep_ms), signal)
    }
  }
}

const longestSleep_ms = 3_600_000
