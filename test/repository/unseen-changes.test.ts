import { describe, expect, it } from 'vitest'
import { uncertainSpans } from '../../src/history/uncertain.ts'
import { formatLsn, parseLsn } from '../../src/model/lsn.ts'
import type { BaseManifest } from '../../src/repository/base.ts'
import type { TransactionEntry } from '../../src/repository/segment-format.ts'
import { UnseenChanges } from '../../src/repository/unseen-changes.ts'

/** Positions are numbers here, and times the same numbers. */
const lsn = (at: number): string => formatLsn(parseLsn(`0/${at.toString(16).toUpperCase()}`))
const at = (text: string): number => Number.parseInt(text.slice(2), 16)

function entry(end: number, xid: number, more: Partial<TransactionEntry>): TransactionEntry {
  return {
    xid: String(xid),
    commit: lsn(end - 1),
    end: lsn(end),
    time: String(end),
    bytes: 1,
    block: 0,
    counts: [],
    ...more,
  }
}

/** A heartbeat that read its position five before its end. */
const beat = (end: number, snapshot: string, stamp: string | undefined): TransactionEntry =>
  entry(end, Number(snapshot.split(':')[1]), {
    heartbeat: {
      from: lsn(end - 5),
      snapshot,
      sequences: [],
      ...(stamp === undefined ? {} : { catalog: `1-${stamp}` }),
    },
  })

const ddl = (end: number, xid: number, unsure?: 'rows' | 'all'): TransactionEntry =>
  entry(end, xid, { ddl: [{ tag: 'CREATE TABLE', object: null, ...(unsure ? { unsure } : {}) }], ddlCount: 1 })

const rows = (end: number, xid: number): TransactionEntry => entry(end, xid, { counts: [[0, 1, 0, 0, 0]] })

const base = (position: number, snapshot: string, stamp?: string): BaseManifest =>
  ({
    id: `base-${position}`,
    timeline: '00000001',
    lsn: lsn(position),
    time: String(position),
    snapshot,
    ...(stamp === undefined ? {} : { catalog: stamp.includes('-') ? stamp : `1-${stamp}` }),
  }) as BaseManifest

/** `kind from..to` of what a restore from the first base lacks. */
function since(bases: readonly BaseManifest[], entries: readonly TransactionEntry[], of = bases[0]): string[] {
  const changes = new UnseenChanges(bases)
  for (const one of entries) changes.offer(one)
  return changes
    .since(of as BaseManifest)
    .map(({ kind, from, to }) => `${kind} ${at(formatLsn(from.lsn))}..${at(formatLsn(to.lsn))}`)
}

