/** A load that is hard for a logical backup, over the tables of `nasty-tables.ts`. It changes no schema while it runs. */
import pg from 'pg'
import { type LoadOptions, type LoadReport, runLoad, Session } from './load.ts'
import { endingKinds, endPrepared } from './nasty-endings.ts'
import { rowKinds } from './nasty-kinds.ts'
import { nastyTables } from './nasty-tables.ts'
import { Random } from './random.ts'

/** Of ten committed transactions, three become samples. */
const sampling = 0.3

async function ask(url: string, setting: string): Promise<number> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const { rows } = await client.query<{ value: string }>('select current_setting($1) as value', [setting])
    return Number(rows[0]?.value)
  } finally {
    await client.end()
  }
}

/** Creates the tables and their first rows. */
export async function createNasty(url: string): Promise<void> {
  const major = Math.floor((await ask(url, 'server_version_num')) / 10_000)
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(nastyTables(major))
  } finally {
    await client.end()
  }
}

/**
 * Runs the load until the signal fires or each client has done `transactions`. Survives the death and return of the
 * server. No prepared transaction of this load is left at the end, if the server is there then.
 */
export async function runNasty(url: string, options: LoadOptions): Promise<LoadReport> {
  const preparing = (await ask(url, 'max_prepared_transactions')) > 0
  const kinds = [...rowKinds, ...endingKinds(preparing)]
  const report = await runLoad(url, kinds, { ...options, sampling, opened: endPrepared })
  if (preparing) await endAllPrepared(url, options)
  return report
}

async function endAllPrepared(url: string, options: LoadOptions): Promise<void> {
  const seed = options.seed ?? 1
  const from = { random: new Random(seed), label: `load-${seed}`, samples: [], sampling: 0 }
  const session = await Session.open(url, from).catch(() => undefined)
  if (!session) return
  try {
    await endPrepared(session)
  } finally {
    await session.close()
  }
}
