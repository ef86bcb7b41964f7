import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { link, rm } from 'node:fs/promises'
import type { Writable } from 'node:stream'
import {
  codeOf,
  messageOf,
  type Repository,
  type RestorePlan,
  type SqlOutReport,
  WalbackError,
  writeSql,
} from '../src/index.ts'
import { audited, restoreAsked } from './audited.ts'
import type { Context } from './context.ts'
import { plural, shellWord } from './format.ts'
import { bringBack, type StageFlags, stageFor } from './past.ts'

/** Restores on a throwaway server, and writes what is there as SQL, to a file that is not there yet or to stdout (`-`). */
export async function restoreAsSql(
  context: Context,
  repository: Repository,
  plan: RestorePlan,
  options: StageFlags & { readonly sqlOut: string },
): Promise<undefined> {
  const { out } = context
  const file = options.sqlOut === '-' ? undefined : context.path(options.sqlOut)
  const { result: report, audit } = await audited<SqlOutReport>(
    context,
    { repository, source: plan.source },
    {
      action: 'restore-sql',
      role: null,
      ...restoreAsked(plan, file ?? 'stdout', { file: file ?? null }),
      came: ({ tables, rows }) => ({
        words: `${plural(tables, 'table')}, ${plural(rows, 'row')}`,
        facts: { tables, rows },
      }),
    },
    () => write(context, repository, plan, { ...options, file }),
  )
  const amount = `${plural(report.tables, 'table')}, ${plural(report.rows, 'row')}`
  if (file === undefined) {
    out.say(`written: ${amount}`)
    return
  }
  out.data(`${amount} in ${file}`)
  out.say(`load it: psql --set ON_ERROR_STOP=1 --single-transaction --file ${shellWord(file)} --dbname EMPTY_DATABASE`)
  out.line({ type: 'summary', schema_version: 1, ...report, file, audit })
}

async function write(
  context: Context,
  repository: Repository,
  plan: RestorePlan,
  { file, ...options }: StageFlags & { readonly file: string | undefined },
): Promise<SqlOutReport> {
  const { signal, world } = context
  await using stage = await stageFor(context, [plan], options)
  const past = await bringBack(context, stage, repository, plan, options)
  if (file === undefined) return await writeSql(past, writer(world.stdout), { signal })
  return await intoFile(file, (piece) => writeSql(past, piece, { signal }))
}

/** The file gets its name when it is whole. Rows are in it: only its owner reads it. */
async function intoFile(
  file: string,
  work: (write: ReturnType<typeof writer>) => Promise<SqlOutReport>,
): Promise<SqlOutReport> {
  const temporary = `${file}.partial`
  const stream = createWriteStream(temporary, { flags: 'wx', mode: 0o600 })
  try {
    await once(stream, 'open')
    const report = await work(writer(stream))
    stream.end()
    await once(stream, 'close')
    await link(temporary, file)
    return report
  } catch (error) {
    stream.destroy()
    if (error instanceof WalbackError) throw error
    throw new WalbackError(
      codeOf(error) === 'EEXIST' ? 'refused' : 'failed',
      `cannot write ${file}: ${messageOf(error)}`,
      {
        cause: error,
        hint:
          codeOf(error) === 'EEXIST' ? 'name a file that is not there yet' : 'is there space, and may it be written?',
      },
    )
  } finally {
    if (stream.pending === false) await rm(temporary, { force: true })
  }
}

/** Waits for whoever reads more slowly than is written. */
function writer(stream: Writable): (piece: Buffer | string) => Promise<void> {
  let failure: Error | undefined
  stream.on('error', (error) => {
    failure = error
  })
  return async (piece) => {
    if (failure) throw failure
    if (!stream.write(piece) && !failure) await once(stream, 'drain')
  }
}
