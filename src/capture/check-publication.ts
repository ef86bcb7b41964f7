import { unreachable } from '../base/assert.ts'
import { quoteIdent, quoteLiteral } from '../model/identifier.ts'
import type { CheckedTable, Publication } from '../postgres/check-server-sql.ts'
import { setIdentityFullSql } from '../postgres/setup-sql.ts'
import { type Finding, finding } from './check-finding.ts'

/** What was set up to be published, and what of it is not, or not wholly. */
export interface Published {
  /** The publication of rows whole, and that of inserts alone, by name. */
  readonly main: string
  readonly inserts: string
  readonly found: readonly Publication[]
  readonly tables: readonly CheckedTable[]
  /** The repository that the source belongs to, where it is known. */
  readonly repositoryId: string | undefined
  /** What that repository's archive is to the slot; undefined where it holds nothing of this database. */
  readonly succession: Succession | undefined
}

/**
 * Whether a repository could take the place of the one that slot and publication feed, as a copy of it does when the
 * first is lost: it carries on where the slot stands; it ends before that; or somebody is feeding the other even now.
 */
export type Succession = 'carries on' | 'is behind' | 'slot in use'

/** Before `init`: what it will do, and what it will refuse. */
export function tablesBeforeSetup(tables: readonly CheckedTable[], isSuperuser: boolean): Finding[] {
  const foreign = tables.filter(({ owned }) => !owned && !isSuperuser)
  const bare = tables.filter((table) => table.bare && table.owned)
  return [
    ...foreign.map((table) =>
      finding('table-not-owned', 'error', 'only its owner may publish it', {
        object: table.object,
        hint: 'connect as a superuser, or GRANT its owner TO this role',
      }),
    ),
    ...bare.map((table) => {
      const code = table.identity === 'n' ? 'identity-nothing' : 'identity-missing'
      const lack = table.identity === 'n' ? 'REPLICA IDENTITY NOTHING' : 'no usable replica identity'
      const why = table.mendable
        ? `it has ${lack}: init gives it FULL, unless told --replica-identity skip`
        : 'it has a virtual generated column and no key: its inserts alone will be captured'
      const mend = table.mendable ? { sql: setIdentityFullSql(table) } : { hint: primaryKey }
      return finding(code, 'note', why, { object: table.object, ...mend })
    }),
  ]
}

const primaryKey = 'give it a primary key'

export function publicationFindings(published: Published): Finding[] {
  const { main, found } = published
  const whole = found.find(({ name }) => name === main)
  if (whole === undefined) {
    return [
      finding('publication-missing', 'error', 'the publication is gone, and the stream fails without it', {
        object: quoteIdent(main),
        hint: 'run `walback init`; what was done meanwhile may be lost, so run `walback backup --full` after it',
      }),
    ]
  }
  return [...found.flatMap((publication) => oneFindings(publication, published)), ...tableFindings(published, whole)]
}

function oneFindings(publication: Publication, { main, repositoryId, succession }: Published): Finding[] {
  const findings: Finding[] = []
  const name = quoteIdent(publication.name)
  const wanted = publication.name === main ? rowOperations : insertOperations
  const missing = wanted.filter((operation) => !publication[operation])
  if (missing.length > 0) {
    const sql = `ALTER PUBLICATION ${name} SET (publish = '${wanted.join(', ')}')`
    findings.push(
      finding('publication-operations', 'warning', `not published, and so not captured: ${missing.join(', ')}`, {
        object: name,
        sql,
        hint: 'then run `walback backup --full`',
      }),
    )
  }
  if (publication.viaRoot) {
    findings.push(
      finding('publication-via-root', 'warning', 'rows of partitions come as those of the partitioned table', {
        object: name,
        sql: `ALTER PUBLICATION ${name} SET (publish_via_partition_root = false)`,
        hint: 'then run `walback backup --full`',
      }),
    )
  }
  const note = publication.comment
  if (repositoryId !== undefined && note !== null && note !== noteFor(repositoryId))
    findings.push(otherRepository(publication.name, note, noteFor(repositoryId), succession))
  return findings
}

/** What `init` notes at a publication, so that no second repository takes from the first what it confirms. */
export const noteFor = (repositoryId: string): string => `walback repository ${repositoryId}`

function otherRepository(name: string, note: string, own: string, succession: Succession | undefined): Finding {
  const why = `slot and publication feed another repository (${note})`
  const object = quoteIdent(name)
  const say = (details: Partial<Pick<Finding, 'sql' | 'hint' | 'fix'>>): Finding =>
    finding('other-repository', 'error', why, { object, ...details })
  const sql = `COMMENT ON PUBLICATION ${object} IS ${quoteLiteral(own)}`
  switch (succession) {
    case undefined:
      return say({
        hint: 'use that repository, or a source of its own with --source, or run `walback uninstall` first',
      })
    case 'slot in use':
      return say({
        hint: 'somebody is feeding that one now: use it. If this one, a copy, is to take its place, end that agent and run `walback check` again',
      })
    case 'is behind':
      return say({
        sql,
        hint: 'this one, a copy, ends before what the slot has confirmed: if the other can still be read, `walback copy` from it first. If it is lost, run this, then `walback init`, which records the gap, and `walback backup --full`',
      })
    case 'carries on':
      return say({
        sql,
        fix: { title: `note at publication ${name}, which feeds this repository from now on`, sql },
        hint: 'this one, a copy, has all that the slot has confirmed, and takes the place of the other by that; see to it that nothing feeds the other any more',
      })
    default:
      return unreachable(succession)
  }
}

