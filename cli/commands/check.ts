import {
  type CanaryOutcome,
  type CheckReport,
  canaryFindings,
  checkSource,
  connect,
  describeConninfo,
  exitStatus,
  type Finding,
  type FindingCode,
  findingCodes,
  fixesOf,
  formatTime,
  type Level,
  messageOf,
  nearest,
  nowMicros,
  obstacleTo,
  openStorage,
  Repository,
  runFixes,
  sendCanary,
  sortFindings,
  WalbackError,
  waiveFindings,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { copyFindings, requiredCopies } from '../copies.ts'
import { duration, plural, printable } from '../format.ts'
import { parseList, parseTimeout } from '../options.ts'
import { encryptionInWords, encryptionJson } from './key.ts'

interface Options {
  readonly fix?: boolean
  readonly nagios?: boolean
  readonly waive?: readonly string[]
  readonly canary: boolean
  readonly timeout: number
}

export const addCheck: AddCommand = (program, bind) => {
  program
    .command('check')
    .description('what would not be captured or restored exactly, why, and the SQL that mends it')
    .option(
      '--fix',
      'mend what takes nothing from anybody: replica identities, event triggers, notes of a repository that was lost',
    )
    .option('--nagios', 'one line and exit status for Nagios and its like')
    .option('--waive <kinds>', 'count warnings of these kinds as notes; several with commas', parseList)
    .option('--no-canary', 'send no transaction through the stream and the store and back: only look')
    .option('--timeout <duration>', 'how long that transaction may take', parseTimeout, 30_000)
    .action(bind<Options>(check))
}

async function check(context: Context, options: Options): Promise<number> {
  if (options.nagios && (options.fix || context.out.json)) {
    throw new WalbackError('usage', `--nagios excludes ${options.fix ? '--fix' : '--json'}`, {
      hint: 'give one of them',
    })
  }
  const waived = (options.waive ?? []).map(findingCode)
  if (options.nagios) return nagios(context, options, waived)
  return await withSource(context, options, async ({ look, mend, fly }) => {
    let report = await look(waived)
    const fixed = options.fix ? await fix(context, report, mend) : []
    if (fixed.length > 0) report = await look(waived)
    report = await fly(report, waived)
    context.out.data(inWords(context, report))
    context.out.document(await inJson(context, report, fixed))
    return report.errors > 0 ? exitStatus.prerequisite : report.warnings > 0 ? exitStatus.warnings : 0
  })
}

function findingCode(text: string): FindingCode {
  const code = findingCodes.find((known) => known === text)
  if (code !== undefined) return code
  const meant = nearest(text, findingCodes)
  throw new WalbackError('usage', `there is no kind of finding ${JSON.stringify(text)}`, {
    hint: meant === undefined ? `there are ${findingCodes.join(', ')}` : `did you mean ${meant}?`,
  })
}

interface Counted extends CheckReport {
  readonly repository: string | undefined
  readonly canary: CanaryOutcome
  readonly errors: number
  readonly warnings: number
  readonly notes: number
}

type Waived = readonly FindingCode[]

/** What can be done in one session. */
interface Session {
  look(waived: Waived): Promise<Counted>
  mend(fixes: ReturnType<typeof fixesOf>): Promise<void>
  /** Sends the canary, and counts what became of it among the findings. */
  fly(report: Counted, waived: Waived): Promise<Counted>
}

/** One session for looking, mending, looking again, and sending the canary. */
async function withSource<T>(context: Context, options: Options, work: (session: Session) => Promise<T>): Promise<T> {
  const { signal, out } = context
  const conninfo = await context.requireConninfo()
  const { source, suggested, repositories, guard } = await context.settings()
  const storage =
    repositories === undefined ? undefined : openStorage(await context.requireRepositoryUrl(), context.world.env)
  const access = storage && (await context.access(storage))
  const client = await connect(conninfo, { application: 'walback check', signal })
  try {
    return await work({
      look: async (waived) => {
        const report = await checkSource(client, {
          source,
          suggested: suggested ?? 'source',
          storage,
          access,
          guard_bytes: guard.maxSlotWal_bytes,
          signal,
        })
        const canary: CanaryOutcome = { state: 'skipped', why: 'only looked' }
        const ofCopies = storage === undefined ? [] : await copyFindings(context, report.source)
        const findings = [...report.findings, ...ofCopies]
        return counted({ ...report, findings, repository: storage?.url, canary }, waived)
      },
      mend: (fixes) => runFixes(client, fixes, (title) => out.say(`  mending  ${printable(title)}`)),
      fly: async (report, waived) => {
        const skip = (why: string): Counted => ({ ...report, canary: { state: 'skipped', why } })
        if (!options.canary) return skip('--no-canary')
        if (storage === undefined) return skip('no repository was given')
        const obstacle = obstacleTo(report)
        if (obstacle !== undefined) return skip(`it could not come back: ${obstacle.code}`)
        const repository = await Repository.open(storage, access)
        if (repository.key?.mayRead === false) return skip('the key that was given may write, and not read it back')
        const timeout_ms = options.timeout
        const required = await requiredCopies(context, repository)
        const flight = { conninfo, repository, source: report.source, required, timeout_ms, signal }
        const canary = await sendCanary(client, flight)
        const findings = [...report.findings, ...canaryFindings(canary, `source ${report.source}`)]
        return counted({ ...report, findings, canary }, waived)
      },
    })
  } finally {
    await client.end().catch(() => undefined)
  }
}

function counted(report: Omit<Counted, 'errors' | 'warnings' | 'notes'>, waived: Waived): Counted {
  const findings = sortFindings(waiveFindings(report.findings, waived))
  const count = (level: Level): number => findings.filter((one) => one.level === level).length
  return { ...report, findings, errors: count('error'), warnings: count('warning'), notes: count('note') }
}

/** Shows what would be run, asks, and runs it; gives the titles of what was done. */
async function fix(context: Context, { findings }: CheckReport, mend: Session['mend']): Promise<string[]> {
  const { out } = context
  const fixes = fixesOf(findings)
  if (fixes.length === 0) {
    out.say('there is nothing that could be mended without you: what is left needs your decision')
    return []
  }
  for (const { title, sql } of fixes) out.say(`-- ${printable(title)}\n${brief(sql, out.verbose)}`)
  await context.confirm(`Run ${plural(fixes.length, 'step')}?`, { steps: fixes })
  await mend(fixes)
  if (findings.some(({ code, fix }) => fix !== null && code.startsWith('event-trigger')))
    out.say('run `walback backup --full` now: changes of the schema until here may not be in the stream')
  return fixes.map(({ title }) => title)
}

/** Functions fill pages. */
function brief(sql: string, whole: boolean): string {
  const lines = sql.trim().replace(/;?$/, ';').split('\n')
  if (whole || lines.length <= 12) return lines.map(printable).join('\n')
  return `${lines.slice(0, 3).map(printable).join('\n')}\n-- … ${lines.length - 3} lines more, which -v shows`
}

const shown = 10
const colours = { error: 'red', warning: 'yellow', note: 'dim' } as const

function inWords(context: Context, report: Counted): string {
  const { out } = context
  const { findings, facts, source } = report
  const groups = new Map<string, Finding[]>()
  for (const one of findings) {
    const key = JSON.stringify([one.level, one.code, one.why, one.hint])
    groups.set(key, [...(groups.get(key) ?? []), one])
  }
  const head = `${out.paintData(printable(source), 'bold')}  ${printable(facts.database.name)}, PostgreSQL ${facts.versionText}`
  const lines = [...groups.values()].flatMap((group) => groupInWords(context, group))
  return [head, ...lines, ...canaryLine(context, report), summary(context, report)].join('\n')
}

/** One that did not come back is among the findings. */
function canaryLine({ out }: Context, { canary }: Counted): string[] {
  if (canary.state !== 'back') return []
  const time = canary.duration_ms < 1000 ? `${canary.duration_ms} ms` : duration(canary.duration_ms)
  const by = canary.by === 'agent' ? 'by the agent' : 'here: no agent is capturing'
  return [`${out.paintData('OK', 'green')}  canary`, `  commit -> stored -> read back in ${time}, captured ${by}`]
}

function groupInWords({ out }: Context, group: readonly Finding[]): string[] {
  const [first] = group as [Finding]
  const some = out.verbose ? group : group.slice(0, shown)
  const more = group.length - some.length
  const objects = some.flatMap(({ object }) => (object === null ? [] : printable(object)))
  const fixes = some.flatMap(({ sql }) => (sql === null ? [] : `${printable(sql)};`))
  const word = out.paintData(first.level.toUpperCase(), colours[first.level])
  return [
    `${word}  ${first.code}${first.waived ? ' (waived)' : ''}`,
    ...objects.map((object) => `    ${object}`),
    ...(more > 0 ? [`    and ${more} more, which -v shows`] : []),
    `  ${printable(first.why)}`,
    ...[...new Set(fixes)].map((sql, index) => `  ${index === 0 ? 'fix:' : '    '}  ${sql}`),
    ...(first.hint === null ? [] : first.hint.split('\n').map((line) => `  hint: ${printable(line)}`)),
  ]
}

function summary({ out }: Context, report: Counted): string {
  const { errors, warnings, notes, findings, repository, key } = report
  const counts = [
    ...(errors > 0 ? [plural(errors, 'error')] : []),
    ...(warnings > 0 ? [plural(warnings, 'warning')] : []),
    ...(notes > 0 ? [plural(notes, 'note')] : []),
  ]
  const lines = [
    errors + warnings > 0 ? counts.join(', ') : [out.paintData('ok', 'green'), ...counts].join(', '),
    ...(findings.some((one) => one.fix !== null)
      ? ['`walback check --fix` mends what needs no decision of yours']
      : []),
    ...(key === undefined ? [] : [`the repository is encrypted: ${encryptionInWords(key)}`]),
    ...(repository === undefined ? ['the repository was not looked at: none was given (--repo)'] : []),
  ]
  return lines.join('\n')
}

async function inJson(
  context: Context,
  report: Counted,
  fixed: readonly string[],
): Promise<Readonly<Record<string, unknown>>> {
  const { slot, facts } = report
  const limit_bytes = facts.maxSlotWalKeepSize_mb < 0 ? null : facts.maxSlotWalKeepSize_mb * 1024 * 1024
  return {
    source: report.source,
    database: describeConninfo(await context.requireConninfo()),
    server_version: facts.versionText,
    repository: report.repository ?? null,
    encryption: encryptionJson(report.key),
    set_up: report.isSetUp,
    errors: report.errors,
    warnings: report.warnings,
    notes: report.notes,
    findings: report.findings.map(({ fix, ...one }) => ({ ...one, fixable: fix !== null })),
    fixed,
    slot: slot
      ? {
          name: slot.name,
          active: slot.active,
          wal_status: slot.walStatus,
          retained_bytes: slot.retained_bytes,
          limit_bytes,
        }
      : null,
    archive_age_s: report.archiveAge_s ?? null,
    canary: canaryJson(report.canary),
    checked: formatTime(nowMicros()),
  }
}

const canaryJson = (canary: CanaryOutcome): Record<string, unknown> => ({
  state: canary.state,
  duration_ms: canary.state === 'back' ? canary.duration_ms : null,
  captured_by: canary.state === 'back' ? canary.by : null,
  object: canary.state === 'back' ? canary.key : null,
  why: canary.state === 'back' ? null : canary.why,
})

const states = ['OK', 'WARNING', 'CRITICAL', 'UNKNOWN'] as const

/** https://nagios-plugins.org/doc/guidelines.html: a line `STATE - words | performance data`, and the state as the exit status. */
async function nagios(context: Context, options: Options, waived: Waived): Promise<number> {
  const say = (state: number, words: string, data = ''): number => {
    // A bar or a line's end would end the words.
    const text = printable(words.replaceAll('\n', ' ')).replaceAll('|', '/')
    context.out.data(`WALBACK ${states[state]} - ${text}${data === '' ? '' : ` | ${data}`}`)
    return state
  }
  try {
    return await withSource(context, options, async ({ look, fly }) => {
      const report = await fly(await look(waived), waived)
      const { errors, warnings, notes, slot, archiveAge_s, canary } = report
      const worst = report.findings.filter(({ level }) => level !== 'note').slice(0, 3)
      const words = worst.map(({ code, object }) => (object === null ? code : `${code} (${object})`))
      const more = errors + warnings - worst.length
      const data = [
        `errors=${errors}`,
        `warnings=${warnings}`,
        `notes=${notes}`,
        ...(slot ? [`slot_retained=${slot.retained_bytes}B`] : []),
        ...(archiveAge_s === undefined ? [] : [`archive_age=${Math.max(0, archiveAge_s)}s`]),
        ...(canary.state === 'back' ? [`canary=${canary.duration_ms}ms`] : []),
      ]
      return say(
        errors > 0 ? 2 : warnings > 0 ? 1 : 0,
        `${report.source}: ${words.join(', ') || 'nothing to report'}${more > 0 ? `, and ${more} more` : ''}`,
        data.join(' '),
      )
    })
  } catch (error) {
    if (context.signal.aborted) throw error
    return say(3, messageOf(error))
  }
}
