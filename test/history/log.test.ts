import { describe, expect, it } from 'vitest'
import { type LogSelection, matchTables, parseRowCondition, selectTransactions } from '../../src/history/log.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import { micros } from '../../src/model/time.ts'
import type { SegmentSummary } from '../../src/repository/segment-format.ts'

type Counts = [place: number, inserts: number, updates: number, deletes: number, truncates: number]

const tables = [
  { oid: 1, schema: 'public', name: 'orders' },
  { oid: 2, schema: 'public', name: 'items' },
  { oid: 3, schema: 'audit', name: 'orders' },
]

function segment(transactions: { xid: number; time: number; counts: Counts[] }[]): {
  timeline: string
  segment: SegmentSummary
} {
  const entries = transactions.map(({ xid, time, counts }) => ({
    xid: String(xid),
    commit: `0/${xid.toString(16).toUpperCase()}0`,
    end: `0/${xid.toString(16).toUpperCase()}8`,
    time: String(time),
    bytes: 10,
    block: 0,
    counts,
  }))
  const trailer = {
    kind: 'segment' as const,
    end: '0/FFFF',
    xid: '1',
    time: '0',
    parts: [],
    tables,
    transactions: entries,
  }
  return {
    timeline: '00000001',
    segment: { key: 'k', sha256: '', size_bytes: 1, start: parseLsn('0/0'), end: parseLsn('0/FFFF'), trailer },
  }
}

const all: LogSelection = { limit: 50, sort: 'time' }
const some = [
  segment([
    { xid: 10, time: 1000, counts: [[0, 5, 0, 0, 0]] },
    { xid: 11, time: 2000, counts: [] },
    {
      xid: 12,
      time: 3000,
      counts: [
        [0, 0, 0, 200, 0],
        [1, 0, 3, 0, 0],
      ],
    },
  ]),
  segment([
    { xid: 13, time: 2500, counts: [[2, 1, 0, 0, 0]] },
    { xid: 14, time: 4000, counts: [[1, 0, 0, 0, 1]] },
  ]),
]
const xids = (selection: Partial<LogSelection>): number[] =>
  selectTransactions(some, { ...all, ...selection }).transactions.map(({ xid }) => Number(xid))

describe('selecting transactions', () => {
  it('leaves out transactions without rows, keeps the order of commits, and ends with the newest', () => {
    expect(xids({})).toEqual([10, 12, 13, 14])
    expect(xids({ limit: 2 })).toEqual([13, 14])
  })

  it('by table: a bare name in any schema, a qualified name, a pattern', () => {
    expect(xids({ tables: ['orders'] })).toEqual([10, 12, 13])
    expect(xids({ tables: ['audit.orders'] })).toEqual([13])
    expect(xids({ tables: ['it*', 'audit.*'] })).toEqual([12, 13, 14])
    expect(xids({ tables: ['order'] })).toEqual([])
  })

  it('counts only the rows of what was asked for, and says that there was more', () => {
    const { transactions, totals } = selectTransactions(some, { ...all, tables: ['orders'], operations: ['delete'] })
    expect(transactions).toMatchObject([
      { xid: 12n, rows: 200, hasOther: true, tables: [{ schema: 'public', name: 'orders', delete: 200 }] },
    ])
    expect(totals).toEqual({ insert: 0, update: 0, delete: 200, truncate: 0 })
  })

  it('by number of rows, where a truncation counts as more than anybody can say', () => {
    expect(xids({ rows: parseRowCondition('>100') })).toEqual([12, 14])
    expect(xids({ rows: parseRowCondition('<=5') })).toEqual([10, 13])
    expect(xids({ rows: parseRowCondition('203') })).toEqual([12, 14])
    expect(xids({ rows: parseRowCondition('= 1') })).toEqual([13])
  })

  it('by time, both ends included, though commit times need not be in commit order', () => {
    expect(xids({ since: micros(2500n), until: micros(3000n) })).toEqual([12, 13])
  })

  it('sorts the greatest destruction first', () => {
    expect(xids({ sort: 'rows' })).toEqual([14, 12, 10, 13])
    expect(xids({ sort: 'rows', limit: 1 })).toEqual([14])
  })

  it('counts what matched past the limit', () => {
    expect(selectTransactions(some, { ...all, limit: 1 })).toMatchObject({
      matched: 4,
      totals: { insert: 6, update: 3, delete: 200, truncate: 1 },
    })
  })

  it('keeps the right ones of many', () => {
    const many = [
      segment(
        Array.from({ length: 5000 }, (_, n) => ({
          xid: n + 1,
          time: n,
          counts: [[0, (n * 7919) % 5000, 0, 0, 0]] as Counts[],
        })),
      ),
    ]
    expect(selectTransactions(many, { limit: 3, sort: 'time' }).transactions.map(({ xid }) => xid)).toEqual([
      4998n,
      4999n,
      5000n,
    ])
    expect(selectTransactions(many, { limit: 3, sort: 'rows' }).transactions.map(({ rows }) => rows)).toEqual([
      4999, 4998, 4997,
    ])
  })
})

describe('patterns and conditions', () => {
  it('takes characters of patterns literally but for *', () => {
    expect(matchTables(['a.c'])({ schema: 'x', name: 'abc' })).toBe(false)
    expect(matchTables(['a+(b)*'])({ schema: 'x', name: 'a+(b)\nc' })).toBe(true)
  })

  it.each(['', 'many', '>', '-5', '> 5 rows', '5.5'])('refuses %j as a condition', (text) => {
    expect(() => parseRowCondition(text)).toThrow('not a condition on rows')
  })
})
