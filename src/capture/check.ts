import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import { quoteIdent } from '../model/identifier.ts'
import {
  readPublications,
  readServerLoad,
  readSlotDetails,
  readTablesToCheck,
  readTriggerState,
} from '../postgres/check-server-sql.ts'
import { readObjectsOfNote } from '../postgres/check-sql.ts'
import { readSlot, readSourceFacts, type SlotState, type SourceFacts } from '../postgres/source.ts'
import { Repository } from '../repository/repository.ts'
import type { Access, RepositoryKey } from '../repository/repository-key.ts'
import type { Storage } from '../storage/storage.ts'
import { type Archive, archiveFindings, findSource, readArchive } from './check-archive.ts'
import { type Finding, type Fix, finding, sorted } from './check-finding.ts'
import { objectFindings } from './check-objects.ts'
import { type Published, publicationFindings, type Succession, tablesBeforeSetup } from './check-publication.ts'
import { serverFindings, tooOld } from './check-server.ts'
import { slotFindings } from './check-slot.ts'
import { triggerFindings } from './check-triggers.ts'
import { insertsPublication, runStep, slotName } from './setup.ts'

export interface CheckOptions {
  /** As it was named; else it is the one in the repository that was made from this database, or `suggested`. */
  readonly source: string | undefined
  readonly suggested: string
  /** Where the repository is; undefined to look at the database alone. */
  readonly storage: Storage | undefined
  /** What opens it, if it is encrypted. */
  readonly access?: Access | undefined
  /** How much log the guard lets the slot keep. */
  readonly guard_bytes?: number | undefined
  readonly signal?: AbortSignal | undefined
}

export interface CheckReport {
  readonly source: string
  readonly facts: SourceFacts
  /** Whether `init` has been run for this source, as far as can be seen. */
  readonly isSetUp: boolean
  /** The worst first. */
  readonly findings: readonly Finding[]
  readonly slot: SlotState | undefined
  /** How the repository is encrypted; undefined where it is not, or none was looked at. */
  readonly key: RepositoryKey | undefined
  /** Seconds since the archive's end; undefined where no repository was looked at or nothing is in it. */
  readonly archiveAge_s: number | undefined
}

/**
 * Looks for everything that keeps a source from being captured or restored exactly, before `init` and after. Reads only,
 * in one transaction of the database. Throws where the database cannot be asked.
 */
export async function checkSource(client: pg.Client, options: CheckOptions): Promise<CheckReport> {
  const facts = await readSourceFacts(client)
  const old = tooOld(facts)
  if (old) {
    const source = options.source ?? options.suggested
    return { source, facts, isSetUp: false, findings: [old], slot: undefined, key: undefined, archiveAge_s: undefined }
  }
  const look = await lookAtArchive(facts, options)
  await client.query('BEGIN READ ONLY')
  try {
    await client.query(`SET LOCAL search_path = ''`)
    return await checkDatabase(client, facts, { ...look, guard_bytes: options.guard_bytes })
  } finally {
    await client.query('ROLLBACK').catch(() => undefined)
  }
}

interface Look {
  readonly source: string
  readonly repositoryId: string | undefined
  readonly key: RepositoryKey | undefined
  readonly archive: Archive | undefined
  readonly findings: readonly Finding[]
}

/** A repository that cannot be read is a finding like others: the database can be looked at all the same. */
async function lookAtArchive(facts: SourceFacts, options: CheckOptions): Promise<Look> {
  const { source, suggested, storage, signal } = options
  const alone = { source: source ?? suggested, repositoryId: undefined, key: undefined, archive: undefined }
  if (storage === undefined) return { ...alone, findings: [] }
  try {
    const repository = await Repository.find(storage, options.access)
    if (repository === undefined) {
      const missing = finding('repository-missing', 'note', 'there is no repository yet', {
        object: storage.url,
        hint: '`walback init` makes it',
      })
      return { ...alone, findings: [missing] }
    }
    const name = (await findSource(repository, source, facts, signal)) ?? alone.source
    const archive = await readArchive(repository, name, signal)
    return { source: name, repositoryId: repository.id, key: repository.key, archive, findings: [] }
  } catch (error) {
    if (!(error instanceof WalbackError) || ['interrupted', 'wrong_key'].includes(error.code)) throw error
    const unreadable = finding('repository-unreadable', 'error', error.message, {
      object: storage.url,
      hint: error.hint ?? null,
    })
    return { ...alone, findings: [unreadable] }
  }
}

