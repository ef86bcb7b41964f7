import { readFileSync } from 'node:fs'
import path from 'node:path'
import fc from 'fast-check'
import pg from 'pg'
import { type Pgoutput, PgoutputPlugin } from 'pg-logical-replication'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { unreachable } from '../../src/base/assert.ts'
import { formatLsn, parseLsn } from '../../src/model/lsn.ts'
import {
  type OldTuple,
  parseBegin,
  parseCommit,
  parseLogicalMessage,
  parseRelation,
  parseRow,
  parseTruncate,
  type RelationMessage,
  relationTypeOids,
  type Tuple,
  tags,
  unchanged,
} from '../../src/model/pgoutput.ts'
import * as write from './messages.ts'

/** Reads one stream with both parsers, ours and pg-logical-replication's, into the same plain form. */
class TwoReaders {
  private readonly relations = new Map<number, RelationMessage>()
  private readonly referee = new PgoutputPlugin({ protoVersion: 1, publicationNames: ['p'] })

  theirs(message: Buffer): unknown {
    return plainTheirs(this.referee.parse(message) as Pgoutput.Message)
  }

  ours(b: Buffer): unknown {
    const letter = b[0] as number
    if (letter === tags.begin) return { tag: 'begin', ...textLsns(parseBegin(b)) }
    if (letter === tags.commit) return { tag: 'commit', ...textLsns(parseCommit(b)) }
    if (letter === tags.relation) return this.relation(b)
    if (letter === tags.truncate) {
      const { cascade, restartIdentity, relations } = parseTruncate(b)
      return { tag: 'truncate', cascade, restartIdentity, relations }
    }
    if (letter === tags.message) {
      const { transactional, lsn, prefix, content } = parseLogicalMessage(b)
      return { tag: 'message', transactional, lsn: formatLsn(lsn), prefix, content: content.toString('hex') }
    }
    if (letter === tags.origin || letter === tags.type) return 'passed over'
    return this.row(b)
  }

  private relation(b: Buffer): unknown {
    const parsed = parseRelation(b, (bytes) => bytes.toString('utf8'))
    this.relations.set(parsed.oid, parsed)
    expect(relationTypeOids(b)).toEqual(parsed.columns.map((column) => column.typeOid))
    return { tag: 'relation', ...parsed }
  }

  private row(b: Buffer): unknown {
    const row = parseRow(b)
    const columns = (this.relations.get(row.relation) as RelationMessage).columns
    const named = (tuple: Tuple, known?: Tuple): [string, string | null | undefined][] =>
      tuple.map((value, i) => [columns[i]?.name as string, plainValue(value === unchanged ? known?.[i] : value)])
    const keyed = (old: OldTuple | undefined): unknown =>
      old?.kind === 'key' ? named(old.values).filter((_, i) => columns[i]?.isKey) : undefined
    const full = (old: OldTuple | undefined): unknown => (old?.kind === 'full' ? named(old.values) : undefined)
    const { kind, relation } = row
    if (kind === 'insert') return { tag: kind, relation, row: named(row.row) }
    if (kind === 'delete') return { tag: kind, relation, key: keyed(row.old), full: full(row.old) }
    // The referee fills holes from a whole old row, where there is one.
    const known = row.old?.kind === 'full' ? row.old.values : undefined
    return { tag: kind, relation, key: keyed(row.old), full: full(row.old), row: named(row.row, known) }
  }
}

