import { throwIfAborted } from '../base/abort.ts'
import { ahead } from '../base/ahead.ts'
import { WalbackError } from '../base/errors.ts'
import { Throttle } from '../base/throttle.ts'
import { version } from '../base/version.ts'
import type { AuditHead } from '../repository/audit-record.ts'
import { manifestKey, verificationKey } from '../repository/layout.ts'
import { readProof } from '../repository/proof-record.ts'
import type { Repository } from '../repository/repository.ts'
import {
  findVerification,
  mostNamed,
  readVerification,
  type Verification,
  writeVerification,
} from '../repository/verification.ts'
import type { StoredObject } from '../storage/storage.ts'
import { checkAudit } from './check-audit.ts'
import { wordsOf } from './check-segment.ts'
import { isDamage, type LostTargets, type VerifyFinding } from './finding.ts'
import { listShelf, type Shelf } from './shelf.ts'
import { isInSubset, type ReadSubset } from './subset.ts'
import { type VerifyProgress, Walk } from './walk.ts'
import { type WalkedBase, walkBases } from './walk-bases.ts'
import { type WalkedTimeline, walkTimelines } from './walk-timelines.ts'

export interface VerifyOptions {
  /** Which share of the objects is read whole; undefined: none, only what names them. */
  readonly subset?: ReadSubset | undefined
  /** Objects that are read side by side; 4 if not given. */
  readonly jobs?: number
  /** Reads at most so many bytes a second. */
  readonly maxRate?: number | undefined
  /** Carries on the last run over the same share, if that was interrupted. */
  readonly resume?: boolean
  /** Whether the result is stored in the repository; it is if not given. */
  readonly isRecorded?: boolean
  readonly onFinding?: (finding: VerifyFinding) => void
  readonly onProgress?: (progress: VerifyProgress) => void
  /** Ends the run; what was read is recorded first, so that another can carry it on. */
  readonly signal?: AbortSignal | undefined
}

export interface VerifyReport {
  readonly source: string
  readonly subset: ReadSubset | undefined
  readonly isResumed: boolean
  readonly objects: number
  readonly stored_bytes: number
  readonly read_bytes: number
  readonly duration_ms: number
  readonly findings: readonly VerifyFinding[]
  readonly damaged: number
  /** What can be restored as it is, as far as was looked. */
  readonly windows: readonly LostTargets[]
  /** The record of this run; undefined if there is none, with the reason if the store did not take it. */
  readonly record: string | undefined
  readonly notRecorded: string | undefined
}

/**
 * Walks everything that a repository holds of a source: every timeline's chain, every base, and all that they name. It
 * changes nothing but its own record. Damage is found and not thrown; a store that fails throws.
 */
export async function verifySource(
  repository: Repository,
  source: string,
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  const { signal, subset } = options
  const run = new Run(repository, source, options)
  const resumed = options.resume ? await run.interrupted() : undefined
  const seen = await findVerification(repository, source, ({ outcome }) => outcome !== 'interrupted', signal)
  const walk = new Walk({
    repository,
    source,
    subset,
    jobs: options.jobs ?? defaultJobs,
    throttle: options.maxRate === undefined ? undefined : new Throttle(options.maxRate),
    signal,
    resumed,
    seen,
    onFinding: options.onFinding,
    onProgress: options.onProgress,
    onStep: () => run.checkpoint(walk),
  })
  try {
    walk.enter('listing')
    const shelf = await listShelf(repository, source, signal)
    walk.total_bytes = bytesToRead(shelf, subset)
    await checkRecords(walk, shelf)
    const audit = await checkAudit(walk, seen)
    const bases = await walkBases(walk, shelf)
    compareBases(walk, shelf, bases, seen)
    const timelines = await walkTimelines(walk, shelf.timelines, bases, seen)
    throwIfAborted(signal)
    return await run.end(walk, { shelf, bases, timelines, audit, isResumed: resumed !== undefined })
  } catch (error) {
    await run.abandon(walk)
    throw error
  }
}

const defaultJobs = 4

/** One run's record: begun, kept up to date now and then, and ended. */
class Run {
  private readonly repository: Repository
  private readonly source: string
  private readonly options: VerifyOptions
  private readonly started = new Date()
  private readonly begun_ms = performance.now()
  private recorded_ms = performance.now()
  /** Records that the next one of this run takes the place of. */
  private superseded: string[] = []

  constructor(repository: Repository, source: string, options: VerifyOptions) {
    this.repository = repository
    this.source = source
    this.options = options
  }

  /** The last run, if it read the same share and did not come to its end, and named all that it had found. */
  async interrupted(): Promise<Verification | undefined> {
    const { subset, signal } = this.options
    const last = await findVerification(this.repository, this.source, () => true, signal)
    const isSame = last?.outcome === 'interrupted' && last.read?.part === subset?.part && last.read?.of === subset?.of
    return isSame && last.damaged <= mostNamed ? last : undefined
  }

  async checkpoint(walk: Walk): Promise<void> {
    if (performance.now() - this.recorded_ms < checkpointEvery_ms) return
    this.recorded_ms = performance.now()
    await this.record(this.interruption(walk))
  }

  /** What can be saved of a run that did not come to its end; that it did not is told by somebody else. */
  async abandon(walk: Walk): Promise<void> {
    if (walk.read_bytes > 0) await this.record(this.interruption(walk))
  }

