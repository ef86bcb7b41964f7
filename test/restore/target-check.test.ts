import { describe, expect, it } from 'vitest'
import { everything } from '../../src/model/selection.ts'
import { connect } from '../../src/postgres/connect.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { diskNeedOf } from '../../src/restore/disk-need.ts'
import type { RestorePlan } from '../../src/restore/plan.ts'
import { type CheckedTarget, checkTarget } from '../../src/restore/target-check.ts'
import { readTargetFacts, type TargetFacts } from '../../src/restore/target-facts.ts'
import { MadeArchive } from '../retention/made-archive.ts'

const facts: TargetFacts = {
  names: new Set(),
  restorer: 'ann',
  isSuperuser: true,
  serverVersion: 180_000,
  serverVersionText: '18.0',
  isStandby: false,
  mayCreateDatabase: true,
  mayCreateRole: true,
  extensions: new Map(),
  tablespaces: new Set(['pg_default']),
  hasIcu: true,
  database: undefined,
  localeRefusal: undefined,
  free: { bytes: undefined, why: 'the server is on another host' },
}
const target: CheckedTarget = {
  facts,
  roles: { missing: [], create: new Map() },
  isNew: true,
  extensions: new Set(),
  laterExtensions: new Set(),
  need: { tables_bytes: 100, indexes_bytes: 50, from: 'source' },
  contents: undefined,
}
const base = await (await MadeArchive.begin()).base()
type Changes = Partial<Omit<CheckedTarget, 'facts'>> & { readonly facts?: Partial<TargetFacts> }
const found = (changes: Changes, of = base): string[] =>
  checkTarget(of, { ...target, ...changes, facts: { ...facts, ...changes.facts } }).map(
    ({ level, code }) => `${level} ${code}`,
  )

describe('what a target is found to be', () => {
  it('has nothing to say of one that is as the source', () => {
    expect(found({})).toEqual([])
  })

  it.each<[string, Changes, string[]]>([
    ['a standby', { facts: { isStandby: true } }, ['fails standby']],
    ['no right to make databases', { facts: { mayCreateDatabase: false } }, ['fails no-createdb']],
    ['the same, where none is made', { isNew: false, facts: { mayCreateDatabase: false } }, []],
    ['a database that is not empty', { isNew: false, contents: 'it holds a table' }, ['fails not-empty']],
    ['an older server', { facts: { serverVersion: 140_011 } }, ['may-fail older-major']],
    ['a later server', { facts: { serverVersion: 190_000 } }, ['differs newer-major']],
    ['a locale that is not there', { facts: { localeRefusal: 'no such file' } }, ['fails locale-missing']],
    [
      'an extension that only the stream makes',
      { laterExtensions: new Set(['hstore']) },
      ['may-fail extension-missing'],
    ],
    ['too little room', { facts: { free: { bytes: 149, path: '/data' } } }, ['may-fail disk']],
    ['just enough room', { facts: { free: { bytes: 150, path: '/data' } } }, []],
    [
      'another encoding',
      { isNew: false, facts: { database: { encoding: 'LATIN1', collate: 'C' } } },
      ['may-fail encoding'],
    ],
    [
      'another encoding that has every character, and another order',
      { isNew: false, facts: { database: { encoding: 'UTF8', collate: 'de_DE' } } },
      ['differs collation'],
    ],
    ['an extension that is not there', { extensions: new Set(['postgis']) }, ['fails extension-missing']],
  ])('%s', (_, changes, expected) => {
    expect(found(changes)).toEqual(expected)
  })

  it('an extension in another version, for which one has to be superuser', () => {
    const vector = { name: 'vector', version: '0.8', needsSuperuser: true }
    const changes = { extensions: new Set(['vector']), facts: { extensions: new Map([['vector', vector]]) } }
    expect(found(changes)).toEqual([])
    const recorded = { ...base, extensions: [{ name: 'vector', version: '0.7' }] }
    expect(found(changes, recorded)).toEqual(['differs extension-version'])
    const weak = { ...changes, facts: { ...changes.facts, isSuperuser: false } }
    expect(found(weak, recorded)).toEqual(['may-fail extension-rights', 'differs extension-version'])
  })

  it('providers of locales that it does not have', () => {
    const icu = { ...base, serverVersion: 150_000, database: { ...base.database, provider: 'i', locale: 'de' } }
    expect(found({ facts: { serverVersion: 150_000, hasIcu: false } }, icu)).toEqual(['fails locale-provider'])
    expect(found({ facts: { serverVersion: 140_000 } }, icu)).toEqual([
      'may-fail older-major',
      'differs locale-provider',
    ])
  })

  it('tablespaces that it does not have', () => {
    const notCarried = { unlogged: [], subscriptions: [], tablespaces: ['pg_default', 'fast'] }
    expect(found({}, { ...base, notCarried })).toEqual(['differs tablespace-missing'])
  })
})

