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
  const isOwned = options.isOfColumn || want.ownedBy !== undefined || want.identityOf !== undefined
  let current = have
  if (current === undefined) {
    if (!options.isOfColumn) {
      if (want.identityOf !== undefined) return script.cannot('it is not there; it comes with its identity column')
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
  const owner = isOwned ? want.owner : current.owner
  if (!isOwned) repairCommon(script, want, { ...current, owner })
  if (current.ownedBy !== want.ownedBy && !options.isOfColumn)
    script.add(`ALTER ${want.target} OWNED BY ${want.ownedBy ?? 'NONE'}`)
  if (isOwned) repairCommon(script, want, { ...current, owner })
}
