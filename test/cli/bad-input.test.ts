import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseLsn } from '../../src/model/lsn.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { ReplicationStream } from '../../src/postgres/replication.ts'
import { type Folder, folder, here, sql, stateOf, succeed, walback } from './walback.ts'

let server: EmbeddedServer
let physical: EmbeddedServer
let place: Folder

beforeAll(async () => {
  ;[server, physical] = await Promise.all([startEmbedded(), startEmbedded({ settings: { wal_level: 'replica' } })])
  place = await folder()
  const cwd = place.path
  await sql(
    server.url(),
    'CREATE DATABASE app',
    'CREATE ROLE plain LOGIN',
    'GRANT CREATE ON DATABASE app TO plain',
    'CREATE DATABASE fresh',
  )
  await sql(server.url('app'), 'CREATE TABLE orders (id int PRIMARY KEY)', 'INSERT INTO orders VALUES (1)')
  const flags = ['--db', server.url('app'), '--repo', 'repo']
  await succeed(['init', '--no-config', ...flags], { cwd })
  await succeed(['backup', '--full', ...flags], { cwd })
  await sql(server.url('app'), 'INSERT INTO orders VALUES (2)')
  await succeed(['mark', 'here', ...flags], { cwd })
  await succeed(['backup', '--incremental', ...flags], { cwd })
  await succeed(['init', '--no-config', '--db', server.url('fresh'), '--repo', 'two'], { cwd })
  await succeed(['init', '--no-config', '--db', server.url('app'), '--repo', 'two', '--source', 'other'], { cwd })
  await succeed(['init', '--no-config', '--db', server.url('fresh'), '--repo', 'bare', '--source', 'bare'], { cwd })
  await writeFile(path.join(cwd, 'a-file'), 'not a folder')
  await writeFile(path.join(cwd, 'broken.yaml'), 'version: 1\nsuorces: {}\n')
})

afterAll(async () => {
  await Promise.all([server?.[Symbol.asyncDispose](), physical?.[Symbol.asyncDispose]()])
  await place?.[Symbol.asyncDispose]()
})

interface Bad {
  readonly what: string
  readonly args: readonly string[]
  readonly exit: number
  readonly name: string
  readonly message: RegExp
  readonly hint: RegExp
  readonly env?: Readonly<Record<string, string>>
}