describe('the room that a restore takes', () => {
  const tables = [table(1, 300, 10), table(2, 100, 10)]
  const of = (rest: Partial<typeof base>, selected?: RestorePlan['selected']) =>
    diskNeedOf({ base: { ...base, tables, raw_bytes: 4000, ...rest }, ...(selected ? { selected } : {}) })
  const sizes = { tables_bytes: 8000, indexes_bytes: 4000 }
  const selected = {
    tables: new Set([2]),
    selection: { ...everything, tables: ['b'] },
    without: new Set([1]),
    readsAll: undefined,
    isCut: () => false,
  }

  it('is what it was on the source', () => {
    expect(of({ sizes })).toEqual({ ...sizes, from: 'source' })
  })
  it('is the part that was selected, by what it takes in the base', () => {
    expect(of({ sizes }, selected)).toEqual({ tables_bytes: 2000, indexes_bytes: 1000, from: 'source' })
  })
  it('is made up from the rows where the base does not say', () => {
    expect(of({})).toEqual({ tables_bytes: 4560, indexes_bytes: 1824, from: 'rows' })
    expect(of({}, selected)).toEqual({ tables_bytes: 1280, indexes_bytes: 512, from: 'rows' })
  })

  function table(oid: number, size_bytes: number, rows: number): RestorePlan['base']['tables'][number] {
    const piece = { key: 'k', size_bytes, sha256: '', rows }
    return { oid, schema: 'public', name: `t${oid}`, columns: [], rows, hash: '', pieces: [piece] }
  }
})

it('reads a server, and what is free where it keeps its data', async () => {
  await using server = await startEmbedded()
  const conninfo = resolveConninfo(server.url(), {})
  const source = { ...base.database, encoding: 'UTF8' }
  const client = await connect(conninfo)
  const limited = await connect(conninfo)
  try {
    const read = await readTargetFacts(client, 'nowhere', source)
    expect(read).toMatchObject({
      isStandby: false,
      mayCreateDatabase: true,
      database: undefined,
      localeRefusal: undefined,
    })
    expect(read.free).toMatchObject({ bytes: expect.any(Number), path: expect.any(String) })
    const missing = await readTargetFacts(client, 'postgres', { ...source, collate: 'xx_XX.utf8', ctype: 'xx_XX.utf8' })
    expect(missing.database).toMatchObject({ encoding: 'UTF8' })
    expect(missing.localeRefusal).toMatch(/could not create locale "xx_XX.utf8"/)
    const left = await client.query(`SELECT FROM pg_collation WHERE collname = 'walback_look'`)
    expect(left.rowCount).toBe(0)
    await client.query('CREATE ROLE weak LOGIN')
    await limited.query('SET ROLE weak')
    const seen = await readTargetFacts(limited, 'postgres', source)
    expect(seen).toMatchObject({ restorer: 'weak', isSuperuser: false, mayCreateDatabase: false, mayCreateRole: false })
    expect(seen.free).toEqual({ bytes: undefined, why: 'only a superuser is told where the server keeps its data' })
  } finally {
    await Promise.all([client.end(), limited.end()])
  }
})
