/** One archive with all that a repository can hold, made from a real server once, and then damaged in memory. */
import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { WalbackError } from '../../src/base/errors.ts'
import { setUp } from '../../src/capture/setup.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import type { RecoveryTarget } from '../../src/model/target.ts'
import type { EmbeddedServer } from '../../src/postgres/embedded.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'
import { once, open } from '../restore/round-trip.ts'
import { openArchive, type TestArchive } from '../support/walback.ts'

/** Small, so that the archive has segments of several transactions, and one of several parts. */
const stream = { segmentBytes: 64 << 10, segmentAge_ms: 200, heartbeat_ms: 60_000 }

/** Rows of one transaction that do not compress, more than a segment holds. */
const bigSql = `insert into t (what) select string_agg(md5(random()::text), '') from generate_series(1, 12000) n group by n / 40`

const schemaSql = `
  create table t (id serial primary key, what text);
  create table plain (a int, b text);
  create table none ();
  insert into t (what) select 'row ' || n from generate_series(1, 500) n;
  insert into plain select n, null from generate_series(1, 50) n;
  select lo_from_bytea(0, 'a large object')`

/**
 * Two timelines with a gap between, three bases, segments with parts, changes of the schema, a mark's message. `between`
 * hears of each step, to look at the source then.
 */
export async function buildArchive(
  url: string,
  archive: TestArchive,
  between: (step: string) => Promise<void> = async () => undefined,
): Promise<void> {
  const write = async (...statements: string[]): Promise<void> => {
    for (const statement of statements) await once(url, statement)
    await archive.catchUp(stream)
  }
  await archive.base()
  await write(`insert into t (what) values ('first')`, `update t set what = 'changed' where id < 20`)
  await between('first')
  await write(bigSql, `delete from t where id between 30 and 40`)
  await write('alter table plain add column c int default 7', `insert into plain values (1, 'x', 2)`)
  await between('changed')
  await archive.base()
  await write(`insert into t (what) values ('after the base')`, 'truncate plain')
  await between('before the gap')
  await once(url, `select pg_drop_replication_slot('walback_app')`)
  await once(url, `insert into t (what) values ('in the gap')`)
  await beginAnew(url, archive)
  await archive.base()
  await write(`insert into plain values (9, 'nine', 9)`)
  await write(`insert into t (what) values ('last but one')`)
  await write(`insert into t (what) values ('last')`)
  await between('last')
}

async function beginAnew(url: string, { repository, source }: TestArchive): Promise<void> {
  const client = await open(url)
  try {
    const gap = new WalbackError('gap', 'the slot was dropped')
    await setUp(client, repository, { source, replicaIdentity: 'full', gap })
  } finally {
    await client.end()
  }
}

export async function openSourceDatabase(server: EmbeddedServer): Promise<{ url: string; archive: TestArchive }> {
  const url = server.url()
  await once(url, schemaSql)
  return { url, archive: await openArchive(url) }
}

/** A folder's objects, in memory. */
export async function inMemoryCopy(folder: string): Promise<MemoryStorage> {
  const storage = new MemoryStorage()
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const file = path.join(entry.parentPath, entry.name)
    storage.objects.set(path.relative(folder, file), await readFile(file))
  }
  return storage
}

/** The archive in memory, with positions in both timelines to restore to. */
export async function buildTargets(
  server: EmbeddedServer,
): Promise<{ readonly storage: MemoryStorage; readonly targets: readonly RecoveryTarget[] }> {
  const { url, archive } = await openSourceDatabase(server)
  await using _ = archive
  const targets: RecoveryTarget[] = [{ kind: 'latest' }]
  await buildArchive(url, archive, async () => {
    const [at] = await once<{ lsn: string }>(url, 'select pg_current_wal_insert_lsn()::text as lsn')
    targets.push({ kind: 'lsn', lsn: parseLsn(at?.lsn ?? '') })
  })
  // Of the end itself `latest` is the name.
  return { storage: await inMemoryCopy(archive.folder), targets: targets.slice(0, -1) }
}
