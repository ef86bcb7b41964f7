import { formatLsn, formatTime, readHoldings } from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { bytes, plural, printable, table } from '../format.ts'
import { baseJson, baseTable, coverageJson, markJson, segmentsJson, windowLines } from '../holdings.ts'
import { passedOverJson, readFirst } from '../readable.ts'

export const addList: AddCommand = (program, bind) => {
  program
    .command('list')
    .description('what the repository holds: windows, gaps, base backups, marks')
    .action(bind(list))
}

async function list(context: Context): Promise<undefined> {
  const { out, signal } = context
  const opened = await readFirst(context, ({ repository, source }) => readHoldings(repository, source, signal))
  const { repository, source, passedOver, value: holdings } = opened
  const { bases, partialBases, marks, segments, timelines } = holdings
  out.data(
    `${out.paintData(source, 'bold')}  ${repository.storage.url}\n${windowLines(holdings)
      .map((line) => `  ${line}`)
      .join('\n')}`,
  )
  out.data(
    `\n${bases.length === 0 ? `no base backups${partialBases.length > 0 ? ' of all tables' : ''}` : baseTable(bases)}`,
  )
  if (partialBases.length > 0) out.data(`\nof some tables, for restores of these:\n${baseTable(partialBases)}`)
  if (marks.length > 0) {
    const rows = marks.map((mark) => [printable(mark.name), formatTime(mark.time), formatLsn(mark.lsn)])
    out.data(`\n${table([['MARK', 'COMMITTED (UTC)', 'LSN'], ...rows])}`)
  }
  out.data(
    `\n${plural(segments.count, 'segment')}, ${bytes(segments.stored_bytes)}, ${plural(segments.transactions, 'transaction')} in ${plural(timelines.length, 'timeline')}`,
  )
  out.document({
    source,
    repository: repository.storage.url,
    ...passedOverJson(passedOver),
    sources: await repository.sources(signal),
    ...coverageJson(holdings),
    bases: bases.map(baseJson),
    partial_bases: partialBases.map(baseJson),
    marks: marks.map(markJson),
    segments: segmentsJson(holdings),
    timelines: timelines.map(({ id, created, start, slot, parent }) => ({
      id,
      created,
      start,
      slot,
      parent: parent ?? null,
    })),
  })
}
