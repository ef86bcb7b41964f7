/** The whole way in one process, for tests: set-up, capture, base, restore, on an embedded server and a scratch folder. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { takeBase } from '../../src/backup/base-backup.ts'
import type { BaseBackupOptions } from '../../src/backup/base-options.ts'
import { present } from '../../src/base/assert.ts'
import {
  type CaptureSessionOptions,
  captureContinuously,
  captureUpToNow,
  requireTimeline,
} from '../../src/capture/session.ts'
import { setUp } from '../../src/capture/setup.ts'
import { type Lsn, parseLsn } from '../../src/model/lsn.ts'
import type { RecoveryTarget } from '../../src/model/target.ts'
import { type Conninfo, resolveConninfo } from '../../src/postgres/conninfo.ts'
import { askServerHistory } from '../../src/postgres/server-history.ts'
import { type BaseManifest, readManifest } from '../../src/repository/base.ts'
import type { Credential } from '../../src/repository/credential.ts'
import { makeRecipient, type NewRecipient } from '../../src/repository/recipients.ts'
import { Repository } from '../../src/repository/repository.ts'
import type { TransactionEntry } from '../../src/repository/segment-format.ts'
import { planRestore, type RestorePlan } from '../../src/restore/plan.ts'
import { type RestoreReport, restore } from '../../src/restore/restore.ts'
import { openStorage } from '../../src/storage/open.ts'
import { readSegments } from './segments.ts'

export interface TestArchive extends AsyncDisposable {
  readonly folder: string
  readonly conninfo: Conninfo
  readonly repository: Repository
  readonly source: string
  /** The same archive, seen from another server: a standby that has taken over. */
  at(url: string): TestArchive
  base(options?: Partial<BaseBackupOptions>): Promise<BaseManifest>
  catchUp(options?: Partial<CaptureSessionOptions>): Promise<void>
  /** Captures until the returned function is called. */
  capture(options?: Partial<CaptureSessionOptions>): () => Promise<void>
  /** Ends a capture, and then captures what is left. */
  catchUpAfter(stop: () => Promise<void>): Promise<void>
  plan(target: RecoveryTarget): Promise<RestorePlan>
  /** What the archive holds of the current timeline. */
  history(): Promise<{ readonly transactions: readonly TransactionEntry[]; readonly end: Lsn }>
  /** Restores into a new database of the source's server, hands over its URL, and drops it. */
  restored<T>(
    target: RecoveryTarget,
    use: (url: string, report: RestoreReport) => Promise<T>,
    memory_bytes?: number,
  ): Promise<T>
}

const quick = { segmentBytes: 1 << 20, segmentAge_ms: 300, heartbeat_ms: 1000 }

/** `credential`: the archive is an encrypted one, which that opens. */
export async function openArchive(
  url: string,
  source = 'app',
  credential?: NewRecipient & Credential,
): Promise<TestArchive> {
  const folder = await mkdtemp(join(tmpdir(), 'walback-test-'))
  const storage = openStorage(folder)
  if (credential) await Repository.createEncrypted(storage, [await makeRecipient(credential, 'owner', 'full')])
  const repository = await Repository.create(storage, credential && { credential })
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const server = await askServerHistory(resolveConninfo(url, {}))
    await setUp(client, repository, { source, replicaIdentity: 'full', server })
  } finally {
    await client.end()
  }
  return archiveAt(url, { folder, repository, source })
}

type Place = Pick<TestArchive, 'folder' | 'repository' | 'source'>

/** An archive that is there, of the source at this URL. */
export function archiveAt(url: string, place: Place): TestArchive {
  const { folder, repository, source } = place
  const conninfo = resolveConninfo(url, {})
  let restores = 0
  const archive: TestArchive = {
    folder,
    conninfo,
    repository,
    source,
    at: (other) => archiveAt(other, place),
    base: async (options) => {
      const timeline = await requireTimeline(repository, source)
      const { id } = await takeBase(conninfo, repository, timeline, { jobs: 2, lockTimeout_ms: 10_000, ...options })
      return present(await readManifest(repository, source, id), 'the manifest of a base that was taken')
    },
    catchUp: async (options) => {
      await captureUpToNow(conninfo, repository, source, { ...quick, stop: new AbortController().signal, ...options })
    },
    capture: (options) => {
      const stop = new AbortController()
      const running = captureContinuously(conninfo, repository, source, { ...quick, ...options, stop: stop.signal })
      running.catch(() => undefined)
      return async () => {
        stop.abort()
        await running
      }
    },
    catchUpAfter: async (stop) => {
      await stop()
      await archive.catchUp()
    },
    plan: (target) => planRestore(repository, source, target),
    history: async () => {
      const timeline = await requireTimeline(repository, source)
      const segments = await readSegments(repository, timeline)
      return {
        transactions: segments.flatMap((segment) => segment.trailer.transactions),
        end: segments.at(-1)?.end ?? parseLsn(timeline.start),
      }
    },
    restored: async (target, use, memory_bytes) => {
      const database = `restored_${++restores}`
      const plan = await planRestore(repository, source, target)
      const report = await restore(
        repository,
        plan,
        { conninfo, database },
        { jobs: 2, ...(memory_bytes ? { memory_bytes } : {}) },
      )
      const at = new URL(url)
      at.pathname = `/${database}`
      try {
        return await use(at.href, report)
      } finally {
        const admin = new pg.Client({ connectionString: url })
        await admin.connect()
        await admin.query(`DROP DATABASE ${database} WITH (FORCE)`)
        await admin.end()
      }
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  }
  return archive
}

/** What a restore leaves out because it is ours. */
export const ourObjects = ['--ignore-schema', 'walback', '--ignore-object', 'walback']
