import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import type { Subject } from '../restore/round-trip.ts'
import { openSubject, preview, rowsOf, transaction, undo } from './stage.ts'

let server: EmbeddedServer
beforeAll(async () => {
  server = await startEmbedded({ settings: { fsync: 'off' } })
})
afterAll(() => server[Symbol.asyncDispose]())

const subject = (...schema: string[]): Promise<Subject> => openSubject(server, ...schema)

const orders = [
  'CREATE TABLE orders (id int PRIMARY KEY, state text NOT NULL, note text)',
  'ALTER TABLE orders REPLICA IDENTITY FULL',
  `INSERT INTO orders SELECT n, 'new', CASE WHEN n % 3 = 0 THEN NULL ELSE 'note ' || n END FROM generate_series(1, 100) n`,
]

describe('undoing a transaction', () => {
  it('a DELETE without WHERE, and what came after it stays', async () => {
    await using one = await subject(...orders)
    const before = await rowsOf(one, 'orders')
    const xid = await transaction(one, 'DELETE FROM orders')
    await one.sql(`INSERT INTO orders VALUES (200, 'later', NULL)`)
    const report = await undo(one, [xid])
    expect(report.tables).toMatchObject([{ name: 'orders', inserts: 100, updates: 0, deletes: 0, already: 0 }])
    expect((await rowsOf(one, 'orders'))['orders']?.sort()).toEqual(
      [...(before['orders'] ?? []), '(200,later,)'].sort(),
    )
    // An undo is a transaction like any other.
    await undo(one, [String(report.xid)])
    expect(await rowsOf(one, 'orders')).toEqual({ orders: ['(200,later,)'] })
  })

  it('inserts, updates and deletes of the same rows, in the end as they had been', async () => {
    await using one = await subject(...orders)
    const before = await rowsOf(one, 'orders')
    const xid = await transaction(
      one,
      `UPDATE orders SET state = 'x' WHERE id <= 10`,
      `UPDATE orders SET state = 'y', note = NULL WHERE id <= 5`,
      `DELETE FROM orders WHERE id BETWEEN 3 AND 20`,
      `INSERT INTO orders VALUES (3, 'again', 'other'), (300, 'fresh', NULL), (301, 'short', NULL)`,
      `DELETE FROM orders WHERE id = 301`,
      `UPDATE orders SET id = id + 1000 WHERE id > 90`,
      `UPDATE orders SET id = id + 1 WHERE id = 300`,
      'SAVEPOINT s',
      'DELETE FROM orders',
      'ROLLBACK TO s',
    )
    const after = await rowsOf(one, 'orders')
    const report = await undo(one, [xid])
    expect(report.tables).toMatchObject([{ inserts: 17, updates: 13, deletes: 1 }])
    expect(await rowsOf(one, 'orders')).toEqual(before)
    await undo(one, [String(report.xid)])
    expect(await rowsOf(one, 'orders')).toEqual(after)
  })

  it('finds what was changed since, by kind, and acts by policy', async () => {
    await using one = await subject(...orders)
    const xid = await transaction(
      one,
      `DELETE FROM orders WHERE id <= 2`,
      `UPDATE orders SET state = 'paid' WHERE id BETWEEN 3 AND 6`,
      `INSERT INTO orders VALUES (201, 'new', NULL), (202, 'new', NULL)`,
    )
    await one.sql(
      `INSERT INTO orders VALUES (1, 'other', NULL)`,
      `UPDATE orders SET state = 'sent' WHERE id = 3`,
      // Another column: no conflict.
      `UPDATE orders SET note = 'mine' WHERE id = 4`,
      `DELETE FROM orders WHERE id IN (5, 202)`,
      `UPDATE orders SET note = 'theirs' WHERE id = 201`,
    )
    const now = await rowsOf(one, 'orders')
    const stopped = await undo(one, [xid])
    expect(stopped).toMatchObject({ conflicts: 4, xid: undefined })
    expect(stopped.tables).toMatchObject([
      { inserts: 1, updates: 2, deletes: 0, already: 1, conflicts: { changed: 2, exists: 1, gone: 1 } },
    ])
    expect(stopped.shown.map(({ undo, state, row }) => [undo, state, row['id']])).toEqual(
      expect.arrayContaining([
        ['insert', 'exists', '1'],
        ['update', 'changed', '3'],
        ['update', 'gone', '5'],
        ['delete', 'changed', '201'],
      ]),
    )
    expect(await rowsOf(one, 'orders')).toEqual(now)
    expect(await preview(one, [xid], { policy: 'skip' })).toMatchObject({ conflicts: 4 })

    const skipped = await undo(one, [xid], { policy: 'skip' })
    const some = 'SELECT id, state, note FROM orders WHERE id < 7 OR id > 200 ORDER BY id'
    expect((await one.client.query({ text: some, rowMode: 'array' })).rows).toEqual([
      [1, 'other', null],
      [2, 'new', 'note 2'],
      [3, 'sent', null],
      [4, 'new', 'mine'],
      [6, 'new', null],
      [201, 'new', 'theirs'],
    ])
    await undo(one, [String(skipped.xid)])
    expect(await rowsOf(one, 'orders')).toEqual(now)

    const forced = await undo(one, [xid], { policy: 'force' })
    expect((await one.client.query({ text: some, rowMode: 'array' })).rows).toEqual([
      [1, 'new', 'note 1'],
      [2, 'new', 'note 2'],
      [3, 'new', null],
      [4, 'new', 'mine'],
      [6, 'new', null],
    ])
    await undo(one, [String(forced.xid)])
    expect(await rowsOf(one, 'orders')).toEqual(now)
  })

  it('of tables whose old rows come with their key alone, from the base before', async () => {
    await using one = await subject(
      'CREATE TABLE orders (id int PRIMARY KEY, state text NOT NULL, long text)',
      'ALTER TABLE orders ALTER long SET STORAGE EXTERNAL',
      `INSERT INTO orders SELECT n, 'new', CASE WHEN n % 2 = 0 THEN repeat('long ' || n, 2000) END FROM generate_series(1, 60) n`,
    )
    await one.opened.base()
    await one.sql(
      `UPDATE orders SET state = 'moved' WHERE id BETWEEN 11 AND 30`,
      `UPDATE orders SET id = id + 100 WHERE id BETWEEN 51 AND 60`,
      `INSERT INTO orders VALUES (200, 'late', 'short')`,
      'DELETE FROM orders WHERE id = 1',
      `INSERT INTO orders VALUES (1, 'back', NULL)`,
    )
    const before = await rowsOf(one, 'orders')
    const xid = await transaction(
      one,
      `UPDATE orders SET state = 'a'`,
      `UPDATE orders SET long = 'cut', state = 'b' WHERE id IN (2, 3, 11, 12, 200)`,
      'DELETE FROM orders WHERE id BETWEEN 1 AND 20 OR id = 200',
      `UPDATE orders SET id = -id WHERE id BETWEEN 30 AND 40`,
      `INSERT INTO orders VALUES (5, 'fifth', NULL)`,
    )
    const after = await rowsOf(one, 'orders')
    await one.sql(`UPDATE orders SET state = 'theirs' WHERE id = 45`)
    // Two rows at a time, and folded anew after every block: many rounds, and many layers.
    const report = await undo(one, [xid], { policy: 'skip', rowsAtOnce: 7, memory_bytes: 1 })
    expect(report.tables).toMatchObject([{ conflicts: { changed: 1, exists: 0, gone: 0 } }])
    await one.sql(`UPDATE orders SET state = 'new' WHERE id = 45`)
    expect(await rowsOf(one, 'orders')).toEqual(before)
    await undo(one, [String(report.xid)])
    await one.sql(`UPDATE orders SET state = 'a' WHERE id = 45`)
    expect(await rowsOf(one, 'orders')).toEqual(after)
  })
})
