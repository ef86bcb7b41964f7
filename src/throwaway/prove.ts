/** A rehearsal: a source is restored where it harms nobody, looked at from all sides, and what came of it is recorded. */
import { throwIfAborted } from '../base/abort.ts'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import { version } from '../base/version.ts'
import { formatLsn } from '../model/lsn.ts'
import { targetText } from '../model/target.ts'
import { formatTime, micros } from '../model/time.ts'
import { proofKey } from '../repository/layout.ts'
import { mostNamedInProof, type ProofRecord, writeProof } from '../repository/proof-record.ts'
import type { Repository } from '../repository/repository.ts'
import type { RestorePlan } from '../restore/plan.ts'
import { type Assertion, failureOf } from './assertions.ts'
import { checkIntegrity, type Integrity } from './integrity.ts'
import { inSession } from './session.ts'
import { type BringBackOptions, openStage, type Past, type Stage, type StageOptions } from './stage.ts'

export interface ProofFinding {
  /**
   * `damaged`: the archive is not what was written. `restore`: it could not be made a database of. The others: what was
   * found in the restored database.
   */
  readonly kind: 'damaged' | 'restore' | 'foreign-key' | 'index' | 'assertion' | 'too-slow'
  /** Of the constraint, the index, the assertion; of the source, where it is about all of it. */
  readonly name: string
  readonly message: string
}

export interface ProveOptions extends Omit<BringBackOptions, 'signal'>, StageOptions {
  /** What must hold in the restored database, in the user's words. */
  readonly assertions?: readonly Assertion[]
  /** How long the restore itself may take, up to a database that is proven. */
  readonly maxTime_ms?: number | undefined
  /** Whether the target was drawn and not asked for. */
  readonly isRandom?: boolean
  /** Whether the result is stored in the repository; it is if not given. */
  readonly isRecorded?: boolean
  readonly onFinding?: (finding: ProofFinding) => void
  /** Called when the rows are there, and before what the database promises is checked. */
  readonly onRestored?: (past: Past, stage: Stage) => void
}

export interface ProofReport {
  readonly record: ProofRecord
  readonly findings: readonly ProofFinding[]
  /** The record's key; undefined if there is none, with the reason if the store did not take it. */
  readonly key: string | undefined
  readonly notRecorded: string | undefined
}

/**
 * Restores a plan on a stage of its own and checks the result: rows against the archive (the restore does), foreign keys
 * and indexes by the server, then the user's assertions. What is wrong with the archive is found and not thrown;
 * what is wrong with the stage, or the store, throws, and is no result.
 */
export async function proveRestore(
  repository: Repository,
  plan: RestorePlan,
  options: ProveOptions,
): Promise<ProofReport> {
  const run = new Run(repository, plan, options)
  {
    await using stage = await openStage([plan], options)
    await run.work(stage)
  }
  throwIfAborted(options.signal)
  return await run.end()
}

class Run {
  private readonly repository: Repository
  private readonly plan: RestorePlan
  private readonly options: ProveOptions
  private readonly started = new Date()
  private readonly begun_ms = performance.now()
  private readonly findings: ProofFinding[] = []
  private stage: Pick<Stage, 'kind' | 'major'> = { kind: 'throwaway', major: 0 }
  private past: Past | undefined
  private integrity: Integrity | undefined
  private asserted = 0

  constructor(repository: Repository, plan: RestorePlan, options: ProveOptions) {
    this.repository = repository
    this.plan = plan
    this.options = options
  }

  async work(stage: Stage): Promise<void> {
    const { options, plan } = this
    this.stage = stage
    try {
      this.past = await stage.bringBack(this.repository, plan, options)
    } catch (error) {
      throwIfAborted(options.signal)
      const kind = kindOf(error)
      if (kind === undefined) throw error
      this.find({ kind, name: plan.source, message: messageOf(error) })
      return
    }
    options.onRestored?.(this.past, stage)
    this.integrity = await inSession(this.past.owner, options.signal, (client) =>
      checkIntegrity(client, options.signal),
    )
    for (const broken of this.integrity.broken) this.find(broken)
    for (const assertion of options.assertions ?? []) {
      const message = await failureOf(await this.past.reader(), assertion, options.signal)
      this.asserted++
      if (message !== undefined) this.find({ kind: 'assertion', name: assertion.name, message })
    }
    const [took_ms, most_ms] = [this.past.report.duration_ms, options.maxTime_ms]
    if (most_ms !== undefined && took_ms > most_ms)
      this.find({
        kind: 'too-slow',
        name: plan.source,
        message: `it took ${took_ms / 1000} s, and may take ${most_ms / 1000} s`,
      })
  }

