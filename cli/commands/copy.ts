import {
  type CopyReport,
  checkSourceName,
  copySource,
  damageError,
  findTarget,
  openStorage,
  openTarget,
  type Repository,
  readTimelines,
  type Survey,
  surveyCopy,
  WalbackError,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import { Context } from '../context.ts'
import { bytes, count, duration, plural, printable } from '../format.ts'
import { Progress } from '../progress.ts'

interface Options {
  readonly from?: string
  readonly to: string
  readonly dryRun?: boolean
}

export const addCopy: AddCommand = (program, bind) => {
  program
    .command('copy')
    .description('copy what one repository holds to another, as far as that one does not have it yet')
    .option('--from <url>', 'the repository to read (default: the configured one)')
    .requiredOption('--to <url>', 'the repository to add to; made if there is none')
    .option('-n, --dry-run', 'show what would be copied, and end')
    .action(bind<Options>(copy))
}

async function copy(context: Context, options: Options): Promise<undefined> {
  const { out } = context
  const started = performance.now()
  const { from, target } = await open(context, options)
  const sources = await chosen(context, from)
  if (options.dryRun) {
    const to = await findTarget(from, target)
    const surveys: Survey[] = []
    for (const source of sources) surveys.push(await surveyCopy(from, to, source, context.signal))
    for (const survey of surveys) out.data(`${printable(survey.source)}  to copy: ${surveyInWords(survey)}`)
    out.document({ from: from.storage.url, to: target.url, dry_run: true, sources: surveys.map(surveyJson) })
    return
  }
  const to = await openTarget(from, target, context.signal)
  const reports: CopyReport[] = []
  for (const source of sources) reports.push(await copyOne(context, from, to, source))
  const duration_ms = Math.round(performance.now() - started)
  for (const report of reports) {
    if (report.note !== undefined) out.warn(printable(report.note))
    for (const { what } of report.damage) out.warn(`not copied: ${printable(what)}`)
    out.result(`${printable(report.source)}  ${reportInWords(report)}`)
  }
  out.result(`copied to ${to.storage.url} in ${duration(duration_ms)}`)
  out.document({
    from: from.storage.url,
    to: to.storage.url,
    dry_run: false,
    sources: reports.map(reportJson),
    duration_ms,
  })
  const damage = reports.flatMap((report) => report.damage)
  if (damage.length > 0) throw damageError(from, damage)
}

async function open(
  context: Context,
  options: Options,
): Promise<{ readonly from: Repository; readonly target: ReturnType<typeof openStorage> }> {
  const { flags, world, out } = context
  const reading = options.from === undefined ? context : new Context({ ...flags, repo: options.from }, world, out)
  const from = await reading.openRepository()
  const target = openStorage(context.repositoryAt(options.to), world.env)
  if (target.url !== from.storage.url) return { from, target }
  throw new WalbackError('usage', `--from and --to are the same repository, ${target.url}`, {
    hint: 'give --to another place',
  })
}

/** The one that is named, or all that have anything to copy. */
async function chosen(context: Context, from: Repository): Promise<readonly string[]> {
  if (context.flags.source !== undefined) return [checkSourceName(context.flags.source)]
  const sources: string[] = []
  for (const source of await from.sources(context.signal))
    if ((await readTimelines(from, source, context.signal)).length > 0) sources.push(source)
  if (sources.length > 0) return sources
  throw new WalbackError('no_repository', `the repository at ${from.storage.url} holds no source yet`, {
    hint: 'check --from',
  })
}

async function copyOne(context: Context, from: Repository, to: Repository, source: string): Promise<CopyReport> {
  const { out, signal } = context
  using progress = new Progress(out)
  progress.note('looking', `at what both hold of ${printable(source)}`)
  return await copySource(from, to, source, {
    signal,
    onProgress: ({ phase, objects, bytes: copied, of }) =>
      progress.bar(
        phase,
        of.bytes === 0 ? undefined : Math.min(1, copied / of.bytes),
        `${count(objects)}/${count(of.objects)} objects, ${bytes(copied)}/${bytes(of.bytes)}`,
      ),
  })
}

const surveyInWords = ({ objects, bases, segments, bytes: size }: Survey): string =>
  objects === 0
    ? 'nothing, the copy has all'
    : `${plural(bases, 'base')}, ${plural(segments, 'segment')}; ${plural(objects, 'object')}, at most ${bytes(size)}`

const reportInWords = ({ objects, bases, segments, bytes: size }: CopyReport): string =>
  objects === 0
    ? 'nothing to copy'
    : `${plural(bases, 'base')}, ${plural(segments, 'segment')}; ${plural(objects, 'object')}, ${bytes(size)}`

const surveyJson = ({ source, objects, bases, segments, pins, bytes: size }: Survey): Record<string, unknown> => ({
  source,
  objects,
  bases,
  segments,
  pins,
  bytes: size,
})

const reportJson = ({ source, objects, bases, segments, bytes: size, damage, note }: CopyReport): object => ({
  source,
  objects,
  bases,
  segments,
  bytes: size,
  damage: damage.map(({ key, what }) => ({ key, what })),
  note: note ?? null,
})
