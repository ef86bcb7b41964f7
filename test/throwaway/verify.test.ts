import { readdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { here, type Ran, sql } from '../cli/walback.ts'
import { linesOf, openShop, type Shop } from './shop.ts'

let shop: Shop

beforeAll(async () => {
  shop = await openShop(14)
  await shop.write(`DELETE FROM orders WHERE id > 90`, `UPDATE customers SET name = 'renamed' WHERE id = 2`)
})

afterAll(() => shop[Symbol.asyncDispose]())

const run = (...args: string[]): Promise<Ran> => here([...args, ...shop.flags], { cwd: shop.folder.path })
const rehearse = (...args: string[]): Promise<Ran> => run('verify', '--restore', '--on', shop.url, ...args)
const proofs = async (): Promise<string[]> =>
  (await readdir(path.join(shop.folder.path, 'repo/sources/shop'), { recursive: true })).filter((file) =>
    /proofs\//.test(file),
  )

describe('walback verify --restore', () => {
  it('proves the latest state, notes how long it took, and status and plans say so', async () => {
    expect((await run('status')).stdout).toContain('proven       never (walback verify --restore)')
    const plan = ['restore', '--to', 'latest', '--into-url', shop.url.replace(/postgres$/, 'nowhere'), '--plan']
    expect((await run(...plan)).stdout).toContain('time       not known')
    const ran = await run('verify', '--restore')
    expect(ran).toMatchObject({ exit: 0 })
    expect(ran.stdout).toMatch(
      /^shop {2}proven {2}restorable to 0\/\w+ \(.*Z, the latest\) in .* s; checked: 103 rows of 3 tables, 1 foreign key, 2 indexes, 0 assertions\n$/,
    )
    const status = JSON.parse((await run('status', '--json')).stdout)
    expect(status.last_proven).toEqual(status.last_proof)
    expect(status.last_proven).toMatchObject({
      outcome: 'proven',
      target: 'latest',
      random: false,
      server: { kind: 'throwaway', major: 18 },
      tables: 3,
      rows: 103,
      proven: { tables: 3, rows: 103 },
      checked: { foreign_keys: 1, indexes: 2, assertions: 0 },
      warnings: [],
      findings: [],
    })
    expect((await run('status')).stdout).toMatch(
      /proven {7}\d+\.\d s ago: restorable to 0\/\w+ \(.*, the latest\) in \d+\.\d s\n/,
    )
    expect((await run(...plan)).stdout).toMatch(
      /time {7}about \d+\.\d s, from the restore of \d{4}-.*Z on a throwaway server/,
    )
    expect((await run('verify')).exit).toBe(0)
  })

  it("runs the user's assertions, names each that does not hold, looks at the time, and ends with 1", async () => {
    const config = path.join(shop.folder.path, 'assertions.yaml')
    await writeFile(
      config,
      `version: 1
sources:
  shop:
    assertions:
      - { name: some orders, sql: "SELECT count(*) > 50 FROM orders" }
      - { name: ninety orders, sql: "SELECT count(*) FROM orders", expect: 90 }
      - { name: nobody is vip, sql: "SELECT bool_or(vip) FROM customers", expect: false }
      - { name: two rows, sql: "SELECT true FROM generate_series(1, 2)" }
      - { name: a table, sql: "SELECT true FROM nowhere" }
      - { name: writes, sql: "SELECT true FROM set_config('a.b', nextval('orders_id_seq')::text, true)" }
`,
    )
    const ran = await rehearse('-c', config, '--max-time', '1ms', '--json')
    expect(ran.exit).toBe(1)
    expect(linesOf(ran).filter(({ type }) => type === 'finding')).toMatchObject([
      { kind: 'assertion', name: 'nobody is vip', message: 'it gives "t", and not "f"' },
      { kind: 'assertion', name: 'two rows', message: 'it gives more than one row' },
      { kind: 'assertion', name: 'a table', message: expect.stringContaining('"nowhere" does not exist') },
      { kind: 'assertion', name: 'writes', message: expect.stringContaining('read-only') },
      { kind: 'too-slow', name: 'shop', message: expect.stringMatching(/^it took [\d.]+ s, and may take 0\.001 s$/) },
    ])
    const { stdout } = await run('status')
    expect(stdout).toMatch(
      /proven {7}NOT PROVEN \d+\.\d s ago at .*, 5 findings: assertion nobody is vip: .*; before that, .* ago: restorable to/,
    )
    const status = JSON.parse((await run('status', '--json')).stdout)
    expect(status).toMatchObject({ last_proof: { outcome: 'failed' }, last_proven: { outcome: 'proven' } })
  })

  it.each([
    [['--random', '--to', 'latest'], 2, /exclude each other/],
    [['--no-read'], 2, /does not go with/],
    [['--to-lsn', 'F/0'], 20, /the archive reaches/],
  ])('refuses %j', async (args, exit, message) => {
    const before = await proofs()
    const ran = await rehearse(...args)
    expect([ran.exit, ran.stderr]).toEqual([exit, expect.stringMatching(message)])
    expect(await proofs()).toEqual(before)
  })

  it('takes no target without --restore', async () => {
    for (const flags of [['--random'], ['--max-time', '1h']])
      expect(await run('verify', ...flags)).toMatchObject({
        exit: 2,
        stderr: expect.stringContaining('add --restore'),
      })
  })

  it('finds an archive that is damaged, ends with 21, and leaves no record where none is wanted', async () => {
    const all = await readdir(path.join(shop.folder.path, 'repo'), { recursive: true })
    const file = path.join(shop.folder.path, 'repo', all.find((name) => name.endsWith('.wbr')) ?? '')
    const bytes = await readFile(file)
    const other = Buffer.from(bytes)
    other[100] = (other[100] as number) ^ 4
    await writeFile(file, other)
    const before = await proofs()
    const ran = await rehearse('--no-record')
    await writeFile(file, bytes)
    expect(ran).toMatchObject({
      exit: 21,
      stdout: expect.stringMatching(/^FAILED {2}damaged {2}shop: .*\.wbr.*\nshop {2}FAILED/),
    })
    expect(await proofs()).toEqual(before)
    expect((await sql(shop.url, `SELECT FROM pg_database WHERE datname LIKE 'walback%'`)).length).toBe(0)
  })

  it('finds a foreign key that rows do not keep which came after it', async () => {
    await shop.write(
      // From here on the restore replays, and no foreign key is asked any more.
      `ALTER TABLE notes ADD COLUMN more int`,
      `BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM customers WHERE id = 3; COMMIT`,
    )
    const ran = await rehearse('--no-record')
    expect(ran.exit).toBe(1)
    expect(ran.stdout).toMatch(
      /FAILED {2}foreign-key {2}public\.orders\.orders_customer_fkey: .*\(Key \(customer\)=\(3\) is not present/,
    )
  })
})