  private find(finding: ProofFinding): void {
    this.findings.push(finding)
    this.options.onFinding?.(finding)
  }

  /** Stores the result. A store that takes nothing, as on a read-only mount, can be proven all the same. */
  async end(): Promise<ProofReport> {
    const { findings, repository } = this
    const record = this.record()
    if (this.options.isRecorded === false) return { record, findings, key: undefined, notRecorded: undefined }
    try {
      const number = await writeProof(repository, record, this.options.signal)
      return { record, findings, key: proofKey(record.source, number), notRecorded: undefined }
    } catch (error) {
      throwIfAborted(this.options.signal)
      if (!(error instanceof WalbackError)) throw error
      return { record, findings, key: undefined, notRecorded: error.message }
    }
  }

  private record(): ProofRecord {
    const { plan, past, integrity, stage, findings } = this
    const report = past?.report
    const notValid = integrity?.notValid.map((what) => `not valid, so older rows may not keep it: ${what}`) ?? []
    const warnings = [...(report?.warnings ?? plan.unseen), ...(past?.notes ?? []), ...notValid]
    return {
      walback: 'proof',
      format: 1,
      source: plan.source,
      started: this.started.toISOString(),
      finished: new Date().toISOString(),
      walbackVersion: version,
      // Too late is restorable all the same.
      outcome: findings.every(({ kind }) => kind === 'too-slow') ? 'proven' : 'failed',
      target: targetText(plan.target),
      random: this.options.isRandom === true,
      timeline: plan.timeline.id,
      base: plan.base.id,
      lsn: formatLsn(plan.reached),
      time: formatTime(micros(BigInt(plan.lastKept?.time ?? plan.base.time))),
      server: { kind: stage.kind, major: stage.major },
      restore_ms: report?.duration_ms ?? null,
      duration_ms: Math.round(performance.now() - this.begun_ms),
      bytes: plan.bytes,
      tables: report?.tables ?? 0,
      rows: report?.rows ?? 0,
      proven: report?.proven ?? { tables: 0, rows: 0 },
      checked: {
        foreignKeys: integrity?.foreignKeys ?? 0,
        indexes: integrity?.indexes ?? 0,
        assertions: this.asserted,
      },
      warnings: warnings.slice(0, mostNamedInProof),
      findings: findings.slice(0, mostNamedInProof),
    }
  }
}

/** Whether a restore failed because of what there was to restore; undefined where the world around it was the reason. */
function kindOf(error: unknown): 'damaged' | 'restore' | undefined {
  if (error instanceof WalbackError && (error.code === 'corrupt' || error.code === 'gap')) return 'damaged'
  const state = codeOf(error instanceof WalbackError ? error.cause : error)
  const isOfServer = state !== undefined && /^[0-9A-Z]{5}$/.test(state)
  return isOfServer && !ofTheWorld.test(state) ? 'restore' : undefined
}

/** Classes of SQLSTATE: connection, insufficient resources, operator intervention, system error; and what the server lacks. */
const ofTheWorld = /^(?:08|53|57|58)|^(?:0A000|42704)$/

/** How long a restore may take, by the bytes that it reads, as the last one that was proven took; undefined without one. */
export function estimateRestore_ms(
  { bytes }: Pick<RestorePlan, 'bytes'>,
  proof: Pick<ProofRecord, 'bytes' | 'restore_ms'> | undefined,
): number | undefined {
  if (proof === undefined || proof.restore_ms === null) return undefined
  const known = proof.bytes.base + proof.bytes.segments
  return known === 0 ? undefined : Math.round((proof.restore_ms * (bytes.base + bytes.segments)) / known)
}
