/** A small shop of an older major, with its archive and three moments: what the tests of the past look back at. */
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { type Folder, folder, here, type Ran, sql, succeed } from '../cli/walback.ts'
import { packages } from '../restore/round-trip.ts'

export interface Shop extends AsyncDisposable {
  readonly url: string
  readonly folder: Folder
  /** The flags by which a command finds repository and source. */
  readonly flags: readonly string[]
  /** Writes, and brings it into the archive. */
  write(...statements: string[]): Promise<void>
  /** A position that everything written so far lies before. */
  now(): Promise<string>
}

const schema = `
  CREATE ROLE clerk LOGIN;
  CREATE ROLE auditor NOLOGIN;
  CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, vip boolean);
  CREATE TABLE orders (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer int NOT NULL REFERENCES customers,
    amount numeric(10, 2) CHECK (amount >= 0),
    doubled numeric GENERATED ALWAYS AS (amount * 2) STORED);
  CREATE TABLE notes (what text, at int);
  CREATE VIEW spenders AS SELECT customer, sum(amount) AS spent FROM orders GROUP BY customer;
  ALTER TABLE orders OWNER TO clerk;
  ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
  CREATE POLICY nobody ON customers TO auditor USING (false);
  CREATE FUNCTION total() RETURNS numeric LANGUAGE sql STABLE AS 'SELECT sum(amount) FROM public.orders';
  REVOKE EXECUTE ON FUNCTION total() FROM PUBLIC;
  INSERT INTO customers SELECT n, 'customer ' || n, n = 1 FROM generate_series(1, 10) n;
  INSERT INTO orders (customer, amount) SELECT 1 + n % 10, n FROM generate_series(1, 100) n;
  INSERT INTO notes VALUES ('twice', 1), ('twice', 1), ('tab	and \\', NULL)`

export async function openShop(major: 14 | 18 = 14, init: readonly string[] = []): Promise<Shop> {
  const server = await startEmbedded({ package: packages[major], settings: { fsync: 'off' } })
  const place = await folder()
  const url = server.url()
  const flags = ['--repo', 'repo', '--source', 'shop']
  const run = (...args: string[]) => succeed([...args, '--db', url, ...flags], { cwd: place.path }, here)
  const shop: Shop = {
    url,
    folder: place,
    flags,
    write: async (...statements) => {
      await sql(url, ...statements)
      await run('backup', '--incremental')
    },
    now: async () => {
      const [at] = await sql<{ lsn: string }>(url, 'SELECT pg_current_wal_insert_lsn()::text AS lsn')
      return at?.lsn ?? ''
    },
    [Symbol.asyncDispose]: async () => {
      await server[Symbol.asyncDispose]()
      await place[Symbol.asyncDispose]()
    },
  }
  await sql(url, schema)
  await run('init', '--no-config', ...init)
  await run('backup', '--full')
  return shop
}

export const linesOf = ({ stdout }: Ran): Record<string, unknown>[] =>
  stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
