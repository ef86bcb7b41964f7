import {
  baseKind,
  type CaptureSessionOptions,
  captureUpToNow,
  completeBase,
  exitStatus,
  formatLsn,
  formatTime,
  isEverything,
  messageOf,
  micros,
  type PublishedTables,
  publishing,
  type Repository,
  readUnseen,
  requireTimeline,
  type Selection,
  takeBase,
  type UnseenChange,
  unseenInWords,
  WalbackError,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { bringUpRequired, requiredCopies } from '../copies.ts'
import { bytes, count, duration, plural, printable } from '../format.ts'
import { point } from '../holdings.ts'
import { parseJobs, parseRate, parseSpan } from '../options.ts'
import { Progress } from '../progress.ts'
import { addSelectionFlags, flagsOf, type SelectionFlags, selectionFlags, selectionOf } from '../selection.ts'

interface Options extends SelectionFlags {
  readonly full?: boolean
  readonly incremental?: boolean
  readonly jobs: number
  readonly maxRate?: number
  readonly maxSnapshotAge?: number
  readonly yieldAfter?: number
}

export const addBackup: AddCommand = (program, bind) => {
  const command = program
    .command('backup')
    .description('take a base backup (--full), or capture everything up to now and end (--incremental)')
    .option('--full', 'a base backup: schema, rows, sequences, large objects')
    .option('--incremental', 'what has been committed since the last capture; for cron, where no agent runs')
    .option('--jobs <n>', 'connections that copy rows side by side', parseJobs, 4)
    .option('--max-rate <size>', 'read at most so much of rows a second, such as 20MB, over all connections', parseRate)
    .option(
      '--max-snapshot-age <duration>',
      'go on under a new snapshot when one is so old, so that vacuum is not held back (default: 15m)',
      parseSpan,
    )
    .option(
      '--yield-after <duration>',
      'give way when another session has waited so long for a table that is being read (default: 1s)',
      parseSpan,
    )
  addSelectionFlags(command).action(bind<Options>(backup))
}

async function backup(context: Context, options: Options): Promise<number> {
  if (options.full === options.incremental) {
    throw new WalbackError(
      'usage',
      options.full ? '--full and --incremental exclude each other' : 'what kind of backup?',
      {
        hint: 'give --full for a base backup, or --incremental for the changes since the last capture',
      },
    )
  }
  const selection = selectionOf(options)
  if (options.incremental && !isEverything(selection)) {
    throw new WalbackError('usage', '--incremental captures what every table has had', {
      hint: 'give what is selected with --full; the stream is of all tables',
    })
  }
  const warnings = await (options.full ? full(context, options, selection) : incremental(context))
  return warnings > 0 ? exitStatus.warnings : 0
}

async function captureOptions(context: Context, repository: Repository): Promise<CaptureSessionOptions> {
  const { stream } = await context.settings()
  return { ...stream, required: await requiredCopies(context, repository), stop: context.signal }
}

/** Gives how many warnings there were, as the other one does. */
async function full(
  context: Context,
  { jobs, maxRate, maxSnapshotAge, yieldAfter }: Options,
  selection: Selection,
): Promise<number> {
  const { out, signal } = context
  const started = performance.now()
  const conninfo = await context.requireConninfo()
  const { repository, source } = await context.openSource()
  const timeline = await requireTimeline(repository, source)
  using progress = new Progress(out)
  let published: PublishedTables = { added: [], left: [] }
  const { backup: settings } = await context.settings()
  const base = await takeBase(conninfo, repository, timeline, {
    jobs,
    selection: isEverything(selection) ? undefined : selection,
    lockTimeout_ms,
    maxRate: maxRate ?? settings.maxRate,
    maxSnapshotAge_ms: maxSnapshotAge ?? settings.maxSnapshotAge_ms,
    yieldAfter_ms: yieldAfter ?? settings.yieldAfter_ms,
    preparation: publishing(conninfo, timeline, {
      signal,
      onPublished: ({ added, left }) => {
        published = { added: [...published.added, ...added], left }
      },
    }),
    signal,
    onProgress: (state) => {
      if (state.phase === 'waiting')
        progress.note('waiting', `for ${plural(state.transactions, 'transaction')} from before the slot was made`)
      else if (state.phase === 'resuming')
        out.say(
          `carrying on with ${state.base}, which was interrupted: ${plural(state.tables, 'table')}, ${bytes(state.raw_bytes)}, are stored already`,
        )
      else
        progress.note('rows', `${count(state.rows)} rows, ${bytes(state.raw_bytes)}, ${plural(state.tables, 'table')}`)
    },
  })
  progress.note('stream', 'until the archive has passed the snapshot')
  await completeBase(conninfo, repository, base, await captureOptions(context, repository))
  await bringUpRequired(context, repository, source)
  progress[Symbol.dispose]()
  if (published.added.length > 0) out.say(`published, since they were made after init: ${names(published.added)}`)
  if (published.left.length > 0) {
    out.warn(
      `not captured after this base, since they are not published and this role cannot publish them: ${names(published.left)} (walback check shows what to do)`,
    )
  }
  const duration_ms = Math.round(performance.now() - started)
  const some =
    base.selection === undefined ? '' : `of ${base.tables} of ${plural(base.tables + base.leftOut, 'table')}  `
  out.result(
    `backup ${base.id}  ${some}${bytes(base.raw_bytes)} -> ${bytes(base.stored_bytes)} in ${duration(duration_ms)}, snapshot at ${base.lsn}`,
  )
  if (base.selection !== undefined)
    out.say(
      `of some tables (${flagsOf(base.selection)}): restores of these take it; for all else there has to be a base of all tables`,
    )
  out.document({
    kind: baseKind(base),
    id: base.id,
    source,
    repository: repository.storage.url,
    timeline: base.timeline,
    lsn: base.lsn,
    time: formatTime(micros(BigInt(base.time))),
    selection: selectionFlags(base),
    tables: base.tables,
    left_out: base.leftOut,
    rows: base.rows,
    raw_bytes: base.raw_bytes,
    stored_bytes: base.stored_bytes,
    published: published.added,
    not_published: published.left,
    duration_ms,
  })
  return published.left.length
}

const names = (tables: readonly string[]): string => tables.map(printable).join(', ')

/** How long the base's locks may queue, and so hold up others, before it tries again. */
const lockTimeout_ms = 5000

async function incremental(context: Context): Promise<number> {
  const { out, signal } = context
  const started = performance.now()
  const conninfo = await context.requireConninfo()
  const { repository, source } = await context.openSource()
  using progress = new Progress(out)
  let [segments, transactions, stored_bytes] = [0, 0, 0]
  let blind: string | undefined
  const { reached, timeline } = await captureUpToNow(conninfo, repository, source, {
    ...(await captureOptions(context, repository)),
    onBlind: (error) => {
      blind = messageOf(error)
    },
    onSegment: ({ size_bytes, trailer }) => {
      segments++
      transactions += trailer.transactions.length
      stored_bytes += size_bytes + trailer.parts.reduce((sum, part) => sum + part.size_bytes, 0)
      progress.note(
        'stream',
        `${plural(segments, 'segment')}, ${plural(transactions, 'transaction')}, ${bytes(stored_bytes)}`,
      )
    },
  })
  const unseen = await readUnseen(repository, timeline, signal)
  progress[Symbol.dispose]()
  if (blind !== undefined)
    out.warn(
      `changes of the schema that the stream does not tell of go unnoticed: the catalogs cannot be read: ${blind}`,
    )
  if (unseen.length > 0) out.warn(allInWords(unseen))
  const duration_ms = Math.round(performance.now() - started)
  out.result(
    `captured up to ${formatLsn(reached)}: ${plural(transactions, 'transaction')} in ${plural(segments, 'segment')}, ${bytes(stored_bytes)}, in ${duration(duration_ms)}`,
  )
  out.document({
    kind: 'incremental',
    source,
    repository: repository.storage.url,
    timeline: timeline.id,
    reached: formatLsn(reached),
    transactions,
    segments,
    stored_bytes,
    unseen: unseen.map(({ kind, from, to }) => ({ kind, from: point(from), to: point(to) })),
    duration_ms,
  })
  return unseen.length + (blind === undefined ? 0 : 1)
}

function allInWords([first, ...more]: readonly UnseenChange[]): string {
  if (first === undefined) return ''
  const [from, to] = [placeInWords(first.from), placeInWords(first.to)]
  const what = unseenInWords(first.kind, first.kind === 'unsure' ? ` at ${to}` : ` between ${from} and ${to}`)
  const others = more.length > 0 ? ` (and ${plural(more.length, 'more change')} since)` : ''
  return `${what}${others}: later targets lack it or are refused; record it with \`walback backup --full\``
}

const placeInWords = ({ lsn, time }: UnseenChange['from']): string => `${formatTime(time)} (${formatLsn(lsn)})`
