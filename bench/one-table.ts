/**
 * What a restore of one table reads of a large archive: `npx tsx bench/one-table.ts [MiB of rows in all] [restore all]`.
 * Nine tables share the rows, of which the one that is restored has a fortieth; then each is changed in turn, so that the
 * stream has changes of all.
 */
import { performance } from 'node:perf_hooks'
import { everything, type Selection } from '../src/model/selection.ts'
import { resolveConninfo } from '../src/postgres/conninfo.ts'
import { startEmbedded } from '../src/postgres/embedded.ts'
import { planRestore } from '../src/restore/plan.ts'
import { restore } from '../src/restore/restore.ts'
import { selectTables } from '../src/restore/selected.ts'
import type { GetOptions, Storage } from '../src/storage/storage.ts'
import { Subject } from '../test/restore/round-trip.ts'

const megabytes = Number(process.argv[2] ?? 2048)
const alsoWhole = process.argv[3] === 'all'

/** Counts what is read of each kind of object. */
class Counting implements Storage {
  readonly url: string
  readonly read = new Map<string, number>()
  private readonly inner: Storage

  constructor(inner: Storage) {
    this.inner = inner
    this.url = inner.url
  }

  put: Storage['put'] = (key, body, options) => this.inner.put(key, body, options)
  size: Storage['size'] = (key, options) => this.inner.size(key, options)
  list: Storage['list'] = (prefix, options) => this.inner.list(prefix, options)
  delete: Storage['delete'] = (key) => this.inner.delete(key)

  async *get(key: string, options?: GetOptions): AsyncGenerator<Buffer> {
    const kind = /\/rows\//.test(key) ? 'rows' : /\/segments\//.test(key) ? 'segments' : 'else'
    for await (const piece of this.inner.get(key, options)) {
      this.read.set(kind, (this.read.get(kind) ?? 0) + piece.length)
      yield piece
    }
  }
}

const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`

await using server = await startEmbedded({ settings: { fsync: 'off', max_wal_size: '4GB' } })
await using subject = await Subject.start(server)
// A row of text takes about 200 bytes, most of which no compression takes away.
const rowsOf = (share: number): number => Math.round((megabytes * 2 ** 20 * share) / 200)
const tables = [['wanted', 1 / 40] as const, ...Array.from({ length: 8 }, (_, n) => [`big_${n}`, 39 / 320] as const)]
for (const [name, share] of tables)
  await subject.sql(
    `CREATE TABLE ${name} (id int PRIMARY KEY, a text, b text, c text, at timestamptz)`,
    `INSERT INTO ${name} SELECT n, md5(n::text), md5(random()::text), md5((n * 7)::text) || md5(random()::text), now() FROM generate_series(1, ${rowsOf(share)}) n`,
  )
const archive = await subject.open()
await archive.base()
for (let turn = 0; turn < 3; turn++)
  for (const [name, share] of tables) {
    await subject.sql(`UPDATE ${name} SET a = md5(a), at = now() WHERE id % 50 = ${turn} AND id <= ${rowsOf(share)}`)
    await archive.catchUp({ segmentBytes: 8 << 20 })
  }

let stored = 0
for await (const { size_bytes } of archive.repository.storage.list('')) stored += size_bytes
const size = await subject.client.query<{ b: string }>(`SELECT pg_database_size(current_database()) AS b`)
console.log(`database ${mib(Number(size.rows[0]?.b))}, archive ${mib(stored)}`)

async function run(name: string, selection: Selection): Promise<void> {
  const counting = new Counting(archive.repository.storage)
  const repository = archive.repository.over(counting)
  const started = performance.now()
  const plan = await selectTables(
    repository,
    await planRestore(repository, archive.source, { kind: 'latest' }),
    selection,
  )
  const planned = [...counting.read.values()].reduce((sum, bytes) => sum + bytes, 0)
  const database = `restored_${name}`
  const { rows } = await restore(
    repository,
    plan,
    { conninfo: resolveConninfo(server.url(), {}), database },
    { jobs: 2 },
  )
  const read = [...counting.read.values()].reduce((sum, bytes) => sum + bytes, 0)
  const kinds = [...counting.read].map(([kind, bytes]) => `${kind} ${mib(bytes)}`).join(', ')
  console.log(
    `${name}: ${rows} rows in ${((performance.now() - started) / 1000).toFixed(1)} s, read ${mib(read)} of ${mib(stored)} (${((100 * read) / stored).toFixed(1)} %): ${kinds}; to plan ${mib(planned)}`,
  )
}

await run('wanted', { ...everything, tables: ['wanted'] })
if (alsoWhole) await run('everything', everything)
