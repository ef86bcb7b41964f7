import type pg from 'pg'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import { quoteIdent } from '../model/identifier.ts'
import { dropSlotSql, removeSql } from '../postgres/setup-sql.ts'
import { readSlot } from '../postgres/source.ts'
import { slotName } from './setup.ts'

/** What walback has in a database, for one source. */
export interface TeardownPlan {
  readonly slot: string | undefined
  readonly publications: readonly string[]
  /** The event triggers and the schema `walback`; kept while another source of this database needs them. */
  readonly trigger: boolean
  readonly schema: boolean
  /** Publications of other walback sources in this database, for whose sake trigger and schema stay. */
  readonly others: readonly string[]
  /** Tables without a key that keep REPLICA IDENTITY FULL: harmless, and perhaps somebody's wish. */
  readonly fullTables: readonly string[]
}

const ours = (source: string): readonly string[] => [slotName(source), `${slotName(source).slice(0, 55)}_inserts`]

/** Looks for what `init` made; reads only. Refuses while the slot is being streamed, or is not ours. */
export async function planTeardown(client: pg.Client, source: string): Promise<TeardownPlan> {
  const name = slotName(source)
  const slot = await readSlot(client, name)
  const { rows } = await client.query<{ database: string }>('SELECT current_database() AS database')
  if (slot !== undefined && (slot.plugin !== 'pgoutput' || slot.database !== rows[0]?.database)) {
    throw new WalbackError(
      'refused',
      `the replication slot ${name} is not of this database: it reads ${slot.database} by ${slot.plugin}`,
      {
        hint: `give --db that database, or check --source`,
      },
    )
  }
  if (slot?.active) {
    throw new WalbackError(
      'refused',
      `the replication slot ${name} is in use by the server process ${slot.activePid}`,
      {
        hint: `stop the agent first; to see who it is: SELECT * FROM pg_stat_replication WHERE pid = ${slot.activePid}`,
        facts: { slot: name, pid: slot.activePid ?? null },
      },
    )
  }
  const found = await client.query<{ name: string }>(
    String.raw`SELECT pubname AS name FROM pg_catalog.pg_publication WHERE pubname LIKE 'walback\_%' ORDER BY 1`,
  )
  const publications = found.rows.map((row) => row.name)
  const others = publications.filter((publication) => !ours(source).includes(publication))
  const shared = await client.query<{ trigger: boolean; schema: boolean }>(`
    SELECT EXISTS (SELECT FROM pg_catalog.pg_event_trigger WHERE evtname LIKE 'walback\\_%') AS trigger,
      EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'walback') AS schema`)
  const keyless = await client.query<{ name: string }>(keylessFullSql)
  return {
    slot: slot?.name,
    publications: publications.filter((publication) => ours(source).includes(publication)),
    trigger: shared.rows[0]?.trigger === true,
    schema: shared.rows[0]?.schema === true,
    others,
    fullTables: keyless.rows.map((row) => row.name),
  }
}

const keylessFullSql = `
  SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND c.relreplident = 'f' AND c.oid >= 16384
    AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
  ORDER BY 1`

export const hasNothing = (plan: TeardownPlan): boolean =>
  plan.slot === undefined &&
  plan.publications.length === 0 &&
  (plan.others.length > 0 || (!plan.trigger && !plan.schema))

/** Names what the plan removes, in the order of removal. */
export function namesOf(plan: TeardownPlan): string[] {
  const names = [...(plan.slot === undefined ? [] : [`replication slot ${plan.slot}`])]
  if (plan.others.length === 0 && plan.trigger) names.push('event triggers walback_*')
  names.push(...plan.publications.map((publication) => `publication ${publication}`))
  if (plan.others.length === 0 && plan.schema) names.push('schema walback')
  return names
}

/** Carries the plan out, and then looks again: it succeeds only if nothing is left. */
export async function tearDown(client: pg.Client, source: string, plan: TeardownPlan): Promise<void> {
  try {
    await client.query(`SET lock_timeout = '${lockWait}'`)
    // The slot first: it is what can fill the disk, should the rest fail.
    if (plan.slot !== undefined) await client.query(dropSlotSql(plan.slot))
    const drops = plan.publications.map((name) => `DROP PUBLICATION IF EXISTS ${quoteIdent(name)};`).join('\n')
    const sql = plan.others.length === 0 ? removeSql(plan.publications) : drops
    if (sql !== '') await client.query(sql)
  } catch (error) {
    throw removalFailure(error)
  } finally {
    await client.query('RESET lock_timeout').catch(() => undefined)
  }
  const left = await planTeardown(client, source)
  if (hasNothing(left)) return
  throw new WalbackError('failed', `still there: ${namesOf(left).join(', ')}`, {
    hint: 'somebody may have made it again just now; run uninstall again',
  })
}

const lockWait = '10s'

function removalFailure(error: unknown): WalbackError {
  const [code, message] = [codeOf(error), messageOf(error)]
  if (code === '55006')
    return new WalbackError('refused', `the replication slot is in use: ${message}`, {
      cause: error,
      hint: 'stop the agent first',
    })
  if (code === '42501') {
    return new WalbackError('prerequisite', `the role may not remove it: ${message}`, {
      cause: error,
      hint: 'connect as the role that ran init, or as a superuser',
    })
  }
  if (code === '55P03') {
    return new WalbackError('database', 'gave up waiting for a lock', {
      cause: error,
      hint: 'run uninstall again at a quieter moment; what is gone stays gone',
      retryable: true,
    })
  }
  return new WalbackError('database', `could not remove it: ${message}`, {
    cause: error,
    hint: 'see the server log, then run uninstall again',
  })
}
