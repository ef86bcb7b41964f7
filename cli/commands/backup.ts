import {
  type CaptureSessionOptions,
  captureUpToNow,
  completeBase,
  formatLsn,
  formatTime,
  micros,
  requireTimeline,
  takeBase,
  WalbackError,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { bytes, count, duration, plural } from '../format.ts'
import { parseJobs } from '../options.ts'
import { Progress } from '../progress.ts'

interface Options {
  readonly full?: boolean
  readonly incremental?: boolean
  readonly jobs: number
}

export const addBackup: AddCommand = (program, bind) => {
  program
    .command('backup')
    .description('take a base backup (--full), or capture everything up to now and end (--incremental)')
    .option('--full', 'a base backup: schema, rows, sequences, large objects')
    .option('--incremental', 'what has been committed since the last capture; for cron, where no agent runs')
    .option('--jobs <n>', 'connections that copy rows side by side', parseJobs, 4)
    .action(bind<Options>(backup))
}

async function backup(context: Context, options: Options): Promise<undefined> {
  if (options.full === options.incremental) {
    throw new WalbackError(
      'usage',
      options.full ? '--full and --incremental exclude each other' : 'what kind of backup?',
      {
        hint: 'give --full for a base backup, or --incremental for the changes since the last capture',
      },
    )
  }
  await (options.full ? full(context, options.jobs) : incremental(context))
}

async function captureOptions(context: Context): Promise<CaptureSessionOptions> {
  const { stream } = await context.settings()
  return { ...stream, stop: context.signal }
}

async function full(context: Context, jobs: number): Promise<void> {
  const { out, signal } = context
  const started = performance.now()
  const conninfo = await context.requireConninfo()
  const { repository, source } = await context.openSource()
  const timeline = await requireTimeline(repository, source)
  using progress = new Progress(out)
  const base = await takeBase(conninfo, repository, timeline, {
    jobs,
    lockTimeout_ms,
    signal,
    onProgress: (state) => {
      if (state.phase === 'waiting')
        progress.note('waiting', `for ${plural(state.transactions, 'transaction')} from before the slot was made`)
      else
        progress.note('rows', `${count(state.rows)} rows, ${bytes(state.raw_bytes)}, ${plural(state.tables, 'table')}`)
    },
  })
  progress.note('stream', 'until the archive has passed the snapshot')
  await completeBase(conninfo, repository, base, await captureOptions(context))
  progress[Symbol.dispose]()
  const duration_ms = Math.round(performance.now() - started)
  const rows = base.tables.reduce((sum, table) => sum + table.rows, 0)
  out.result(
    `backup ${base.id}  ${bytes(base.raw_bytes)} -> ${bytes(base.stored_bytes)} in ${duration(duration_ms)}, snapshot at ${base.lsn}`,
  )
  out.document({
    kind: 'full',
    id: base.id,
    source,
    repository: repository.storage.url,
    timeline: base.timeline,
    lsn: base.lsn,
    time: formatTime(micros(BigInt(base.time))),
    tables: base.tables.length,
    rows,
    raw_bytes: base.raw_bytes,
    stored_bytes: base.stored_bytes,
    duration_ms,
  })
}

/** How long the base's locks may queue, and so hold up others, before it tries again. */
const lockTimeout_ms = 5000

async function incremental(context: Context): Promise<void> {
  const { out } = context
  const started = performance.now()
  const conninfo = await context.requireConninfo()
  const { repository, source } = await context.openSource()
  using progress = new Progress(out)
  let [segments, transactions, stored_bytes] = [0, 0, 0]
  const { reached, timeline } = await captureUpToNow(conninfo, repository, source, {
    ...(await captureOptions(context)),
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
  progress[Symbol.dispose]()
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
    duration_ms,
  })
}
