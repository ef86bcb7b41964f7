/**
 * How long an undo takes, and how much memory: `npx tsx bench/undo.ts [rows] [memory in MiB]`. One transaction updates half
 * of the rows of a table and deletes the other half; first with old rows in the stream (REPLICA IDENTITY FULL), then with
 * their keys alone, where they are found in the base.
 */
import { performance } from 'node:perf_hooks'
import { findTransactions } from '../src/history/find-transaction.ts'
import { resolveConninfo } from '../src/postgres/conninfo.ts'
import { startEmbedded } from '../src/postgres/embedded.ts'
import { Undo } from '../src/undo/undo.ts'
import { Subject } from '../test/restore/round-trip.ts'
import { transaction } from '../test/undo/stage.ts'

const rows = Number(process.argv[2] ?? 200_000)
const memory_bytes = Number(process.argv[3] ?? 64) << 20
await using server = await startEmbedded({ settings: { fsync: 'off' } })

let peak = 0
const watch = setInterval(() => {
  peak = Math.max(peak, process.memoryUsage().rss)
}, 50)

for (const identity of ['FULL', 'DEFAULT']) {
  await using subject = await Subject.start(server)
  await subject.sql(
    'CREATE TABLE big (id int PRIMARY KEY, state text, note text, at timestamptz DEFAULT now(), amount numeric)',
    `ALTER TABLE big REPLICA IDENTITY ${identity}`,
    `INSERT INTO big SELECT n, 'new', md5(n::text), now(), n / 7.0 FROM generate_series(1, ${rows}) n`,
  )
  const archive = await subject.open()
  await archive.base()
  const xid = await transaction(
    subject,
    `UPDATE big SET state = 'paid' WHERE id % 2 = 0`,
    'DELETE FROM big WHERE id % 2 = 1',
  )
  await archive.catchUp({ segmentBytes: 8 << 20 })
  peak = 0
  const found = await findTransactions(archive.repository, archive.source, [{ xid: BigInt(xid) }])
  const times: Record<string, string> = {}
  const timed = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const start = performance.now()
    const result = await work()
    times[name] = `${((performance.now() - start) / 1000).toFixed(1)} s`
    return result
  }
  await using work = await timed('stage', () =>
    Undo.begin(archive.repository, found, resolveConninfo(subject.url, {}), { memory_bytes }),
  )
  await timed('preview', () => work.preview())
  const report = await timed('apply', () => work.apply('abort'))
  console.log({ identity, rows, ...times, conflicts: report.conflicts, peak_MiB: Math.round(peak / 2 ** 20) })
}
clearInterval(watch)
