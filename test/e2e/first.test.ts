import pg from 'pg'
import { expect, it } from 'vitest'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { openArchive, ourObjects } from '../support/walback.ts'

it('restores a table to before a delete', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(`create table orders (id bigserial primary key, item text, note text);
    insert into orders (item) select 'item ' || n from generate_series(1, 1000) n;
    create table journal (at timestamptz, what text); create index on orders (item);`)
  await using archive = await openArchive(url)
  const stop = archive.capture()
  await client.query(`insert into journal values (now(), 'before base')`)
  await archive.base()
  await client.query(
    `update orders set item = 'changed' where id % 10 = 0; insert into journal values (now(), E'after\\tbase');`,
  )
  const golden = await fingerprint(url)
  const { rows } = await client.query<{ xid: string }>(
    `with gone as (delete from orders returning 1) select pg_current_xact_id()::text as xid`,
  )
  await client.query(`insert into orders (item) values ('later')`)
  await stop()
  await archive.catchUp()
  const after = await fingerprint(url)
  await archive.restored({ kind: 'tx', xid: BigInt(rows[0]?.xid ?? 0), inclusive: false }, async (restored) => {
    expect(differences(golden, await fingerprint(restored), ourObjects)).toEqual([])
  })
  await archive.restored({ kind: 'latest' }, async (restored) => {
    expect(differences(after, await fingerprint(restored), ourObjects)).toEqual([])
  })
  await client.end()
})