function plainTheirs(m: Pgoutput.Message): unknown {
  switch (m.tag) {
    case 'begin':
      return { tag: m.tag, commitLsn: lsnText(m.commitLsn), commitTime: m.commitTime, xid: m.xid >>> 0 }
    case 'commit':
      return { tag: m.tag, commitLsn: lsnText(m.commitLsn), endLsn: lsnText(m.commitEndLsn), commitTime: m.commitTime }
    case 'relation': {
      const columns = m.columns.map(({ name, flags, typeOid, typeMod }) => ({
        name,
        isKey: (flags & 1) === 1,
        typeOid: typeOid >>> 0,
        typeModifier: typeMod,
      }))
      const { schema, name, replicaIdentity } = m
      return { tag: m.tag, oid: m.relationOid >>> 0, schema, name, identity: replicaIdentity, columns }
    }
    case 'insert':
      return { tag: m.tag, relation: m.relation.relationOid >>> 0, row: Object.entries(m.new) }
    case 'update':
      return { ...oldParts(m), tag: m.tag, row: Object.entries(m.new) }
    case 'delete':
      return { ...oldParts(m), tag: m.tag }
    case 'truncate': {
      const { tag, cascade, restartIdentity, relations } = m
      return { tag, cascade, restartIdentity, relations: relations.map(({ relationOid }) => relationOid >>> 0) }
    }
    case 'message': {
      const { tag, transactional, messageLsn, prefix, content } = m
      return { tag, transactional, lsn: lsnText(messageLsn), prefix, content: Buffer.from(content).toString('hex') }
    }
    case 'origin':
    case 'type':
      return 'passed over'
    default:
      return unreachable(m)
  }
}

function oldParts(m: Pgoutput.MessageUpdate | Pgoutput.MessageDelete): object {
  return {
    relation: m.relation.relationOid >>> 0,
    key: m.key === null ? undefined : Object.entries(m.key).map(([name, value]) => [name, value ?? null]),
    full: m.old === null ? undefined : Object.entries(m.old),
  }
}

const plainValue = (value: Tuple[number] | undefined): string | null | undefined =>
  Buffer.isBuffer(value) ? value.toString('utf8') : value === unchanged ? undefined : value

const lsnText = (text: string | null): string => (text === null ? '0/0' : formatLsn(parseLsn(text)))

const textLsns = (parsed: object): object =>
  Object.fromEntries(
    Object.entries(parsed).map(([name, value]) => [name, name.endsWith('Lsn') ? formatLsn(value) : value]),
  )

const recorded = (major: number): { lsn: string; message: Buffer }[] =>
  readFileSync(path.join(import.meta.dirname, `fixtures/recorded-${major}.txt`), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => ({ lsn: line.split(' ')[0] as string, message: Buffer.from(line.split(' ')[1] as string, 'hex') }))

const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 8 }).filter((text) => !text.includes('\0'))
const u32 = fc.integer({ min: 0, max: 0xffffffff })
const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })
const time = fc.bigInt({ min: 0n, max: 1n << 62n })
const cell: fc.Arbitrary<write.Cell> = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 20 }),
  fc.constantFrom<write.Cell>(null, '', write.toasted),
)

/** A table, and messages about its rows. Column names are letters first, since a JavaScript object sorts numbers. */
const tableStream = fc
  .record({
    oid: u32,
    schema: name,
    table: name,
    identity: fc.constantFrom<'d' | 'n' | 'f' | 'i'>('d', 'n', 'f', 'i'),
    columns: fc.uniqueArray(fc.tuple(name, fc.boolean(), fc.integer({ min: -1, max: 0x7fffffff })), {
      selector: ([text]) => text,
      maxLength: 6,
    }),
  })
  .chain(({ oid, schema, table, identity, columns }) => {
    const specs = columns.map(([text, key, modifier]) => ({ name: `c${text}`, key, modifier }))
    const row = fc.array(cell, { minLength: specs.length, maxLength: specs.length })
    // Key columns are never sent as unchanged.
    const key = row.map((cells) => cells.map((value) => (value === write.toasted ? null : value)))
    const old = fc.oneof(fc.tuple(fc.constant('K' as const), key), fc.tuple(fc.constant('O' as const), row))
    const change = fc.oneof(
      row.map((cells) => write.insert(oid, cells)),
      fc.tuple(row, fc.option(old, { nil: undefined })).map(([cells, before]) => write.update(oid, cells, before)),
      old.map((before) => write.remove(oid, before)),
      fc.integer({ min: 0, max: 3 }).map((flags) => write.truncate([oid, oid], flags)),
    )
    return fc
      .array(change, { maxLength: 10 })
      .map((rows) => [write.relation(oid, schema, table, specs, identity), ...rows])
  })

