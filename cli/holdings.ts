/** What a repository holds of a source, in words and as JSON. */
import {
  type BaseManifest,
  formatLsn,
  formatTime,
  type Holdings,
  type LeaseRecord,
  type MarkPoint,
  micros,
  type Pin,
  type Point,
  parseLsn,
  type UncertainSpan,
  unseenInWords,
} from '../src/index.ts'
import { bytes, count, duration, printable, table } from './format.ts'
import { flagsOf, selectionFlags } from './selection.ts'

/** `2026-11-09T02:00:11Z`: to the second for orientation. The exact time is in `--json`, `list` and `log`. */
export const brief = (time: Point['time']): string => `${formatTime(time).slice(0, 19).replace('T', ' ')}Z`

export const point = (at: Point): { lsn: string; time: string } => ({
  lsn: formatLsn(at.lsn),
  time: formatTime(at.time),
})

export const baseTime = (base: Pick<BaseManifest, 'time'>): Point['time'] => micros(BigInt(base.time))
/** By the clock of the machine that took it, which may have been set back meanwhile. */
export const duration_ms = (base: BaseManifest): number =>
  Math.max(0, Date.parse(base.finished) - Date.parse(base.started))

/** The windows and gaps, one a line, the newest window last; or why nothing can be restored. */
export function windowLines(holdings: Holdings): string[] {
  const { windows, gaps, bases } = holdings
  if (windows.length === 0) {
    return [
      bases.length === 0
        ? 'nothing can be restored: there is no base backup (walback backup --full)'
        : 'nothing can be restored yet: the stream has not reached the base backup (walback backup --incremental)',
    ]
  }
  const lines: string[] = []
  for (const [index, window] of windows.entries()) {
    const { from, to } = window
    lines.push(
      `restorable to any commit  ${brief(from.time)} -> ${brief(to.time)}  (${formatLsn(from.lsn)} -> ${formatLsn(to.lsn)})`,
    )
    for (const span of holdings.uncertain) {
      if (span.timeline === window.timeline && span.from.lsn >= from.lsn && span.from.lsn <= to.lsn)
        lines.push(uncertainLine(span, index === windows.length - 1 ? undefined : to))
    }
    const gap = gaps[index]
    if (gap)
      lines.push(
        `${gap.isPruned ? 'pruned' : 'gap   '}                    ${brief(gap.from.time)} .. ${gap.to ? brief(gap.to.time) : 'now'}  (${gap.reason})`,
      )
  }
  return lines
}

/** `end`: of the window that it is in, where that is over. */
function uncertainLine({ from, to, changes }: UncertainSpan, end: Point | undefined): string {
  const [first] = changes
  const isOfOneKind = changes.every(({ kind }) => kind === first?.kind)
  const what = unseenInWords(first && isOfOneKind ? first.kind : 'untold')
  const until = to ?? end
  const mended = to ? '; a base mended it' : end ? '' : '; walback backup --full mends it'
  return `uncertain                 ${brief(from.time)} .. ${until ? brief(until.time) : 'now'}  (${what}${mended})`
}

export const coverageJson = ({ windows, gaps, uncertain }: Holdings): Record<string, unknown> => ({
  windows: windows.map(({ timeline, from, to }) => ({ timeline, from: point(from), to: point(to) })),
  gaps: gaps.map(({ from, to, reason, isPruned }) => ({
    from: point(from),
    to: to ? point(to) : null,
    reason,
    pruned: isPruned,
  })),
  uncertain: uncertain.map(({ timeline, from, to, changes }) => ({
    timeline,
    from: point(from),
    to: to ? point(to) : null,
    changes: changes.map((change) => ({ kind: change.kind, from: point(change.from), to: point(change.to) })),
  })),
})

export const baseJson = (base: BaseManifest): Record<string, unknown> => ({
  id: base.id,
  timeline: base.timeline,
  started: new Date(base.started).toISOString(),
  finished: new Date(base.finished).toISOString(),
  lsn: base.lsn,
  time: formatTime(baseTime(base)),
  server_version: base.serverVersion,
  walback_version: base.walbackVersion,
  selection: selectionFlags(base),
  tables: base.tables.length,
  left_out: base.leftOut?.length ?? 0,
  rows: base.tables.reduce((sum, { rows }) => sum + rows, 0),
  raw_bytes: base.raw_bytes,
  stored_bytes: base.stored_bytes,
  made_from: base.compacted?.from ?? null,
})

export const markJson = (mark: MarkPoint): Record<string, unknown> => ({
  name: mark.name,
  timeline: mark.timeline,
  ...point(mark),
})

export const pinJson = (pin: Pin): Record<string, unknown> => ({
  id: pin.id,
  created: pin.created,
  timeline: pin.timeline,
  ...point({ lsn: parseLsn(pin.lsn), time: micros(BigInt(pin.time)) }),
  base: pin.base,
  mark: pin.mark,
  note: pin.note,
})

export const leaseJson = (lease: LeaseRecord): Record<string, unknown> => ({
  purpose: lease.purpose,
  holder: lease.holder,
  started: lease.started,
  renewed: lease.renewed,
  reads: lease.reads,
})

export const segmentsJson = ({ segments }: Holdings): Record<string, unknown> => ({
  count: segments.count,
  raw_bytes: segments.raw_bytes,
  stored_bytes: segments.stored_bytes,
  transactions: segments.transactions,
})

/** `9`, or `2 of 9` where a selection left others out. */
const tablesInWords = ({ tables, leftOut = [] }: BaseManifest): string =>
  `${count(tables.length)}${leftOut.length > 0 ? ` of ${count(tables.length + leftOut.length)}` : ''}`

export function baseTable(bases: readonly BaseManifest[]): string {
  const head = ['BASE', 'STARTED (UTC)', 'DURATION', 'TABLES', 'ROWS', 'SIZE', 'STORED', 'SNAPSHOT', 'TIMELINE']
  const isOfSome = bases.some(({ selection }) => selection !== undefined)
  const isMixed = bases.some(({ compacted }) => compacted !== undefined)
  const rows = bases.map((base) => [
    base.id,
    `${base.started.slice(0, 19).replace('T', ' ')}Z`,
    duration(duration_ms(base)),
    tablesInWords(base),
    count(base.tables.reduce((sum, one) => sum + one.rows, 0)),
    bytes(base.raw_bytes),
    bytes(base.stored_bytes),
    base.lsn,
    base.timeline,
    ...(isMixed ? [base.compacted?.from ?? 'the source'] : []),
    ...(isOfSome ? [base.selection === undefined ? '' : printable(flagsOf(base.selection))] : []),
  ])
  return table(
    [[...head, ...(isMixed ? ['MADE FROM'] : []), ...(isOfSome ? ['SELECTED BY'] : [])], ...rows],
    [2, 3, 4, 5, 6],
  )
}
