import type pg from 'pg'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import { readSlot } from '../postgres/source.ts'
import { type FullTable, readFullTables, readTraces, removeTraceSql, type Trace } from '../postgres/traces-sql.ts'
import { insertsPublication, slotName } from './setup.ts'

/** What walback has in a database, for one source. */
export interface TeardownPlan {
  /** What is removed, in this order. */
  readonly remove: readonly Trace[]
  /** What stays because other walback sources of this database need it. */
  readonly keep: readonly Trace[]
  /** Publications of those sources. */
  readonly others: readonly string[]
  /** What bears walback's name and belongs to no source that can be seen: not removed, since that cannot be known. */
  readonly strays: readonly Stray[]
  /** Tables without a key that keep REPLICA IDENTITY FULL: nothing records whose wish that was. */
  readonly fullTables: readonly FullTable[]
}

export interface Stray extends Trace {
  readonly sql: string
}

const ours = (source: string): readonly string[] => [slotName(source), insertsPublication(slotName(source))]

/** Looks for what `init` made; reads only. Refuses while the slot is being streamed, or is not ours. */
export async function planTeardown(client: pg.Client, source: string): Promise<TeardownPlan> {
  const name = slotName(source)
  await refuseSlotInUse(client, name)
  return sortTraces(await readTraces(client), source, await readFullTables(client, ours(source)))
}

async function refuseSlotInUse(client: pg.Client, name: string): Promise<void> {
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
}

/** Pure. A publication tells of a source; a slot whose publication is gone is nobody's, and holds log all the same. */
export function sortTraces(traces: readonly Trace[], source: string, fullTables: readonly FullTable[]): TeardownPlan {
  const isMine = ({ name }: Trace): boolean => ours(source).includes(name)
  const publications = traces.filter(({ kind }) => kind === 'publication')
  const others = publications.filter((trace) => !isMine(trace)).map(({ name }) => name)
  const [remove, keep, strays]: [Trace[], Trace[], Stray[]] = [[], [], []]
  const stray = (trace: Trace): void => {
    strays.push({ ...trace, sql: removeTraceSql(trace) })
  }
  for (const trace of traces) {
    if (trace.kind === 'slot' || trace.kind === 'publication') {
      if (isMine(trace)) remove.push(trace)
      else if (others.includes(trace.name)) keep.push(trace)
      else stray(trace)
    } else if (!trace.isOurs) stray(trace)
    else (others.length > 0 ? keep : remove).push(trace)
  }
  return { remove, keep, others, strays, fullTables }
}

export const hasNothing = ({ remove }: TeardownPlan): boolean => remove.length === 0

/** Names what the plan removes, in the order of removal. */
export const namesOf = (traces: readonly Trace[]): string[] =>
  traces.map(({ kind, name }) => `${kind === 'slot' ? 'replication slot' : kind} ${name}`)

/** Carries the plan out, and then looks again: it succeeds only if nothing is left of what was to be removed. */
export async function tearDown(client: pg.Client, source: string, plan: TeardownPlan): Promise<TeardownPlan> {
  try {
    await client.query(`SET lock_timeout = '${lockWait}'`)
    // The slot first: it is what can fill the disk, should the rest fail.
    const [slots, rest] = [plan.remove.filter(isSlot), plan.remove.filter((trace) => !isSlot(trace))]
    for (const slot of slots) await client.query(removeTraceSql(slot))
    if (rest.length > 0) await client.query(rest.map(removeTraceSql).join(';\n'))
  } catch (error) {
    throw removalFailure(error)
  } finally {
    await client.query('RESET lock_timeout').catch(() => undefined)
  }
  const left = await planTeardown(client, source)
  if (hasNothing(left)) return left
  throw new WalbackError('failed', `still there: ${namesOf(left.remove).join(', ')}`, {
    hint: 'somebody may have made it again just now; run uninstall again',
  })
}

const isSlot = ({ kind }: Trace): boolean => kind === 'slot'

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
