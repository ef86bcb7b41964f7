import { randomBytes } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import type pg from 'pg'
import { assert } from '../base/assert.ts'
import type { Selection } from '../model/selection.ts'
import { abandonBase, objectsOf, readBaseHeads, readManifest } from '../repository/base.ts'
import {
  type BegunBase,
  listBegun,
  readStoredTables,
  removeObjects,
  type StoredTable,
} from '../repository/base-progress.ts'
import { readLeases } from '../repository/lease.ts'
import type { Repository } from '../repository/repository.ts'
import type { Timeline } from '../repository/timeline.ts'

/** The base that a process works at, alone. */
export interface ClaimedBase {
  readonly id: string
  readonly started: Date
  /** What an interrupted process has stored of it; undefined when it is a new one. */
  readonly stored: readonly StoredTable[] | undefined
  /** Others, whose processes are gone, and that are of no use any more. */
  readonly dead: readonly BegunBase[]
}

/**
 * Takes over the base that was interrupted last, or begins one. Whoever takes a base holds an advisory lock of its name
 * in the source, for as long as the session lives that also ends the base; so when the lock is to be had, nobody is at
 * work at it. (A process that has lost the session and does not know yet cannot end the base either: what takes its
 * objects away puts a mark in its manifest's place first.)
 *
 * A base that is made off the source has no session there: its maker holds a lease instead, and nobody carries it on.
 *
 * An interrupted base is of use if its timeline is the current one, so that the stream reaches from its snapshots to
 * now, and if no base was completed since: retention keeps the stream for those that are. One of other tables is left to
 * whoever wants these.
 */
export async function claimBase(
  leader: pg.Client,
  repository: Repository,
  timeline: Timeline,
  { selection, signal }: { readonly selection?: Selection | undefined; readonly signal?: AbortSignal | undefined },
): Promise<ClaimedBase> {
  const { source } = timeline
  const completed = (await readBaseHeads(repository, source, { signal }))
    .filter((base) => base.timeline === timeline.id)
    .map((base) => Date.parse(base.started))
  const newest = Math.max(...completed, Number.NEGATIVE_INFINITY)
  const dead: BegunBase[] = []
  let useful: BegunBase | undefined
  const begun = await listBegun(repository, source, signal)
  dead.push(...(await deadCompactions(repository, source, begun, signal)))
  for (const base of begun.toReversed()) {
    const { beginning } = base
    if (beginning.compaction !== undefined) continue
    const isUseful = !base.isEnded && beginning.timeline === timeline.id && Date.parse(beginning.started) > newest
    if (isUseful && !isDeepStrictEqual(beginning.selection, selection)) continue
    // Of another server or database the lock there would have to be asked.
    const isOurs =
      beginning.systemIdentifier === timeline.systemIdentifier && beginning.database === timeline.database.oid
    if (!isOurs || !(await tryLock(leader, source, base.id))) continue
    if (useful === undefined && isUseful) useful = base
    else dead.push(base)
  }
  if (useful !== undefined) {
    const stored = await readStoredTables(repository, source, useful.id, signal)
    return { id: useful.id, started: new Date(useful.beginning.started), stored, dead }
  }
  const started = new Date()
  const id = drawBaseId(started)
  assert(await tryLock(leader, source, id), 'nobody else has drawn this name')
  return { id, started, stored: undefined, dead }
}

/** A name for a base that no other has. */
export const drawBaseId = (started: Date): string =>
  `${started.toISOString().replace(/[-:]|\.\d+/g, '')}-${randomBytes(3).toString('hex')}`

/** Of the bases that are, or were, made off the source those whose makers are gone. */
export async function deadCompactions(
  repository: Repository,
  source: string,
  begun: readonly BegunBase[],
  signal: AbortSignal | undefined,
): Promise<BegunBase[]> {
  const compactions = begun.filter(({ beginning }) => beginning.compaction !== undefined)
  if (compactions.length === 0) return []
  const alive = new Set((await readLeases(repository, source, signal)).map(({ token }) => token))
  return compactions.filter(({ beginning }) => !alive.has(beginning.compaction?.lease ?? ''))
}

/** Held until the session ends. */
async function tryLock(client: pg.Client, source: string, id: string): Promise<boolean> {
  const { rows } = await client.query<{ held: boolean }>(
    'SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtext($1), pg_catalog.hashtext($2)) AS held',
    ['walback base', `${source}/${id}`],
  )
  return rows[0]?.held === true
}

/** Removes what is left of bases that nobody works at: all of those that are not complete, and notes of those that are. */
export async function removeDead(repository: Repository, source: string, dead: readonly BegunBase[]): Promise<void> {
  for (const { id, isEnded } of dead) {
    if (!isEnded) await abandonBase(repository, source, id)
    const manifest = await readManifest(repository, source, id)
    const kept = new Set(manifest === undefined ? [] : objectsOf(manifest))
    await removeObjects(repository, source, id, (key) => kept.has(key))
  }
}