const insertOperations = ['insert', 'truncate'] as const
const rowOperations = ['insert', 'update', 'delete', 'truncate'] as const

function tableFindings({ main, inserts, found, tables }: Published, whole: Publication): Finding[] {
  // Under the root's name they are not found as what they are.
  const knowsLeaves = !found.some(({ viaRoot }) => viaRoot)
  const alone = found.find(({ name }) => name === inserts)
  return tables.flatMap((table): Finding[] => {
    if (table.bare && table.changes) return [bareFinding(table, whole, inserts)]
    if (!table.inserts && !table.changes) {
      return knowsLeaves && whole.insert ? [unpublished(table, main)] : []
    }
    if (!table.changes && whole.update && whole.delete) return [insertsOnly(table, main, alone)]
    return narrowed(table, main)
  })
}

/** Its updates fail, so it is mended at once by what `init` would have done. */
function bareFinding(table: CheckedTable, whole: Publication, inserts: string): Finding {
  const { object } = table
  if (!table.mendable) {
    const why = 'it is published, has a virtual generated column and no key: its updates and deletes fail'
    // As the trigger does; it makes a list of a publication of all tables.
    const leave = whole.all
      ? `SELECT walback.publish(${quoteLiteral(object)}::pg_catalog.regclass, true)`
      : `BEGIN; ALTER PUBLICATION ${quoteIdent(whole.name)} DROP TABLE ONLY ${object}; ALTER PUBLICATION ${quoteIdent(inserts)} ADD TABLE ONLY ${object}; COMMIT`
    return finding('identity-missing', 'error', why, {
      object,
      sql: leave,
      hint: `that captures its inserts alone; or ${primaryKey}, which captures all`,
    })
  }
  const sql = setIdentityFullSql(table)
  const [code, what] =
    table.identity === 'n'
      ? (['identity-nothing', 'REPLICA IDENTITY NOTHING'] as const)
      : (['identity-missing', 'no usable replica identity'] as const)
  return finding(code, 'error', `it is published and has ${what}: its updates and deletes fail`, {
    object,
    sql,
    ...(table.owned ? { fix: { title: `replica identity of ${table.schema}.${table.name}`, sql } } : {}),
    hint: table.owned ? null : 'as its owner',
  })
}

function unpublished(table: CheckedTable, main: string): Finding {
  const identity = table.bare && table.mendable ? `${setIdentityFullSql(table)}; ` : ''
  return finding('table-not-published', 'warning', 'it is in no publication: none of its rows are captured', {
    object: table.object,
    sql: `${identity}ALTER PUBLICATION ${quoteIdent(main)} ADD TABLE ONLY ${table.object}`,
    hint: table.owned
      ? 'or run `walback backup --full`, which publishes it and takes what it holds now'
      : 'as its owner; then run `walback backup --full`, since what it holds now is in no base',
  })
}

function insertsOnly(table: CheckedTable, main: string, alone: Publication | undefined): Finding {
  const { object } = table
  const why = 'it has no key: its inserts alone are captured, no updates and deletes'
  // A column list of the user's would also be such a way; a move between the publications leaves nothing out.
  const move = `ALTER PUBLICATION ${quoteIdent(main)} ADD TABLE ONLY ${object}${
    alone === undefined ? '' : `; ALTER PUBLICATION ${quoteIdent(alone.name)} DROP TABLE ONLY ${object}`
  }`
  const mend = !table.bare
    ? { sql: move, hint: 'then run `walback backup --full`' }
    : table.mendable
      ? { sql: `${setIdentityFullSql(table)}; ${move}`, hint: 'then run `walback backup --full`' }
      : { hint: `${primaryKey}, then: ${move}` }
  return finding('table-inserts-only', 'warning', why, { object, ...mend })
}

function narrowed(table: CheckedTable, main: string): Finding[] {
  const { object } = table
  const publication = quoteIdent(main)
  // In one transaction, so that no change falls between.
  const sql = `BEGIN; ALTER PUBLICATION ${publication} DROP TABLE ONLY ${object}; ALTER PUBLICATION ${publication} ADD TABLE ONLY ${object}; COMMIT`
  const hint = 'then run `walback backup --full`'
  const findings: Finding[] = []
  if (table.filtered)
    findings.push(finding('publication-filter', 'warning', 'a row filter keeps rows out', { object, sql, hint }))
  if (table.columns)
    findings.push(finding('publication-columns', 'warning', 'a column list keeps columns out', { object, sql, hint }))
  if (table.generated) {
    const why = 'its identity has a generated column that the publication leaves out: its updates and deletes fail'
    const sql = `ALTER PUBLICATION ${publication} SET (publish_generated_columns = stored)`
    const fix = { title: `generated columns in publication ${main}`, sql }
    findings.push(finding('publication-generated', 'error', why, { object, sql, fix }))
  }
  return findings
}
