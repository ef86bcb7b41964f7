import type { ObjectAddress, TouchedObject } from '../model/ddl-message.ts'
import type { CommandInput } from '../postgres/ddl-statement.ts'

/** An object to compare; a state of null: it must not be there. */
export interface Wanted {
  readonly class: string
  readonly oid: number
  /** Of this part of the command. */
  readonly tag: string
  readonly type: string
  readonly schema: string | null
  readonly identity: string
  readonly address: ObjectAddress
  readonly state: TouchedObject['state']
}

/** What a command made, changed and dropped, as it has to be after it. */
export function wantedObjects(command: CommandInput): Wanted[] {
  const wanted = new Map<string, Wanted>()
  const { tag } = command
  // DROP OWNED is not run: what went by CASCADE has to be named too, and comes after that on which it depended.
  const isOwned = tag === 'DROP OWNED'
  for (const object of isOwned ? command.dropped.toReversed() : command.dropped) {
    const { class: catalog, oid, type, schema, identity, address, original, cascaded, sub } = object
    const isNamed = original || (isOwned && cascaded)
    if (!isNamed || sub !== 0 || address === null) continue
    wanted.set(`${catalog} ${identity}`, { class: catalog, oid, tag, type, schema, identity, address, state: null })
  }
  for (const object of command.objects) {
    const { class: catalog, oid, type, schema, identity, address, state, extension } = object
    if (state === null || address === null || identity === null || extension) continue
    // Something of the same name may have been dropped by the same command.
    wanted.delete(`${catalog} ${identity}`)
    wanted.set(`${catalog} ${oid}`, {
      class: catalog,
      oid,
      tag: object.tag,
      type,
      schema,
      identity,
      address: wholeRelation(address),
      state,
    })
  }
  return [...wanted.values()]
}

/** The address of a column's relation, for a column. */
export const wholeRelation = (address: ObjectAddress): ObjectAddress =>
  / column$/.test(address.type)
    ? { ...address, type: address.type.replace(/ column$/, ''), names: address.names.slice(0, -1) }
    : address
