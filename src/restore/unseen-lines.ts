import { formatLsn, type Lsn } from '../model/lsn.ts'
import type { RecoveryTarget } from '../model/target.ts'
import { formatTime } from '../model/time.ts'
import type { Place, UnseenChange } from '../repository/unseen-changes.ts'
import type { Cut } from './target.ts'

/**
 * What a plan says of changes since its base of which the stream does not tell, each in a line; of those
 * that the target may come after. (Those that are told, but not followed, have lines of their own.)
 */
export function unseenLines(changes: readonly UnseenChange[], target: RecoveryTarget, cut: Cut): string[] {
  const past = changes.filter(({ kind, from }) => kind !== 'unsure' && isAfter(target, cut, from))
  const lines = past.slice(0, shown).map(({ kind, from, to }) => {
    const between = `between ${inWords(from)} and ${inWords(to)}`
    if (kind === 'unpublished')
      return `ROWS MAY BE MISSING: a publication of walback's was altered ${between}, and what it left out until it was altered back is not in the stream; the base is older`
    const what = isAfter(target, cut, to)
      ? `UNSEEN CHANGE of the schema ${between}`
      : `PERHAPS AN UNSEEN CHANGE of the schema: one was made ${between}, and the target lies between`
    return `${what}: it is not in the stream, and the base is older; tables that it made are missing, and rows of tables that it altered are refused`
  })
  const more = past.length - lines.length
  return more > 0
    ? [...lines, `${more} more such changes, the last by ${inWords((past.at(-1) as UnseenChange).to)}`]
    : lines
}

/** Whether the target comes after a place. A cut lies anywhere between the last that is kept and the first left out. */
function isAfter(target: RecoveryTarget, cut: Cut, { lsn, time }: Place): boolean {
  if (target.kind === 'time') return target.time >= time
  const namesLastKept = target.kind === 'mark' || (target.kind === 'tx' && target.inclusive)
  const reach: Lsn = namesLastKept ? (cut.lastEnd ?? cut.position) : cut.position
  return reach > lsn
}

const inWords = ({ lsn, time }: Place): string => `${formatTime(time)} (${formatLsn(lsn)})`

const shown = 5
