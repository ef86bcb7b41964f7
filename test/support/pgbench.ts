/**
 * pgbench's own tables and TPC-B-like transaction (PostgreSQL manual, "pgbench"), since the embedded packages have no
 * pgbench. `pgbench_history` has no key.
 */
import pg from 'pg'
import { type LoadOptions, type LoadReport, runLoad, type Session } from './load.ts'

const accountsPerScale = 100_000
const tellersPerScale = 10

/** Creates and fills the tables, as `pgbench -i -s SCALE` does; a fraction makes small ones. */
export async function createPgbench(url: string, scale = 1): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const { accounts, tellers, branches } = sizes(scale)
    await client.query(`
      drop table if exists pgbench_accounts, pgbench_branches, pgbench_history, pgbench_tellers;
      create table pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
      create table pgbench_tellers (tid int not null, bid int, tbalance int, filler char(84)) with (fillfactor = 100);
      create table pgbench_accounts (aid int not null, bid int, abalance int, filler char(84)) with (fillfactor = 100);
      create table pgbench_branches (bid int not null, bbalance int, filler char(88)) with (fillfactor = 100);
      insert into pgbench_branches (bid, bbalance) select n, 0 from generate_series(1, ${branches}) n;
      insert into pgbench_tellers (tid, bid, tbalance)
        select n, (n - 1) / ${tellersPerScale} + 1, 0 from generate_series(1, ${tellers}) n;
      insert into pgbench_accounts (aid, bid, abalance, filler)
        select n, (n - 1) / ${accountsPerScale} + 1, 0, '' from generate_series(1, ${accounts}) n;
      alter table pgbench_branches add primary key (bid);
      alter table pgbench_tellers add primary key (tid);
      alter table pgbench_accounts add primary key (aid)`)
    await client.query('vacuum analyze pgbench_branches, pgbench_tellers, pgbench_accounts')
  } finally {
    await client.end()
  }
}

function sizes(scale: number): { accounts: number; tellers: number; branches: number } {
  const branches = Math.max(1, Math.round(scale))
  return { accounts: Math.round(accountsPerScale * scale), tellers: tellersPerScale * branches, branches }
}

export interface PgbenchReport extends LoadReport {
  readonly transactions: number
  readonly duration_ms: number
}

/** Runs the transaction until the signal fires or each client has done `transactions` of them. */
export async function runPgbench(url: string, options: LoadOptions): Promise<PgbenchReport> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  const { rows } = await client.query<{ accounts: number; tellers: number; branches: number }>(`select
    (select max(aid) from pgbench_accounts) as accounts, (select max(tid) from pgbench_tellers) as tellers,
    (select max(bid) from pgbench_branches) as branches`)
  await client.end()
  const size = rows[0] ?? sizes(1)
  const begun = performance.now()
  const kind = { name: 'tpcb', weight: 1, run: (session: Session) => tpcb(session, size) }
  const report = await runLoad(url, [kind], { ...options, sampling: 0.02 })
  return { ...report, transactions: report.done.tpcb ?? 0, duration_ms: performance.now() - begun }
}

async function tpcb(session: Session, size: { accounts: number; tellers: number; branches: number }): Promise<void> {
  const { random } = session
  const [aid, tid, bid] = [random.int(1, size.accounts), random.int(1, size.tellers), random.int(1, size.branches)]
  const delta = random.int(-5000, 5000)
  await session.transaction(async () => {
    const by = [delta, aid]
    await session.prepared('a', 'update pgbench_accounts set abalance = abalance + $1 where aid = $2', by)
    await session.prepared('s', 'select abalance from pgbench_accounts where aid = $1', [aid])
    await session.prepared('t', 'update pgbench_tellers set tbalance = tbalance + $1 where tid = $2', [delta, tid])
    await session.prepared('b', 'update pgbench_branches set bbalance = bbalance + $1 where bid = $2', [delta, bid])
    const history =
      'insert into pgbench_history (tid, bid, aid, delta, mtime) values ($1, $2, $3, $4, current_timestamp)'
    await session.prepared('h', history, [tid, bid, aid, delta])
  })
}