const other = fc.oneof(
  fc.tuple(u64, time, u32).map(([lsn, at, xid]) => write.begin(lsn, at, xid)),
  fc.tuple(u64, u64, time).map(([lsn, end, at]) => write.commit(lsn, end, at)),
  fc
    .tuple(fc.boolean(), u64, name, fc.uint8Array())
    .map(([yes, lsn, prefix, bytes]) => write.message(yes, lsn, prefix, Buffer.from(bytes))),
)

describe('our parser and the referee read alike', () => {
  // The referee turns text into numbers and dates, which no archive may.
  beforeEach(() => {
    vi.spyOn(pg.types, 'getTypeParser').mockReturnValue(String)
  })

  test.each([14, 18])('what PostgreSQL %i sent', (major) => {
    const readers = new TwoReaders()
    const seen = new Set<string>()
    for (const { message } of recorded(major)) {
      seen.add(String.fromCharCode(message[0] as number))
      expect(readers.ours(message)).toEqual(readers.theirs(message))
    }
    expect([...seen].sort().join('')).toBe('BCDIMORTUY')
  })

  test('synthetic rows', () => {
    fc.assert(
      fc.property(tableStream, (messages) => {
        const readers = new TwoReaders()
        for (const message of messages) expect(readers.ours(message)).toEqual(readers.theirs(message))
      }),
    )
  })

  test('synthetic begins, commits and messages', () => {
    fc.assert(
      fc.property(other, (message) => {
        const readers = new TwoReaders()
        expect(readers.ours(message)).toEqual(readers.theirs(message))
      }),
    )
  })
})

describe('what the referee does not tell', () => {
  test('an empty namespace is pg_catalog', () => {
    const { schema } = parseRelation(write.relation(1, '', 'pg_class', []), String)
    expect(schema).toBe('pg_catalog')
  })

  test('NULL, the empty string and a value that was not sent are three things', () => {
    const row = parseRow(write.update(7, [null, '', write.toasted, 'x']))
    expect(row).toEqual({
      kind: 'update',
      relation: 7,
      old: undefined,
      row: [null, Buffer.alloc(0), unchanged, Buffer.from('x')],
    })
  })

  test('bytes that are not UTF-8 stay as they came', () => {
    const latin = Buffer.from([0x67, 0x72, 0xfc, 0xdf, 0x65])
    const row = parseRow(write.insert(7, [latin]))
    expect(row.kind === 'insert' && row.row).toEqual([latin])
  })

  test('ids above 2^31 are positive', () => {
    expect(parseBegin(write.begin(1n, 0n, 0xfffffffe)).xid).toBe(0xfffffffe)
    expect(parseRow(write.insert(0xfffffffd, [])).relation).toBe(0xfffffffd)
  })
})

describe('a message that is cut', () => {
  const parsers: Readonly<Record<number, (b: Buffer) => unknown>> = {
    [tags.begin]: parseBegin,
    [tags.commit]: parseCommit,
    [tags.relation]: (b) => parseRelation(b, String),
    [tags.insert]: parseRow,
    [tags.update]: parseRow,
    [tags.delete]: parseRow,
    [tags.truncate]: parseTruncate,
    [tags.message]: parseLogicalMessage,
  }

  test.each([14, 18])('is refused at every byte (PostgreSQL %i)', (major) => {
    for (const { message } of recorded(major)) {
      const parse = parsers[message[0] as number]
      if (parse === undefined || message.length > 300) continue
      for (let end = 1; end < message.length; end++) {
        // The letter may be gone, not what it says: each parser is called for its own kind.
        expect(() => parse(message.subarray(0, end)), `${message.toString('hex')} cut to ${end}`).toThrow()
      }
    }
  })
})
