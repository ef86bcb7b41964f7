import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { packageOf } from '../support/majors.ts'
import { here, type Ran, sql, stateOf } from './walback.ts'

describe.each([14, 18])('uninstall on PostgreSQL %i', (major) => {
  let server: EmbeddedServer
  let place: string
  beforeAll(async () => {
    server = await startEmbedded({ package: packageOf(major), settings: { fsync: 'off' } })
    place = await mkdtemp(path.join(tmpdir(), 'walback-uninstall-'))
  })
  afterAll(async () => {
    await rm(place, { recursive: true, force: true })
    await server?.[Symbol.asyncDispose]()
  })

  const on = (url: string, repo: string, ...args: string[]): Promise<Ran> =>
    here([...args, '--db', url, '--repo', repo], { cwd: place })

  /** A database with a keyless table and a key, set up by the role of the URL. */
  async function database(name: string): Promise<string> {
    await sql(server.url(), `CREATE DATABASE ${name}`)
    await sql(server.url(name), 'CREATE TABLE audit (what text); CREATE TABLE kept (id int PRIMARY KEY)')
    return server.url(name)
  }

  it('leaves the catalogs as they were, but for identities, of which it tells', async () => {
    const url = await database('whole')
    const before = await stateOf(url, place)
    expect(await on(url, 'whole', 'init')).toMatchObject({ exit: 0 })
    await sql(url, 'CREATE TABLE later (what text)', 'CREATE PUBLICATION theirs FOR TABLE later')
    const ran = await on(url, 'whole', 'uninstall', '--yes', '--json')
    expect(ran).toMatchObject({ exit: 0 })
    expect(JSON.parse(ran.stdout)).toMatchObject({
      left: [],
      replica_identity_full: [
        { table: 'public.audit', published_by: [], sql: 'ALTER TABLE ONLY "public"."audit" REPLICA IDENTITY DEFAULT;' },
        { table: 'public.later', published_by: ['theirs'] },
      ],
    })
    await sql(url, 'DROP PUBLICATION theirs', 'DROP TABLE later')
    await sql(url, 'ALTER TABLE audit REPLICA IDENTITY DEFAULT')
    expect((await stateOf(url, place)) as object).toMatchObject({ server: (before as { server: unknown }).server })
  })

  it('removes what a role without superuser rights has set up', async () => {
    const url = await database('plain')
    await sql(url, 'CREATE ROLE app LOGIN REPLICATION', 'GRANT CREATE ON DATABASE plain TO app')
    await sql(url, 'ALTER TABLE audit OWNER TO app', 'ALTER TABLE kept OWNER TO app')
    const at = new URL(url)
    at.username = 'app'
    expect(await on(at.href, 'plain', 'init')).toMatchObject({ exit: 0 })
    expect(JSON.stringify(await stateOf(url, place))).toContain('publication walback_plain')
    expect(await on(at.href, 'plain', 'uninstall', '--yes')).toMatchObject({ exit: 0 })
    expect(JSON.stringify(await stateOf(url, place))).not.toMatch(/walback_plain|schema walback|event trigger/)
  })

  it('tells of what it does not know to be its own, with what removes it, and fails', async () => {
    const url = await database('leftover')
    expect(await on(url, 'left', 'init')).toMatchObject({ exit: 0 })
    await sql(
      url,
      `SELECT pg_create_logical_replication_slot('walback_gone', 'pgoutput')`,
      `CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'begin end'`,
      'CREATE EVENT TRIGGER walback_theirs ON sql_drop EXECUTE FUNCTION f()',
    )
    const ran = await on(url, 'left', 'uninstall', '--yes')
    expect(ran.exit).toBe(1)
    expect(ran.stderr).toContain(`LEFT: these bear the name of walback and belong to no source that can be seen`)
    const lines = ran.stderr.split('\n').filter((line) => /walback_(gone|theirs)/.test(line))
    expect(lines.map((line) => line.trim())).toEqual([
      `SELECT pg_catalog.pg_drop_replication_slot('walback_gone');`,
      'DROP EVENT TRIGGER "walback_theirs";',
    ])
    await sql(url, ...lines)
    expect(await on(url, 'left', 'uninstall', '--yes')).toMatchObject({ exit: 0 })
    expect(JSON.stringify(await stateOf(url, place))).not.toMatch(/walback_(leftover|gone|theirs)|schema walback/)
  })

  it('keeps what another source of the database needs, and a schema that is not of its making', async () => {
    const url = await database('two')
    expect(await on(url, 'one', 'init', '--source', 'one')).toMatchObject({ exit: 0 })
    expect(await on(url, 'other', 'init', '--source', 'other')).toMatchObject({ exit: 0 })
    expect(await on(url, 'one', 'uninstall', '--source', 'one', '--yes')).toMatchObject({ exit: 0 })
    const between = JSON.stringify(await stateOf(url, place))
    expect(between).toMatch(/schema walback.*slot walback_other/)
    expect(between).not.toContain('walback_one')
    expect(await on(url, 'other', 'uninstall', '--source', 'other', '--yes')).toMatchObject({ exit: 0 })
    expect(JSON.stringify(await stateOf(url, place))).not.toMatch(/walback_(one|other)|schema walback/)
    await sql(url, 'CREATE SCHEMA walback', 'CREATE TABLE walback.mine (n int)')
    expect(await on(url, 'other', 'uninstall', '--source', 'other', '--yes')).toMatchObject({ exit: 1 })
    expect(await sql(url, 'SELECT n FROM walback.mine')).toEqual([])
  })

  it('refuses while the slot is in use, and changes nothing', async () => {
    const url = await database('busy')
    expect(await on(url, 'busy', 'init')).toMatchObject({ exit: 0 })
    const before = await stateOf(url, place)
    const reader = new pg.Client({ connectionString: url, replication: 'database' } as pg.ClientConfig)
    reader.on('error', () => undefined)
    await reader.connect()
    const reading = reader
      .query(`START_REPLICATION SLOT walback_busy LOGICAL 0/0 (proto_version '1', publication_names 'walback_busy')`)
      .catch(() => undefined)
    const taken = async (): Promise<boolean> =>
      (
        await sql<{ active: boolean }>(url, `SELECT active FROM pg_replication_slots WHERE slot_name = 'walback_busy'`)
      )[0]?.active === true
    for (let n = 0; n < 200 && !(await taken()); n++) await new Promise((settle) => setTimeout(settle, 20))
    const ran = await on(url, 'busy', 'uninstall', '--yes')
    expect(ran).toMatchObject({ exit: 22, stderr: expect.stringContaining('is in use by the server process') })
    expect(await stateOf(url, place)).toEqual(before)
    await sql(url, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'walback_busy'`)
    await reading
  })
})