describe('a change of the schema', () => {
  const first = base(100, '10:10:', 'a')

  it('is none where every look saw the same', () => {
    expect(since([first], [beat(110, '10:10:', 'a'), rows(120, 11), beat(130, '12:12:', 'a')])).toEqual([])
    expect(since([first], [])).toEqual([])
  })

  it('that the stream tells of is no unseen one', () => {
    expect(since([first], [beat(110, '10:10:', 'a'), ddl(120, 11), beat(130, '12:12:', 'b')])).toEqual([])
    expect(since([first], [ddl(120, 11), beat(130, '12:12:', 'b')])).toEqual([])
  })

  it('that nothing tells of lies between the last look that did not see it and the first that did', () => {
    const entries = [
      beat(110, '10:10:', 'a'),
      beat(120, '11:11:', 'a'),
      rows(125, 12),
      beat(130, '13:13:', 'b'),
      beat(140, '14:14:', 'b'),
    ]
    expect(since([first], entries)).toEqual(['untold 115..130'])
    expect(since([first], [beat(130, '13:13:', 'b')])).toEqual(['untold 100..130'])
  })

  it('is not explained by one that both looks saw, or that neither did', () => {
    // Of before: it is in the first snapshot.
    expect(since([first], [ddl(105, 9), beat(110, '10:10:', 'a'), beat(130, '13:13:', 'b')])).toEqual([
      'untold 105..130',
    ])
    // It was running at both, and ended before the second had been said.
    expect(since([first], [beat(110, '11:12:11', 'a'), ddl(128, 11), beat(130, '11:14:11', 'b')])).toEqual([
      'untold 105..130',
    ])
    // So that it explains what the next look sees.
    expect(
      since([first], [beat(110, '11:12:11', 'a'), ddl(128, 11), beat(130, '11:14:11', 'a'), beat(140, '15:15:', 'b')]),
    ).toEqual([])
  })

  it('is explained by a commit that an earlier look came too soon to see', () => {
    // Its commit record is before the first look, which it still was running to.
    expect(since([first], [ddl(108, 11), beat(110, '11:12:11', 'a'), beat(130, '13:13:', 'b')])).toEqual([])
  })

  it('is not explained by one of which no more is told than that it was', () => {
    expect(since([first], [beat(110, '10:10:', 'a'), ddl(120, 11, 'all'), beat(130, '12:12:', 'b')])).toEqual([
      'untold 105..130',
      'unsure 120..120',
    ])
    expect(since([first], [beat(110, '10:10:', 'a'), ddl(120, 11, 'rows'), beat(130, '12:12:', 'b')])).toEqual([
      'unsure 120..120',
    ])
  })

  it('is not explained where somebody has touched the triggers that tell', () => {
    const touched = [beat(110, '10:10:', 'a-x'), ddl(120, 11), beat(130, '12:12:', 'b-y')]
    expect(since([base(100, '10:10:', '1-a-x')], touched)).toEqual(['untold 105..130'])
    // And is none if nothing has changed.
    expect(since([base(100, '10:10:', '1-a-x')], [beat(110, '10:10:', 'a-x'), beat(130, '12:12:', 'a-y')])).toEqual([])
  })

  it('is one of rows where our publications were touched, also if they are as they were', () => {
    const touched = [beat(110, '10:10:', 'a-x-p'), ddl(120, 11), beat(130, '12:12:', 'a-x-q')]
    expect(since([base(100, '10:10:', '1-a-x-p')], touched)).toEqual(['unpublished 105..130'])
    // Older stamps do not say.
    expect(since([base(100, '10:10:', '1-a-x')], touched.slice(2))).toEqual([])
  })

  it('is one of rows where a table was taken out of a publication of ours, unless tables were made or dropped', () => {
    const first = base(100, '10:10:', '1-a-x-p-m')
    expect(since([first], [beat(110, '10:10:', 'a-x-p-m'), beat(130, '12:12:', 'a-x-p-n')])).toEqual([
      'unpublished 105..130',
    ])
    expect(since([first], [ddl(120, 11), beat(130, '12:12:', 'b-x-p-n')])).toEqual([])
    expect(since([first], [beat(130, '12:12:', 'b-x-p-n')])).toEqual(['untold 100..130'])
    expect(since([first], [beat(130, '12:12:', 'a-x-p')])).toEqual([])
  })

  it('concerns no base that has it', () => {
    const second = base(125, '12:12:', 'b')
    const entries = [beat(110, '10:10:', 'a'), ddl(112, 10, 'rows'), beat(120, '11:11:', 'a'), beat(130, '13:13:', 'b')]
    expect(since([first, second], entries, second)).toEqual([])
    expect(since([first, second], entries)).toEqual(['unsure 112..112', 'untold 115..125'])
  })

  it('is looked for by bases as well, also within a run of looks that saw the same', () => {
    const second = base(125, '12:12:', 'a')
    // The second base says that it came after it.
    expect(since([first, second], [beat(120, '11:11:', 'a'), beat(130, '13:13:', 'b')])).toEqual(['untold 125..130'])
    expect(since([first, second], [beat(120, '11:11:', 'a'), beat(130, '13:13:', 'b')], second)).toEqual([
      'untold 125..130',
    ])
    // Made and undone again, but for a base in between.
    const between = base(125, '12:12:', 'b')
    const beats = [105, 110, 115, 120, 130, 140, 150].map((end) => beat(end, `${end}:${end}:`, 'a'))
    const early = base(100, '100:100:', 'a')
    expect(since([early, { ...between, snapshot: '125:125:' }], beats)).toEqual(['untold 115..125', 'untold 125..130'])
  })

  it('is put in its place by what was seen where positions overlap', () => {
    // The heartbeat's position was read before the base's snapshot, its own snapshot after it.
    const second = base(126, '12:12:', 'a')
    expect(since([first, second], [ddl(128, 12), beat(130, '13:13:', 'b')], second)).toEqual([])
  })

  it('cannot be seen without stamps, or by stamps of different kinds', () => {
    expect(since([base(100, '10:10:')], [beat(110, '10:10:', 'a'), beat(120, '11:11:', 'a')])).toEqual([])
    expect(since([base(100, '10:10:')], [beat(110, '10:10:', 'a'), beat(120, '11:11:', 'b')])).toEqual([
      'untold 105..120',
    ])
    expect(since([first], [beat(110, '10:10:', undefined), beat(120, '11:11:', undefined)])).toEqual([])
    expect(since([base(100, '10:10:', '0-a')], [beat(110, '10:10:', 'a')])).toEqual([])
  })
})

describe('uncertain spans', () => {
  const entries = [
    beat(110, '10:10:', 'a'),
    beat(120, '11:11:', 'b'),
    beat(130, '13:13:', 'c'),
    beat(160, '16:16:', 'c'),
  ]
  const spans = (bases: readonly BaseManifest[], end: number): string[] => {
    const changes = new UnseenChanges(bases)
    for (const one of entries) changes.offer(one)
    return uncertainSpans(bases, parseLsn(lsn(end)), changes).map(
      (span) => `${at(formatLsn(span.from.lsn))}..${span.to ? at(formatLsn(span.to.lsn)) : ''} ${span.changes.length}`,
    )
  }

  it('last from the first unseen change after a base to the next base', () => {
    expect(spans([base(100, '10:10:', 'a')], 160)).toEqual(['105.. 2'])
    expect(spans([base(100, '10:10:', 'a'), base(150, '15:15:', 'c')], 160)).toEqual(['105..150 2'])
    expect(spans([base(100, '10:10:', 'a'), base(125, '12:12:', 'b')], 160)).toEqual(['105..125 1', '125.. 1'])
  })

  it('are not ended by a base that the archive has not reached', () => {
    expect(spans([base(100, '10:10:', 'a'), base(170, '17:17:', 'c')], 160)).toEqual(['105.. 2'])
  })
})
