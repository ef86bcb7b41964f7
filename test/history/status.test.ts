import { describe, expect, it } from 'vitest'
import { coverageOf, marksOf } from '../../src/history/status.ts'
import { formatLsn, parseLsn } from '../../src/model/lsn.ts'
import type { BaseManifest } from '../../src/repository/base.ts'
import type { SegmentSummary } from '../../src/repository/segment-format.ts'
import type { Timeline } from '../../src/repository/timeline.ts'

const timeline = (id: string, start: string, parent?: Timeline['parent']): Timeline => ({
  walback: 'timeline',
  format: 1,
  id,
  source: 'app',
  created: '2026-11-23T00:00:00.000Z',
  systemIdentifier: '1',
  database: { name: 'app', oid: 5 },
  slot: 'walback_app',
  publications: ['walback_app'],
  replicaIdentity: 'full',
  allTables: true,
  ddl: 'triggers' as const,
  insertsOnly: [],
  encoding: 'UTF8',
  serverVersion: 180000,
  start,
  xid: '1',
  snapshot: '1:1:',
  ...(parent ? { parent } : {}),
})

const base = (id: string, lsn: string, time: number): BaseManifest =>
  ({ timeline: id, lsn, time: String(time) }) as BaseManifest

/** A segment with one transaction, or none, that ends where it does. */
function segment(start: string, end: string, time?: number, marks?: string[]): SegmentSummary {
  const transactions =
    time === undefined
      ? []
      : [
          {
            xid: '9',
            commit: start,
            end,
            time: String(time),
            bytes: 1,
            block: 0,
            counts: [],
            ...(marks ? { marks } : {}),
          },
        ]
  const trailer = { kind: 'segment' as const, end, xid: '9', time: '0', parts: [], tables: [], transactions }
  return { key: start, sha256: '', size_bytes: 1, start: parseLsn(start), end: parseLsn(end), trailer }
}

/** Windows and gaps in short: `from lsn@time`, `to lsn@time`. */
function shown(timelines: Timeline[], bases: BaseManifest[], segments: Record<string, SegmentSummary[]>): unknown {
  const { windows, gaps } = coverageOf(timelines, bases, new Map(Object.entries(segments)))
  const at = (point: { lsn: bigint; time: bigint } | undefined): string =>
    point ? `${formatLsn(point.lsn as never)}@${point.time}` : 'now'
  return {
    windows: windows.map(({ from, to }) => `${at(from)} ${at(to)}`),
    gaps: gaps.map(({ from, to, reason }) => `${at(from)} ${at(to)} ${reason}`),
  }
}

describe('what can be restored', () => {
  const one = timeline('00000001', '0/100')
  const lost = { timeline: '00000001', end: '0/300', reason: 'the slot is gone' }

  it('is nothing without a base, and nothing before the stream has reached it', () => {
    expect(shown([one], [], { '00000001': [segment('0/100', '0/200', 5)] })).toEqual({ windows: [], gaps: [] })
    expect(shown([one], [base('00000001', '0/280', 7)], { '00000001': [segment('0/100', '0/200', 5)] })).toEqual({
      windows: [],
      gaps: [],
    })
  })

  it('is what lies between the first base and the last commit', () => {
    const segments = {
      '00000001': [segment('0/100', '0/200', 5), segment('0/200', '0/300', 9), segment('0/300', '0/400')],
    }
    expect(shown([one], [base('00000001', '0/280', 8), base('00000001', '0/180', 4)], segments)).toEqual({
      windows: ['0/180@4 0/300@9'],
      gaps: [],
    })
  })

  it('is the base alone while nothing has committed after it', () => {
    const segments = { '00000001': [segment('0/100', '0/200', 5), segment('0/200', '0/400')] }
    expect(shown([one], [base('00000001', '0/280', 8)], segments)).toEqual({ windows: ['0/280@8 0/280@8'], gaps: [] })
    expect(shown([one], [base('00000001', '0/100', 7)], {})).toEqual({ windows: ['0/100@7 0/100@7'], gaps: [] })
  })

  it('has a gap between timelines, with its reason', () => {
    const segments = { '00000001': [segment('0/100', '0/300', 5)], '00000002': [segment('0/500', '0/600', 20)] }
    const bases = [base('00000001', '0/110', 1), base('00000002', '0/510', 15)]
    expect(shown([one, timeline('00000002', '0/500', lost)], bases, segments)).toEqual({
      windows: ['0/110@1 0/300@5', '0/510@15 0/600@20'],
      gaps: ['0/300@5 0/510@15 the slot is gone'],
    })
  })

  it('has a gap that goes on while the new timeline has no base', () => {
    const segments = { '00000001': [segment('0/100', '0/300', 5)], '00000002': [segment('0/500', '0/600', 20)] }
    expect(shown([one, timeline('00000002', '0/500', lost)], [base('00000001', '0/110', 1)], segments)).toEqual({
      windows: ['0/110@1 0/300@5'],
      gaps: ['0/300@5 now the slot is gone'],
    })
  })

  it('has a gap where a segment was lost, and nothing after it without a base of its own', () => {
    const segments = { '00000001': [segment('0/100', '0/200', 5), segment('0/300', '0/400', 9)] }
    const reason = 'segments are missing between 0/200 and 0/300'
    expect(shown([one], [base('00000001', '0/110', 1)], segments)).toEqual({
      windows: ['0/110@1 0/200@5'],
      gaps: [`0/200@5 now ${reason}`],
    })
    expect(shown([one], [base('00000001', '0/110', 1), base('00000001', '0/310', 7)], segments)).toEqual({
      windows: ['0/110@1 0/200@5', '0/310@7 0/400@9'],
      gaps: [`0/200@5 0/310@7 ${reason}`],
    })
  })

  it('lists marks in order', () => {
    const segments = new Map([
      ['00000001', [segment('0/100', '0/200', 5, ['a', 'b']), segment('0/200', '0/300', 9, ['c'])]],
    ])
    expect(marksOf([one], segments).map(({ name, lsn }) => `${name} ${formatLsn(lsn)}`)).toEqual([
      'a 0/200',
      'b 0/200',
      'c 0/300',
    ])
  })
})
