import { once } from 'node:events'
import { constants, createWriteStream } from 'node:fs'
import { access, link, lstat, mkdir, rename, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import type { Writable } from 'node:stream'
import {
  codeOf,
  messageOf,
  type Repository,
  type RestorePlan,
  type SqlOutReport,
  type SqlSink,
  WalbackError,
  writeSql,
} from '../src/index.ts'
import { audited, restoreAsked } from './audited.ts'
import type { Context } from './context.ts'
import { plural, shellWord } from './format.ts'
import { bringBack, type StageFlags, stageFor } from './past.ts'

/**
 * Restores on a throwaway server, and writes what is there as SQL: to a file that is not there yet, to a folder of files
 * (a name that ends in a slash), or to stdout (`-`).
 */
export async function restoreAsSql(
  context: Context,
  repository: Repository,
  plan: RestorePlan,
  options: StageFlags & { readonly sqlOut: string; readonly dataOnly?: boolean },
): Promise<undefined> {
  const { out } = context
  const isFolder = /[/\\]$/.test(options.sqlOut)
  const place = options.sqlOut === '-' ? undefined : context.path(options.sqlOut)
  const dataOnly = options.dataOnly === true
  // Said before hours of work, not after them.
  if (place !== undefined) await refuseTaken(place)
  const { result: report, audit } = await audited<SqlOutReport>(
    context,
    { repository, source: plan.source },
    {
      action: 'restore-sql',
      role: null,
      ...restoreAsked(plan, place ?? 'stdout', { [isFolder ? 'folder' : 'file']: place ?? null, data_only: dataOnly }),
      came: ({ tables, rows }) => ({
        words: `${plural(tables, 'table')}, ${plural(rows, 'row')}`,
        facts: { tables, rows },
      }),
    },
    () => write(context, repository, plan, { ...options, place, isFolder, dataOnly }),
  )
  const amount = `${plural(report.tables, 'table')}, ${plural(report.rows, 'row')}`
  if (place === undefined) {
    out.say(`written: ${amount}`)
    return
  }
  const first = isFolder ? path.join(place, entry) : place
  out.data(`${amount} in ${place}`)
  out.say(
    `load it: psql --set ON_ERROR_STOP=1 --single-transaction --file ${shellWord(first)} --dbname ${dataOnly ? 'DATABASE' : 'EMPTY_DATABASE'}`,
  )
  out.line({ type: 'summary', schema_version: 1, ...report, [isFolder ? 'folder' : 'file']: place, audit })
}

async function write(
  context: Context,
  repository: Repository,
  plan: RestorePlan,
  {
    place,
    isFolder,
    dataOnly,
    ...options
  }: StageFlags & { readonly place: string | undefined; readonly isFolder: boolean; readonly dataOnly: boolean },
): Promise<SqlOutReport> {
  const { signal, world } = context
  await using stage = await stageFor(context, [plan], options)
  const past = await bringBack(context, stage, repository, plan, options)
  const work: Work = (sink) => writeSql(past, sink, { dataOnly, signal })
  if (place !== undefined) return await (isFolder ? intoFolder : intoFile)(place, work)
  const toStdout = writer(world.stdout)
  return await work({ part: async () => toStdout })
}

/** In a folder, the file that runs the others. */
const entry = 'restore.sql'

type Work = (sink: SqlSink) => Promise<SqlOutReport>

/** The file gets its name when it is whole. Rows are in it: only its owner reads it. */
async function intoFile(file: string, work: Work): Promise<SqlOutReport> {
  const temporary = `${file}.partial`
  const made = await openFile(temporary).catch((error: unknown) => {
    throw cannotWrite(file, error)
  })
  try {
    const report = await work({ part: async () => made.write })
    await made.close()
    await link(temporary, file)
    return report
  } catch (error) {
    made.destroy()
    throw cannotWrite(file, error)
  } finally {
    await rm(temporary, { force: true })
  }
}

/** A file for each part, in their order, and one that runs them all. The folder gets its name when it is whole. */
async function intoFolder(folder: string, work: Work): Promise<SqlOutReport> {
  const temporary = `${folder.replace(/[/\\]+$/, '')}.partial`
  const files: string[] = []
  let open: Awaited<ReturnType<typeof openFile>> | undefined
  const part = async (name: string): ReturnType<SqlSink['part']> => {
    await open?.close()
    // What a table's name may have, a file's may not.
    const word = name.replaceAll(/[^A-Za-z0-9_.-]+/g, '-').slice(0, 80)
    const file = `${String(files.length + 1).padStart(5, '0')}-${word}.sql`
    open = await openFile(path.join(temporary, file))
    files.push(file)
    return open.write
  }
  try {
    await mkdir(temporary, { mode: 0o700 })
  } catch (error) {
    throw cannotWrite(folder, error)
  }
  try {
    const report = await work({ part })
    await open?.close()
    const lines = files.map((file) => `\\ir '${file}'\n`).join('')
    await writeFile(path.join(temporary, entry), lines, { mode: 0o600 })
    await mkdir(folder)
    // Over an empty one, and never over what somebody else has put there.
    await rename(temporary, folder)
    return report
  } catch (error) {
    open?.destroy()
    throw cannotWrite(folder, error)
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
}

async function openFile(file: string) {
  const stream = createWriteStream(file, { flags: 'wx', mode: 0o600 })
  const write = writer(stream)
  await once(stream, 'open')
  return {
    write,
    close: async (): Promise<void> => {
      stream.end()
      if (!stream.closed) await once(stream, 'close')
    },
    destroy: () => stream.destroy(),
  }
}

/** Refuses what could not be written at the end. */
async function refuseTaken(file: string): Promise<void> {
  const isThere = await lstat(file).then(
    () => true,
    () => false,
  )
  if (isThere) throw cannotWrite(file, Object.assign(new Error('it is there'), { code: 'EEXIST' }))
  await access(path.dirname(file), constants.W_OK).catch((error: unknown) => {
    throw cannotWrite(file, error)
  })
}

function cannotWrite(file: string, error: unknown): unknown {
  if (error instanceof WalbackError) return error
  const isThere = codeOf(error) === 'EEXIST'
  return new WalbackError(isThere ? 'refused' : 'failed', `cannot write ${file}: ${messageOf(error)}`, {
    cause: error,
    hint: isThere
      ? 'name one that is not there yet'
      : codeOf(error) === 'ENOENT'
        ? `make the folder ${path.dirname(file)} first`
        : 'is there space, and may it be written?',
  })
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
