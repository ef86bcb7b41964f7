import type pg from 'pg'
import { codeOf, WalbackError } from '../base/errors.ts'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { publishableTablesSql, tablesWithoutIdentitySql } from '../postgres/identity-sql.ts'
import { addToPublicationSql, setIdentityFullSql } from '../postgres/setup-sql.ts'
import type { Timeline } from '../repository/timeline.ts'
import { insertsPublication, runStep } from './setup.ts'

interface Table {
  readonly schema: string
  readonly name: string
}

/** What there is to be published before a base, where the publication is a list of tables that somebody has to keep. */
interface Publishing {
  readonly steps: readonly { readonly title: string; readonly sql: string; readonly publishes?: Table }[]
  /** Tables that are not published and cannot be by this role: they or the publication are another's. */
  readonly left: readonly Table[]
}

/** As a base backup takes it (backup/base-options.ts). */
interface Preparation {
  readonly run: () => Promise<void>
  readonly check: (leader: pg.Client) => Promise<{ readonly isDone: boolean; readonly unpublished: readonly Table[] }>
}

export interface PublishedTables {
  readonly added: readonly string[]
  readonly left: readonly string[]
}

/**
 * The preparation of a base: tables that are not published yet are, by the rule of `init` for those without a key, so
 * that the base has their first rows and the stream all that comes after. Once the event triggers do that there is
 * nothing to do, unless they were disabled. `onPublished` hears what was done, and of tables that are left out.
 */
export function publishing(
  conninfo: Conninfo,
  timeline: Timeline,
  options: { readonly onPublished: (tables: PublishedTables) => void; readonly signal?: AbortSignal },
): Preparation {
  return {
    run: async () => {
      const { signal } = options
      const client = await connect(conninfo, {
        application: 'walback backup',
        settings: { search_path: '' },
        ...(signal ? { signal } : {}),
      })
      try {
        const { steps, left } = await planPublishing(client, timeline)
        const added: Table[] = []
        for (const step of steps) {
          try {
            await runStep(client, step)
            if (step.publishes) added.push(step.publishes)
          } catch (error) {
            // Dropped a moment ago, alone or with its schema.
            if (!(error instanceof WalbackError) || !['42P01', '3F000'].includes(codeOf(error.cause) ?? '')) throw error
          }
        }
        if (added.length > 0 || left.length > 0) options.onPublished({ added: added.map(named), left: left.map(named) })
      } finally {
        await client.end().catch(() => undefined)
      }
    },
    check: async (leader) => {
      const { steps, left } = await planPublishing(leader, timeline)
      return { isDone: steps.every((step) => step.publishes === undefined), unpublished: left }
    },
  }
}

/** Reads only, as the session's snapshot sees it. */
async function planPublishing(client: pg.Client, timeline: Timeline): Promise<Publishing> {
  // Those that are lists, and ours to extend.
  const { rows: lists } = await client.query<{ name: string }>(
    `SELECT pubname AS name FROM pg_catalog.pg_publication
     WHERE pubname = ANY ($1) AND NOT puballtables AND pg_catalog.pg_has_role(pubowner, 'USAGE')`,
    [timeline.publications],
  )
  const { rows: tables } = await client.query<Table & { owned: boolean; published: boolean }>(publishedSql, [
    timeline.publications,
  ])
  const { rows: bare } = await client.query<Table & { full: boolean }>(tablesWithoutIdentitySql)
  const mends = timeline.replicaIdentity === 'full'
  const bareOf = (table: Table) => bare.find(({ schema, name }) => schema === table.schema && name === table.name)
  const inserts = insertsPublication(timeline.slot)
  const steps: { title: string; sql: string; publishes?: Table }[] = []
  const left: Table[] = []
  for (const { schema, name, owned, published } of tables) {
    const table = { schema, name }
    const title = named(table)
    const lacks = bareOf(table)
    const isMended = mends && lacks?.full === true
    if (isMended && owned) steps.push({ title: `replica identity of ${title}`, sql: setIdentityFullSql(table) })
    if (published) continue
    const place = lacks && !isMended ? inserts : timeline.slot
    if (!owned || !lists.some((list) => list.name === place)) left.push(table)
    else steps.push({ title: `publication of ${title}`, sql: addToPublicationSql(place, table), publishes: table })
  }
  return { steps, left }
}

const named = ({ schema, name }: Table): string => `${schema}.${name}`

const publishedSql = `
  SELECT t.schema, t.name, t.owned, EXISTS (
    SELECT FROM pg_catalog.pg_publication p WHERE p.pubname = ANY ($1) AND (p.puballtables OR EXISTS (
      SELECT FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE r.prpubid = p.oid AND c.relname = t.name AND n.nspname = t.schema))) AS published
  FROM (${publishableTablesSql}) t`
