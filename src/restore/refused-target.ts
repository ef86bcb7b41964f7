/** Why a target cannot be had, and which are the nearest that can. */

import { WalbackError } from '../base/errors.ts'
import { formatLsn, type Lsn } from '../model/lsn.ts'
import type { RecoveryTarget } from '../model/target.ts'
import { formatTime, type Micros } from '../model/time.ts'
import type { Cut, Outside } from './target.ts'

/** What can be restored of one timeline. */
export interface Window {
  readonly from: { readonly lsn: Lsn; readonly time: Micros }
  readonly to: { readonly lsn: Lsn; readonly time: Micros }
  readonly isAfterPruned: boolean
}

/** What a search did not find, in a run of segments. */
export interface Miss {
  readonly cut: Cut | Outside
  readonly window: Window | undefined
}

export function refusal(target: RecoveryTarget, misses: readonly Miss[], bases: number): WalbackError {
  const windows = misses.flatMap(({ window }) => (window ? [window] : [])).toReversed()
  const facts = {
    windows: windows.map(({ from, to }) => ({
      from: { lsn: formatLsn(from.lsn), time: formatTime(from.time) },
      to: { lsn: formatLsn(to.lsn), time: formatTime(to.time) },
    })),
  }
  if (windows.length === 0) {
    return new WalbackError(
      'outside_window',
      bases === 0 ? 'there is no base backup to restore from' : 'the stream has not reached the base backup yet',
      {
        hint:
          bases === 0
            ? 'take one with `walback backup --full`'
            : 'let the agent run, or run `walback backup --incremental`',
        facts,
      },
    )
  }
  const shown = windows.map(
    ({ from, to }) =>
      `${formatTime(from.time)} (${formatLsn(from.lsn)}) to ${formatTime(to.time)} (${formatLsn(to.lsn)})`,
  )
  const restorable = `restorable: ${shown.join('; ')}`
  const outside = (message: string, nearest: string): WalbackError =>
    new WalbackError('outside_window', message, { hint: `${restorable}\n${nearest}`, facts })
  const gap = gapAround(target, windows)
  if (gap) {
    const { to } = gap.before
    const { from } = gap.after
    const where = gap.after.isAfterPruned ? 'in what `walback prune` has removed' : 'in a gap of the archive'
    return new WalbackError(
      gap.after.isAfterPruned ? 'outside_window' : 'gap',
      `the target lies ${where}, between ${formatTime(to.time)} (${formatLsn(to.lsn)}) and ${formatTime(from.time)} (${formatLsn(from.lsn)})`,
      {
        hint: `${restorable}\nnearest: --to-lsn ${formatLsn(to.lsn)} before it, --to-lsn ${formatLsn(from.lsn)} after it`,
        facts,
      },
    )
  }
  const behind = behindHole(misses, windows)
  if (behind) {
    const { time, lsn } = behind.to
    return new WalbackError(
      'gap',
      `segments between the last base backup before the target and the target are missing, after ${formatTime(time)} (${formatLsn(lsn)})`,
      {
        hint: `${restorable}\nbring them back from another copy (\`walback verify\` names them), or take the nearest before them: --to-lsn ${formatLsn(lsn)}`,
        facts,
      },
    )
  }
  const first = windows[0] as Window
  const newest = misses[0]?.cut
  const isFound = misses.some(({ cut }) => cut.kind === 'cut')
  const isBefore =
    (target.kind === 'time' && target.time < first.from.time) || (target.kind === 'lsn' && target.lsn < first.from.lsn)
  if (isBefore || isFound || newest?.kind !== 'outside') {
    return outside(
      'the target lies before the first base backup',
      `nearest: --to-lsn ${formatLsn(first.from.lsn)}, which is ${formatTime(first.from.time)}`,
    )
  }
  const unknown = newest.why === 'unknown'
  return outside(
    newest.message,
    unknown
      ? '`walback log` shows transactions, `walback status` marks; what is a moment old may not be stored yet, and what was rolled back never is'
      : `nearest: --to latest, which is ${formatTime((windows.at(-1) as Window).to.time)}`,
  )
}

/** The window that ends at the hole behind which a target was found, with no base between the two. */
function behindHole(misses: readonly Miss[], windows: readonly Window[]): Window | undefined {
  for (const { cut } of misses) {
    if (cut.kind !== 'cut') continue
    const before = windows.findLast(({ to }) => to.lsn < cut.position)
    if (before !== undefined) return before
  }
  return undefined
}

/** The windows on both sides of a target that falls between two of them. */
function gapAround(target: RecoveryTarget, windows: readonly Window[]): { before: Window; after: Window } | undefined {
  for (let n = 1; n < windows.length; n++) {
    const [before, after] = [windows[n - 1] as Window, windows[n] as Window]
    const inside =
      target.kind === 'time'
        ? target.time > before.to.time && target.time < after.from.time
        : target.kind === 'lsn' && target.lsn > before.to.lsn && target.lsn < after.from.lsn
    if (inside) return { before, after }
  }
  return undefined
}
