import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { here, type Ran } from '../cli/walback.ts'
import { openShop, type Shop } from './shop.ts'

let shop: Shop
const moments: string[] = []

beforeAll(async () => {
  shop = await openShop(14)
  moments.push(await shop.now())
  await shop.write(
    `UPDATE orders SET amount = 5000 WHERE id = 7`,
    `DELETE FROM orders WHERE id > 90`,
    `INSERT INTO orders (customer, amount) VALUES (3, 1)`,
    `INSERT INTO notes VALUES ('twice', 1), ('', 3)`,
    `DELETE FROM notes WHERE at IS NULL`,
  )
  moments.push(await shop.now())
  await shop.write(
    `ALTER TABLE customers ADD COLUMN city text DEFAULT 'Ulm'`,
    `CREATE TABLE fresh (id int PRIMARY KEY)`,
    `INSERT INTO fresh VALUES (1)`,
    `DROP TABLE notes`,
    `UPDATE customers SET name = 'renamed' WHERE id = 2`,
  )
})

afterAll(() => shop[Symbol.asyncDispose]())

const run = (...args: string[]): Promise<Ran> => here([...args, ...shop.flags], { cwd: shop.folder.path })

describe('walback query', () => {
  it('answers as of then, read with all rights to read and no other', async () => {
    const asked = `SELECT count(*) AS orders, max(amount) AS largest, (SELECT count(*) FROM customers) AS customers, total() FROM orders`
    const then = await run('query', '--to-lsn', moments[0] as string, asked)
    expect(then).toMatchObject({
      exit: 0,
      stdout: 'orders  largest  customers  total\n100     100.00   10         5050.00\n',
    })
    expect(then.stderr).toContain('on the throwaway server (PostgreSQL 18)')
    const later = await run('query', '--at', 'latest', '--csv', `${asked};`)
    expect(later.stdout).toBe('orders,largest,customers,total\n91,5000.00,10,9089.00\n')
    const may = await run(
      'query',
      '--at',
      'latest',
      '--csv',
      `SELECT rolsuper, pg_has_role('pg_execute_server_program', 'usage') FROM pg_roles WHERE rolname = current_user`,
    )
    expect(may.stdout).toBe('rolsuper,pg_has_role\nf,f\n')
  })
})