/** `DB`, `FRESH`, `PLAIN` and `PHYSICAL` stand for the databases, which have no address yet when the table is read. */
const cases: readonly Bad[] = [
  {
    what: 'a URL of another kind',
    args: ['init', '--db', 'mysql://h/app', '--repo', 'new'],
    exit: 2,
    name: 'usage',
    message: /malformed connection string/,
    hint: /postgres:\/\//,
  },
  {
    what: 'a port that is none',
    args: ['init', '--db', 'postgres://h:port/app', '--repo', 'new'],
    exit: 2,
    name: 'usage',
    message: /port 1 is not a number/,
    hint: /percent-encoded/,
  },
  {
    what: 'a server that does not answer',
    args: ['init', '--db', 'postgres://u@127.0.0.1:1/app', '--repo', 'new'],
    exit: 30,
    name: 'database',
    message: /cannot connect to postgres:\/\/u@127\.0\.0\.1:1\/app: .*ECONNREFUSED/,
    hint: /is the server running/,
  },
  {
    what: 'a host that is not there',
    args: ['init', '--db', 'postgres://u@no-such-host.invalid/app', '--repo', 'new'],
    exit: 30,
    name: 'database',
    message: /cannot connect/,
    hint: /no such host|name server/,
  },
  {
    what: 'a database that is not there',
    args: ['init', '--db', 'NONE', '--repo', 'new'],
    exit: 30,
    name: 'database',
    message: /database "none" does not exist/,
    hint: /psql -l/,
  },
  {
    what: 'a server without logical decoding',
    args: ['init', '--db', 'PHYSICAL', '--repo', 'new'],
    exit: 30,
    name: 'prerequisite',
    message: /wal_level is replica/,
    hint: /ALTER SYSTEM SET wal_level = 'logical';/,
  },
  {
    what: 'a role that may not replicate',
    args: ['init', '--db', 'PLAIN', '--repo', 'new'],
    exit: 30,
    name: 'prerequisite',
    message: /role plain may not replicate/,
    hint: /ALTER ROLE "plain" REPLICATION;/,
  },
  {
    what: 'a repository below a file',
    args: ['init', '--db', 'FRESH', '--repo', 'a-file/repo'],
    exit: 31,
    name: 'storage',
    message: /ENOTDIR/,
    hint: /a part of the repository path is a file/,
  },
  {
    what: 'a repository that is a file',
    args: ['status', '--repo', 'a-file'],
    exit: 31,
    name: 'storage',
    message: /ENOTDIR/,
    hint: /is a file/,
  },
  {
    what: 'a repository of an unknown kind',
    args: ['init', '--db', 'FRESH', '--repo', 'ftp://h/x'],
    exit: 2,
    name: 'usage',
    message: /no store for the repository URL/,
    hint: /file:\/\//,
  },
  {
    what: 'no repository there',
    args: ['status', '--repo', 'nowhere'],
    exit: 10,
    name: 'no_repository',
    message: /there is no repository at file:\/\/.*nowhere/,
    hint: /walback init/,
  },
  {
    what: 'no repository given',
    args: ['status'],
    exit: 2,
    name: 'usage',
    message: /which repository\?/,
    hint: /--repo/,
  },
  {
    what: 'no database given',
    args: ['backup', '--full', '--repo', 'repo'],
    exit: 2,
    name: 'usage',
    message: /which database\?/,
    hint: /--db/,
  },
  {
    what: 'an unknown source',
    args: ['status', '--repo', 'repo', '--source', 'shop'],
    exit: 10,
    name: 'no_repository',
    message: /holds no source shop/,
    hint: /it holds app/,
  },
  {
    what: 'a source that cannot be a name',
    args: ['status', '--repo', 'repo', '--source', '../x'],
    exit: 2,
    name: 'usage',
    message: /not a name for a source/,
    hint: /--source/,
  },
  {
    what: 'one of several sources',
    args: ['status', '--repo', 'two'],
    exit: 2,
    name: 'usage',
    message: /which source\?/,
    hint: /one of fresh, other/,
  },
  {
    what: 'another database under a known name',
    args: ['backup', '--incremental', '--repo', 'repo', '--db', 'FRESH', '--source', 'app'],
    exit: 22,
    name: 'refused',
    message: /another one/,
    hint: /--source/,
  },
  {
    what: 'no kind of backup',
    args: ['backup', '--db', 'DB', '--repo', 'repo'],
    exit: 2,
    name: 'usage',
    message: /what kind of backup/,
    hint: /--full/,
  },
  {
    what: 'both kinds of backup',
    args: ['backup', '--full', '--incremental', '--db', 'DB', '--repo', 'repo'],
    exit: 2,
    name: 'usage',
    message: /exclude each other/,
    hint: /--incremental/,
  },
  {
    what: 'a number of jobs that is none',
    args: ['backup', '--full', '--jobs', '0', '--db', 'DB', '--repo', 'repo'],
    exit: 2,
    name: 'usage',
    message: /--jobs/,
    hint: /walback backup --help/,
  },
  {
    what: 'an unknown table',
    args: ['log', '--repo', 'repo', '--table', 'order'],
    exit: 2,
    name: 'usage',
    message: /there is no table "order" in the archive/,
    hint: /did you mean orders\?/,
  },
  {
    what: 'an unknown operation',
    args: ['log', '--repo', 'repo', '--op', 'delet'],
    exit: 2,
    name: 'usage',
    message: /no operation "delet"/,
    hint: /did you mean delete|walback log --help/,
  },
  {
    what: 'a condition on rows that is none',
    args: ['log', '--repo', 'repo', '--rows', 'lots'],
    exit: 2,
    name: 'usage',
    message: /not a condition on rows/,
    hint: />100/,
  },
  {
    what: 'an order that is none',
    args: ['log', '--repo', 'repo', '--sort', 'size'],
    exit: 2,
    name: 'usage',
    message: /--sort/,
    hint: /--help/,
  },
  {
    what: 'a time without a zone',
    args: ['log', '--repo', 'repo', '--since', '2026-11-23T10:00:00'],
    exit: 2,
    name: 'usage',
    message: /names no zone/,
    hint: /--tz/,
  },
  {
    what: 'a slashed date',
    args: ['restore', '--repo', 'repo', '--to', '03/04/2026', '--into', 'x', '--db', 'DB'],
    exit: 2,
    name: 'usage',
    message: /not a time: "03\/04\/2026"/,
    hint: /write it as 2026-/,
  },
  {
    what: 'words that are no time',
    args: ['restore', '--repo', 'repo', '--to', 'yesterday 3pm', '--into', 'x', '--db', 'DB'],
    exit: 2,
    name: 'usage',
    message: /not a time/,
    hint: /minutes ago/,
  },
  {
    what: 'a zone that is none',
    args: ['log', '--repo', 'repo', '--since', '2026-11-23T10:00:00', '--tz', 'Mars/Olympus'],
    exit: 2,
    name: 'usage',
    message: /not a time zone: "Mars\/Olympus"/,
    hint: /Europe\/Berlin/,
  },
  {
    what: 'around and since at once',
    args: ['log', '--repo', 'repo', '--around', 'now', '--since', 'now'],
    exit: 2,
    name: 'usage',
    message: /--around excludes/,
    hint: /either/,
  },
  {
    what: 'two targets',
    args: ['restore', '--repo', 'repo', '--to', 'latest', '--to-tx', '7', '--into', 'x', '--db', 'DB'],
    exit: 2,
    name: 'usage',
    message: /more than one target: --to, --to-tx/,
    hint: /one of --to TIME/,
  },
  {
    what: 'no target',
    args: ['restore', '--repo', 'repo', '--into', 'x', '--db', 'DB'],
    exit: 2,
    name: 'usage',
    message: /restore to when\?/,
    hint: /one of --to TIME/,
  },
  {
    what: 'no destination',
    args: ['restore', '--repo', 'repo', '--to', 'latest', '--db', 'DB'],
    exit: 2,
    name: 'usage',
    message: /restore where\?/,
    hint: /--into NEWDB/,
  },
  {
    what: 'no server to restore to',
    args: ['restore', '--repo', 'repo', '--to', 'latest', '--into', 'x'],
    exit: 2,
    name: 'usage',
    message: /on which server/,
    hint: /--into-url/,
  },
  {
    what: 'a name too long for a database',
    args: ['restore', '--repo', 'repo', '--to', 'latest', '--into', 'x'.repeat(64), '--db', 'DB'],
    exit: 2,
    name: 'usage',
    message: /not a name for a database/,
    hint: /63 bytes/,
  },
  {
    what: 'a position that is none',
    args: ['restore', '--repo', 'repo', '--to-lsn', '12345', '--into', 'x', '--db', 'DB'],
    exit: 2,
    name: 'usage',
    message: /not a log position/,
    hint: /0\/16B3748/,
  },
  {
    what: 'a transaction id that is none',
    args: ['restore', '--repo', 'repo', '--to-tx', 'last', '--into', 'x', '--db', 'DB'],
    exit: 2,
    name: 'usage',
    message: /not a transaction id/,
    hint: /walback log/,
  },
  {
    what: 'a target before the first base',
    args: ['restore', '--repo', 'repo', '--to', '2020-01-01T00:00:00Z', '--into', 'x', '--db', 'DB'],
    exit: 20,
    name: 'outside_window',
    message: /before the first base backup/,
    hint: /restorable: .*\n.*nearest: --to-lsn/,
  },
  {
    what: 'a target that is not archived yet',
    args: ['restore', '--repo', 'repo', '--to', '2100-01-01T00:00:00Z', '--into', 'x', '--db', 'DB'],
    exit: 20,
    name: 'outside_window',
    message: /does not reach/,
    hint: /--to latest/,
  },
  {
    what: 'an unknown mark',
    args: ['restore', '--repo', 'repo', '--to-mark', 'there', '--into', 'x', '--db', 'DB'],
    exit: 20,
    name: 'outside_window',
    message: /mark "there" is not in the archive/,
    hint: /walback/,
  },
  {
    what: 'an unknown transaction',
    args: ['restore', '--repo', 'repo', '--before-tx', '999999', '--into', 'x', '--db', 'DB'],
    exit: 20,
    name: 'outside_window',
    message: /transaction 999999 is not in the archive/,
    hint: /walback log/,
  },
  {
    what: 'a source without a base',
    args: ['restore', '--repo', 'bare', '--to', 'latest', '--into', 'x', '--db', 'DB'],
    exit: 20,
    name: 'outside_window',
    message: /no base backup/,
    hint: /backup --full/,
  },
  {
    what: 'a restore that nobody confirmed',
    args: ['restore', '--repo', 'repo', '--to', 'latest', '--into', 'x', '--db', 'DB'],
    exit: 22,
    name: 'refused',
    message: /not confirmed/,
    hint: /add --yes/,
  },
  {
    what: 'a database that is there',
    args: ['restore', '--repo', 'repo', '--to', 'latest', '--into', 'app', '--db', 'DB', '--yes'],
    exit: 22,
    name: 'refused',
    message: /database app is not empty/,
    hint: /does not exist yet/,
  },
  {
    what: 'an unknown base',
    args: ['info', '20200101T000000Z-000000', '--repo', 'repo'],
    exit: 2,
    name: 'usage',
    message: /there is no base backup/,
    hint: /the latest is|did you mean/,
  },
  {
    what: 'no base to show',
    args: ['info', '--repo', 'bare'],
    exit: 1,
    name: 'failed',
    message: /there is no base backup/,
    hint: /backup --full/,
  },
  {
    what: 'a mark that is there',
    args: ['mark', 'here', '--db', 'DB', '--repo', 'repo'],
    exit: 22,
    name: 'refused',
    message: /there is a mark "here" already/,
    hint: /another name/,
  },
  {
    what: 'a mark without a name',
    args: ['mark', '--db', 'DB', '--repo', 'repo'],
    exit: 2,
    name: 'usage',
    message: /missing required argument 'name'/,
    hint: /walback mark --help/,
  },
  {
    what: 'a mark that is no name',
    args: ['mark', ' ', '--db', 'DB', '--repo', 'repo'],
    exit: 2,
    name: 'usage',
    message: /not a name for a mark/,
    hint: /printable/,
  },
  {
    what: 'an uninstall that nobody confirmed',
    args: ['uninstall', '--db', 'DB', '--repo', 'repo'],
    exit: 22,
    name: 'refused',
    message: /not confirmed/,
    hint: /add --yes/,
  },
  {
    what: 'an unknown command',
    args: ['bakcup'],
    exit: 2,
    name: 'usage',
    message: /unknown command 'bakcup'/,
    hint: /did you mean backup\?/,
  },
  {
    what: 'an unknown flag',
    args: ['status', '--rep', 'repo'],
    exit: 2,
    name: 'usage',
    message: /unknown option '--rep'/,
    hint: /did you mean --repo\?/,
  },
  {
    what: 'a word too many',
    args: ['status', 'please', '--repo', 'repo'],
    exit: 2,
    name: 'usage',
    message: /too many arguments/,
    hint: /walback status --help/,
  },
  {
    what: 'flags without a command',
    args: ['--quiet'],
    exit: 2,
    name: 'usage',
    message: /which command\?/,
    hint: /--help/,
  },
  {
    what: 'a configuration that is not there',
    args: ['status', '-c', 'none.yaml'],
    exit: 2,
    name: 'usage',
    message: /cannot read the configuration .*none\.yaml/,
    hint: /WALBACK_CONFIG/,
  },
  {
    what: 'a key that is misspelt',
    args: ['status'],
    env: { WALBACK_CONFIG: 'broken.yaml' },
    exit: 2,
    name: 'usage',
    message: /broken\.yaml:2:1: unknown key "suorces"/,
    hint: /did you mean sources\?/,
  },
]

