import { WalbackError } from '../base/errors.ts'
import type { Holdings } from '../history/status.ts'
import { lsn } from '../model/lsn.ts'
import type { RecoveryTarget } from '../model/target.ts'

/**
 * A position somewhere in what can be restored, each byte of the log as likely as any other: what matters is that over
 * time all of it comes to be tried, and not the newest only. `random`: from 0 up to and without 1.
 */
export function randomTarget({ windows }: Pick<Holdings, 'windows'>, random: () => number): RecoveryTarget {
  const spans = windows.map(({ from, to }) => to.lsn - from.lsn + 1n)
  const whole = spans.reduce((sum, span) => sum + span, 0n)
  if (whole === 0n)
    throw new WalbackError('outside_window', 'nothing can be restored yet', {
      hint: 'take a base with `walback backup --full`, and let the agent run',
    })
  let place = scaled(whole, random())
  for (const [index, span] of spans.entries()) {
    const window = windows[index]
    if (window !== undefined && place < span) return { kind: 'lsn', lsn: lsn(window.from.lsn + place) }
    place -= span
  }
  throw new Error('unreachable (a bug in walback): a random number of 1 or more')
}

/** In steps of a millionth: positions of a log have more digits than a number. */
const scaled = (whole: bigint, share: number): bigint => (whole * BigInt(Math.floor(share * 1e6))) / 1_000_000n