async function checkDatabase(
  client: pg.Client,
  facts: SourceFacts,
  look: Look & Pick<CheckOptions, 'guard_bytes'>,
): Promise<CheckReport> {
  const { source, repositoryId } = look
  const main = slotName(source)
  const inserts = insertsPublication(main)
  const slot = await readSlot(client, main)
  const load = await readServerLoad(client)
  const found = await readPublications(client, [main, inserts])
  const tables = await readTablesToCheck(client, [main, inserts])
  const state = await readTriggerState(client)
  const objects = await readObjectsOfNote(client, facts.version)
  const ofArchive = look.archive ? archiveFindings(look.archive, facts, slot, load.now_us) : []
  // What is archived of another database says nothing of this one, nor does a slot of the same name.
  const isOther = ofArchive.some(({ code }) => code === 'other-database')
  const archive = isOther ? undefined : look.archive
  const isSetUp = !isOther && (slot !== undefined || found.length > 0 || archive !== undefined)
  const succession = archive && successionOf(slot, ofArchive)
  const published: Published = { main, inserts, found, tables, repositoryId, succession }
  const findings = [
    ...look.findings,
    ...serverFindings(facts, load, { slot, publication: found.length > 0 }),
    ...(isSetUp
      ? [
          ...slotFindings(facts, load, main, slot, await readSlotDetails(client, main), look.guard_bytes),
          ...publicationFindings(published),
        ]
      : [...(isOther ? [] : [notSetUp(source)]), ...tablesBeforeSetup(tables, facts.role.superuser)]),
    ...triggerFindings(
      facts,
      {
        state,
        load,
        allTables: found.some(({ all }) => all),
        identity: archive?.timeline.replicaIdentity ?? state.identity ?? identityOf(published),
      },
      isSetUp,
    ),
    ...objectFindings(objects, { role: quoteIdent(facts.role.name), database: quoteIdent(facts.database.name) }),
    ...ofArchive,
  ]
  const archiveAge_s = archive?.time === undefined ? undefined : Number((load.now_us - archive.time) / 1_000_000n)
  return { source, facts, isSetUp, findings: sorted(findings), slot, key: look.key, archiveAge_s }
}

function successionOf(slot: SlotState | undefined, ofArchive: readonly Finding[]): Succession {
  if (slot?.active) return 'slot in use'
  const carriesOn = slot !== undefined && slot.walStatus !== 'lost'
  return carriesOn && !ofArchive.some(({ code }) => code === 'stream-broken') ? 'carries on' : 'is behind'
}

const notSetUp = (source: string): Finding =>
  finding('not-set-up', 'note', 'nothing is captured yet: `walback init` has not been run', {
    object: `source ${source}`,
    hint: 'if it was, under another name, give that with --source',
  })

/** What `init` was told, where nothing says so but tables that it left without an identity. */
const identityOf = ({ tables }: Published): 'full' | 'skip' =>
  tables.some((table) => table.bare && table.mendable && table.inserts && !table.changes) ? 'skip' : 'full'

/** The steps that mend findings as `init` would, each once, in the order that keeps applications unharmed. */
export function fixesOf(findings: readonly Finding[]): Fix[] {
  const fixes = new Map<string, Fix>()
  const isTrigger = ({ code }: Finding): boolean => code.startsWith('event-trigger')
  for (const { fix } of [...findings.filter(isTrigger), ...findings.filter((one) => !isTrigger(one))]) {
    if (fix) fixes.set(fix.sql, fix)
  }
  return [...fixes.values()]
}

/** Runs them, each a transaction of its own that gives up soon on a lock and is tried again. */
export async function runFixes(
  client: pg.Client,
  fixes: readonly Fix[],
  onStep?: (title: string) => void,
): Promise<void> {
  for (const fix of fixes) {
    onStep?.(fix.title)
    await runStep(client, fix)
  }
}