const filled = (args: readonly string[]): string[] => {
  const stands: Readonly<Record<string, string>> = {
    DB: server.url('app'),
    FRESH: server.url('fresh'),
    NONE: server.url('none'),
    PHYSICAL: physical.url(),
    PLAIN: server.url('app').replace('postgres@', 'plain@'),
  }
  return args.map((word) => stands[word] ?? word)
}

describe('bad input is refused, with one error, a hint and the documented status, and nothing changes', () => {
  it.each(cases)('$what', async ({ args, exit, message, hint, env, name }) => {
    const before = await stateOf(server.url('app'), place.path)
    const options = { cwd: place.path, ...(env ? { env } : {}) }
    const ran = await here(filled(args), options)
    const complaint = /^error: ((?:.+\n {7})*.+)\nhint: ((?:.+\n {6})*.+)\n/m.exec(ran.stderr)
    expect(complaint, ran.stderr).not.toBeNull()
    expect(complaint?.[1]).toMatch(message)
    expect(complaint?.[2]).toMatch(hint)
    expect(ran.stderr.match(/^error:/gm)).toHaveLength(1)
    expect(ran.stderr).not.toMatch(/unexpected|\n {4}at /)
    expect(ran).toMatchObject({ exit, stdout: '' })

    const asJson = await here([...filled(args), '--json'], options)
    const last = JSON.parse(asJson.stderr.trimEnd().split('\n').at(-1) ?? '')
    expect(last).toMatchObject({
      type: 'error',
      code: exit,
      name,
      message: expect.stringMatching(message),
      hint: expect.stringMatching(hint),
    })
    expect(asJson.exit).toBe(exit)
    expect(await stateOf(server.url('app'), place.path)).toEqual(before)
  })

  it('a slot that another session streams', async () => {
    const conninfo = resolveConninfo(server.url('app'), {})
    await using _stream = await ReplicationStream.open(conninfo, {
      slot: 'walback_app',
      publications: ['walback_app'],
      start: parseLsn('0/0'),
      application: 'a thief',
    })
    const ran = await walback(filled(['backup', '--incremental', '--db', 'DB', '--repo', 'repo']), { cwd: place.path })
    expect(ran).toMatchObject({ exit: 11, stdout: '' })
    expect(ran.stderr).toMatch(
      /^error: the replication slot walback_app is in use: .*active for PID \d+\nhint: another walback agent/m,
    )
  })

  it('a slot that is gone, then a source that is another one', async () => {
    const client = new pg.Client({ connectionString: server.url('fresh') })
    await client.connect()
    await client.query(`SELECT pg_drop_replication_slot('walback_bare')`)
    await client.end()
    for (const kind of ['--incremental', '--full']) {
      const ran = await walback(filled(['backup', kind, '--db', 'FRESH', '--repo', 'bare', '--source', 'bare']), {
        cwd: place.path,
      })
      expect(ran).toMatchObject({ exit: 21, stdout: '' })
      expect(ran.stderr).toMatch(/^error: the replication slot walback_bare .*\nhint: run `walback init`/m)
    }
  })

  it('a source that feeds another repository already', async () => {
    const ran = await walback(filled(['init', '--no-config', '--db', 'DB', '--repo', 'new-one']), { cwd: place.path })
    expect(ran).toMatchObject({ exit: 22, stdout: '' })
    expect(ran.stderr).toMatch(/^error: the slot and publication of source app already feed another repository/m)
    expect(ran.stderr).toMatch(/^hint: /m)
  })

  it('a password never shows', async () => {
    for (const url of [
      'postgres://u:s3cret@127.0.0.1:1/app',
      'postgres://u:s3cret@h:port/app',
      'host=127.0.0.1 port=1 password=s3cret',
      'postgres://u:s3/cret@h/app',
    ]) {
      const ran = await walback(['init', '--db', url, '--repo', 'new', '-v'], { cwd: place.path })
      expect(ran.exit).not.toBe(0)
      expect(ran.stderr + ran.stdout).not.toMatch(/s3|cret/)
    }
  })
})
