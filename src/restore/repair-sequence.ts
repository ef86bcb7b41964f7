import { repairCommon, type Script } from './repair-script.ts'
import type { SequenceState } from './repair-state.ts'
import { createSequence, sequenceParameters } from './state-sql.ts'

/**
 * Makes a sequence what it should be; where it stands is not part of that. One of a column (`isOfColumn`) has been made
 * with it, and its table's owner.
 */
export function repairSequence(
  script: Script,
  want: SequenceState,
  have: SequenceState | undefined,
  options: { readonly isOfColumn: boolean },
): void {
  let current = have
  if (current === undefined) {
    if (!options.isOfColumn) {
      if (want.identityOf !== undefined) {
        script.cannot('it is not there; it comes with its identity column')
        return
      }
      script.add(createSequence(want))
    }
    const { acl, comment, labels, needs, extension, owner, ownedBy, ...made } = want
    current = options.isOfColumn ? { ...made, ownedBy } : made
  }
  if (current.type !== want.type) script.add(`ALTER ${want.target} AS ${want.type}`)
  if (sequenceParameters(current) !== sequenceParameters(want))
    script.add(`ALTER ${want.target} ${sequenceParameters(want)}`)
  if (current.unlogged !== want.unlogged && script.serverVersion >= 150_000)
    script.add(`ALTER ${want.target} SET ${want.unlogged ? 'UNLOGGED' : 'LOGGED'}`)
  // What goes with a column has its table's owner, and must have before it is given to the column.
  const isLinked = options.isOfColumn || want.identityOf !== undefined
  if (current.ownedBy !== want.ownedBy && current.ownedBy !== undefined && !isLinked)
    script.add(`ALTER ${want.target} OWNED BY NONE`)
  const goesAlong = isLinked || (current.ownedBy !== undefined && current.ownedBy === want.ownedBy)
  repairCommon(script, want, goesAlong ? { ...current, owner: want.owner } : current)
  if (current.ownedBy !== want.ownedBy && want.ownedBy !== undefined && !isLinked)
    script.add(`ALTER ${want.target} OWNED BY ${want.ownedBy}`)
}
