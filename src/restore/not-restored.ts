import { fullXid, isVisible, parseSnapshot } from '../model/snapshot.ts'
import { formatTime, micros } from '../model/time.ts'
import type { BaseManifest } from '../repository/base.ts'
import type { DdlEntry } from '../repository/segment-format.ts'
import type { Timeline } from '../repository/timeline.ts'

/** A change of the schema whose effect is not, or not fully, in the stream, or that a target must be able to make. */
export interface DdlOfNote extends DdlEntry {
  readonly xid: string
}

/**
 * What a restore cannot bring back, each in a line; only what applies to this database. `ddl`: up to the target, of
 * which the base may hold some.
 */
export function notRestored(base: BaseManifest, timeline: Timeline, ddl: readonly DdlOfNote[]): string[] {
  const { notCarried } = base
  const since = sinceFull(base)
  const snapshot = parseSnapshot(base.snapshot)
  return [
    ...unsureLines(ddl.filter(({ xid, unsure }) => unsure !== undefined && !isVisible(fullXid(BigInt(xid)), snapshot))),
    ...schemaLines(base, timeline),
    ...unlessNone(notCarried?.unlogged.map(named), (names) => `changes ${since} of unlogged tables: ${names}`),
    ...unlessNone(base.unpublished?.map(named), (names) => `changes ${since} of tables not published: ${names}`),
    ...(base.largeObjects.objects.length > 0 ? [`changes of large objects ${since}`] : []),
    ...unlessNone(notCarried?.subscriptions, (names) => `subscriptions: ${names}`),
    ...unlessNone(
      notCarried?.tablespaces,
      (names) => `tablespaces: the target needs to have those that objects lie in: ${names}`,
    ),
    ...(base.roles.length > 1 ? ['passwords of roles'] : []),
    ...(notCarried === undefined ? ['changes of unlogged tables since the base, and subscriptions, if there are'] : []),
  ]
}

/** From when on what the stream does not carry is missing: a base that was made off the source knows no more of it. */
const sinceFull = ({ compacted }: BaseManifest): string =>
  compacted === undefined
    ? 'since the base'
    : `since base ${compacted.full.id} of ${formatTime(micros(BigInt(compacted.full.time)))}`

/** Where the base has no stamp of the catalogs, nobody knows whether the schema has changed since. */
function schemaLines(base: BaseManifest, { ddl, allTables, insertsOnly }: Timeline): string[] {
  const isUnknown = ddl === 'none' && base.catalog === undefined
  const without = ['changes of the schema since the base: rows of tables that were altered are refused, others missing']
  const unpublished = ['tables made since the base: the publication is a list of those that there were']
  return [
    ...(isUnknown ? without : []),
    ...(isUnknown && !allTables ? unpublished : []),
    ...unlessNone(
      insertsOnly.map(named),
      (names) => `updates and deletes ${sinceFull(base)}, for want of a key: ${names}`,
    ),
  ]
}

function unsureLines(unsure: readonly DdlOfNote[]): string[] {
  const lines = unsure.slice(0, shown).map(({ tag, object, unsure: what, xid }) => {
    const command = `${tag} in tx:${xid}`
    return what === 'rows'
      ? `rows of ${object ?? 'a table'} as ${command} left them: its values are not in the stream`
      : `what ${command} did${object === null ? '' : ` to ${object}`}: it could not be followed`
  })
  const more = unsure.length - lines.length
  return more > 0 ? [...lines, `${more} more changes of the schema that could not be followed`] : lines
}

const named = ({ schema, name }: { readonly schema: string; readonly name: string }): string => `${schema}.${name}`

function unlessNone(names: readonly string[] | undefined, line: (names: string) => string): string[] {
  if (names === undefined || names.length === 0) return []
  const more = names.length - shown
  return [line(more > 0 ? `${names.slice(0, shown).join(', ')} and ${more} more` : names.join(', '))]
}

const shown = 12
