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
  /** Tables that are not published and cannot be by this role: they are another's, or there is no place for them. */
  readonly left: readonly Table[]
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
): { readonly run: () => Promise<void>; readonly isDone: (leader: pg.Client) => Promise<boolean> } {
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
            // Dropped a moment ago.
            if (!(error instanceof WalbackError) || codeOf(error.cause) !== '42P01') throw error
          }
        }
        if (added.length > 0 || left.length > 0) options.onPublished({ added: added.map(named), left: left.map(named) })
      } finally {
        await client.end().catch(() => undefined)
      }
    },
    isDone: async (leader) =>
      (await planPublishing(leader, timeline)).steps.every((step) => step.publishes === undefined),
  }
}

/** Reads only, as the session's snapshot sees it. */
async function planPublishing(client: pg.Client, timeline: Timeline): Promise<Publishing> {
  const { rows: publications } = await client.query<{ name: string; all: boolean }>(
    'SELECT pubname AS name, puballtables AS "all" FROM pg_catalog.pg_publication WHERE pubname = ANY ($1)',
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
    const publication = publications.find((one) => one.name === place && !one.all)
    if (!owned || publication === undefined) left.push(table)
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