  async end(
    walk: Walk,
    found: {
      readonly shelf: Shelf
      readonly bases: readonly WalkedBase[]
      readonly timelines: readonly WalkedTimeline[]
      readonly audit: readonly AuditHead[]
      readonly isResumed: boolean
    },
  ): Promise<VerifyReport> {
    const { shelf, bases, timelines, audit, isResumed } = found
    const outcome = walk.damaged > 0 ? 'damaged' : 'sound'
    const { key, why } = await this.record({
      ...this.details(walk, outcome),
      timelines: timelines.flatMap(({ head }) => head ?? []),
      bases: bases.map(({ head }) => head.id),
      audit: [...audit],
    })
    return {
      source: this.source,
      subset: this.options.subset,
      isResumed,
      objects: walk.objects,
      stored_bytes: shelf.stored_bytes,
      read_bytes: walk.read_bytes,
      duration_ms: Math.round(performance.now() - this.begun_ms),
      findings: walk.findings,
      damaged: walk.damaged,
      windows: timelines.flatMap(({ map }) => map.windows()),
      record: key,
      notRecorded: why,
    }
  }

  private interruption(walk: Walk): Verification {
    return { ...this.details(walk, 'interrupted'), timelines: [], bases: [], resume: walk.done }
  }

  private details(walk: Walk, outcome: Verification['outcome']) {
    const { subset } = this.options
    const damage = walk.findings.filter(isDamage)
    return {
      walback: 'verification' as const,
      format: 1 as const,
      source: this.source,
      started: this.started.toISOString(),
      finished: new Date().toISOString(),
      walbackVersion: version,
      outcome,
      read: subset ?? null,
      objects: walk.objects,
      read_bytes: walk.read_bytes,
      duration_ms: Math.round(performance.now() - this.begun_ms),
      damaged: damage.length,
      findings: damage.slice(0, mostNamed).map(({ kind, key, message }) => ({ kind, key, message })),
    }
  }

  /** Stores a record, and removes this run's earlier ones. A store that takes nothing can be verified all the same. */
  private async record(record: Verification): Promise<{ readonly key?: string; readonly why?: string }> {
    if (this.options.isRecorded === false) return {}
    const { storage } = this.repository
    try {
      const key = verificationKey(this.source, await writeVerification(this.repository, record))
      const old = this.superseded
      this.superseded = [key]
      for (const one of old) await storage.delete(one)
      return { key }
    } catch (error) {
      if (!(error instanceof WalbackError)) throw error
      return { why: error.message }
    }
  }
}

const checkpointEvery_ms = 60_000

/** Of what belongs to the share; leftovers count too, so it may come to a little less. */
function bytesToRead({ timelines, bases }: Shelf, subset: ReadSubset | undefined): number {
  if (subset === undefined) return 0
  const segments = timelines.flatMap((timeline) => timeline.segments).filter(({ key }) => isInSubset(key, subset))
  const ofSegments = segments.reduce((sum, { size_bytes, parts_bytes }) => sum + size_bytes + parts_bytes, 0)
  let ofBases = 0
  for (const { objects } of bases)
    for (const [key, size_bytes] of objects) if (isInSubset(key, subset)) ofBases += size_bytes
  return ofSegments + ofBases
}

/** Earlier records are objects of the repository too. */
async function checkRecords(walk: Walk, { verifications, proofs }: Shelf): Promise<void> {
  const { repository, source, signal } = walk.options
  const ofProofs = new Set(proofs)
  const check = async (object: StoredObject): Promise<{ key: string; message?: string }> => {
    const { key } = object
    try {
      const number = Number(/(\d+)\.json$/.exec(key)?.[1])
      const read = ofProofs.has(object) ? readProof : readVerification
      await read(repository, source, number, signal)
      return { key }
    } catch (error) {
      return { key, message: wordsOf(error) }
    }
  }
  for await (const { key, message } of ahead([...verifications, ...proofs], check, {
    most: walk.options.jobs,
    signal,
  })) {
    walk.objects++
    if (message === undefined || (await repository.storage.size(key, { signal })) === undefined) continue
    const hint = 'delete it: no restore needs it, but what it remembered of the archive is not compared any more'
    walk.damage({ kind: 'verification-damaged', key, message, lost: [], hint })
  }
}

/** Bases that an earlier verification found. Without any object left, somebody has removed them, as retention does. */
function compareBases(walk: Walk, shelf: Shelf, bases: readonly WalkedBase[], seen: Verification | undefined): void {
  const present = new Set(bases.map(({ head }) => head.id))
  const { source } = walk.options
  for (const id of seen?.bases ?? []) {
    const shelved = shelf.bases.find((base) => base.id === id)
    const key = manifestKey(source, id)
    if (shelved === undefined)
      walk.note('base-gone', key, `base ${id} was there at an earlier verification, and was removed since`)
    else if (shelved.hasManifest && !present.has(id) && !walk.findings.some((finding) => finding.key === key)) {
      const message = `${key} is another object than an earlier verification found`
      const hint = 'bring the manifest back from another copy of the repository'
      walk.damage({ kind: 'rolled-back', key, message, lost: undefined, hint })
    }
  }
}
