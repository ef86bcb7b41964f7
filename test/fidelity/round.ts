/** The round that every case of fidelity takes: a base while rows change, more changes, restores that must be equal. */
import type { RestoreReport } from '../../src/restore/restore.ts'
import { type Moment, open, type Subject } from '../restore/round-trip.ts'

/** One statement or more an item; each item is sent by itself. */
export interface Case {
  /** Makes tables and rows. */
  readonly schema: readonly string[]
  /** In a transaction that is open before the base begins, and commits after it has ended. */
  readonly across?: readonly string[]
  /** While the base is taken; whether the base sees them is its snapshot's to say. */
  readonly during?: readonly string[]
  /** After the base, up to the moment that is restored to. */
  readonly later?: readonly string[]
  /** After that moment, up to the latest. */
  readonly last?: readonly string[]
}

const isLong = process.env.WALBACK_LONG !== undefined

/** Archives the subject's database as the cases change it, and notes a moment between and the latest. */
export async function archiveCases(subject: Subject, cases: readonly Case[]): Promise<void> {
  const all = (turn: keyof Case): string[] => cases.flatMap((each) => each[turn] ?? [])
  await subject.sql(...all('schema'))
  const archive = await subject.open()
  const beside = await open(subject.url)
  try {
    await beside.query('begin')
    for (const statement of all('across')) await beside.query(statement)
    const base = archive.base()
    base.catch(() => undefined)
    await subject.sql(...all('during'))
    await base
    await beside.query('commit')
  } finally {
    await beside.end()
  }
  await subject.sql(...all('later'))
  await subject.note('moment')
  // What is captured in two turns is one archive, as by `backup --incremental` from cron.
  await archive.catchUp()
  await subject.sql(...all('last'))
  await subject.note('latest')
  await archive.catchUp()
  const latest = subject.moments.pop() as Moment
  subject.moments.push({ ...latest, target: { kind: 'latest' } })
}

/** Archives the cases, and restores them to both moments. Flags are the fingerprint's. */
export async function round(
  subject: Subject,
  cases: readonly Case[],
  flags: readonly string[] = [],
): Promise<RestoreReport[]> {
  await archiveCases(subject, cases)
  if (isLong) return subject.compare({ flags, sizes: [undefined, 1, 2000] })
  // One with all the memory, so that changes are merged into the base's rows; one with next to none, so that they are
  // applied to rows that were loaded.
  const [moment, latest] = subject.moments.splice(0) as [Moment, Moment]
  const reports: RestoreReport[] = []
  for (const [at, size] of [
    [moment, undefined],
    [latest, 2000],
  ] as const) {
    subject.moments.splice(0, 1, at)
    reports.push(...(await subject.compare({ flags, sizes: [size] })))
  }
  return reports
}
