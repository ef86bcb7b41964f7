import { throwIfAborted } from '../base/abort.ts'
import type { Throttle } from '../base/throttle.ts'
import { formatLsn, type Lsn, parseLsn } from '../model/lsn.ts'
import type { Repository } from '../repository/repository.ts'
import type { Verification } from '../repository/verification.ts'
import type { Damage, NoteKind, VerifyFinding } from './finding.ts'
import { isInSubset, type ReadSubset } from './subset.ts'

/** How far a run has come. */
export interface VerifyProgress {
  readonly source: string
  readonly phase: 'listing' | 'bases' | 'segments'
  /** Objects that were looked at, and bytes of those that were read whole; `total_bytes`: of all that will be. */
  readonly objects: number
  readonly read_bytes: number
  readonly total_bytes: number | undefined
  readonly damaged: number
}

export interface WalkOptions {
  readonly repository: Repository
  readonly source: string
  /** Which share is read whole; undefined: nothing is, only what names things. */
  readonly subset: ReadSubset | undefined
  readonly jobs: number
  readonly throttle: Throttle | undefined
  readonly signal: AbortSignal | undefined
  /** An interrupted run that is carried on. */
  readonly resumed: Verification | undefined
  /** The last run that came to its end. */
  readonly seen: Verification | undefined
  readonly onFinding: ((finding: VerifyFinding) => void) | undefined
  readonly onProgress: ((progress: VerifyProgress) => void) | undefined
  /** Now and then something has been read; what is done can be recorded. */
  readonly onStep: () => Promise<void>
}

type Resume = NonNullable<Verification['resume']>

/** What the parts of one walk over a source share: what is to be read, what was, and what was found. */
export class Walk {
  readonly options: WalkOptions
  readonly findings: VerifyFinding[] = []
  /** Up to where objects were read, in this run and in the one that it carries on. */
  readonly done: { readonly segments: Record<string, string>; readonly bases: Record<string, string> }
  objects = 0
  read_bytes = 0
  total_bytes: number | undefined
  private phase: VerifyProgress['phase'] = 'listing'
  private readonly before: Resume | undefined
  /** What was damaged then is read again whatever the share, so that it is not forgotten until its turn comes. */
  private readonly suspects: ReadonlySet<string>

  constructor(options: WalkOptions) {
    this.options = options
    this.before = options.resumed?.resume
    this.suspects = new Set([options.resumed, options.seen].flatMap((run) => run?.findings.map(({ key }) => key) ?? []))
    this.done = { segments: { ...this.before?.segments }, bases: { ...this.before?.bases } }
  }

  get damaged(): number {
    return this.findings.reduce((sum, { level }) => sum + (level === 'damage' ? 1 : 0), 0)
  }

  damage(found: Omit<Damage, 'level' | 'source'>): void {
    this.tell({ level: 'damage', source: this.options.source, ...found })
  }

  note(kind: NoteKind, key: string, message: string): void {
    this.tell({ level: 'note', source: this.options.source, kind, key, message })
  }

  enter(phase: VerifyProgress['phase']): void {
    this.phase = phase
    this.report()
  }

  readsSegment(timeline: string, key: string, start: Lsn, parts: readonly { readonly key: string }[]): boolean {
    if (this.suspects.has(key) || parts.some((part) => this.suspects.has(part.key))) return true
    const until = this.before?.segments[timeline]
    return this.isChosen(key) && !(until !== undefined && start < parseLsn(until))
  }

  readsBaseObject(base: string, key: string): boolean {
    const until = this.before?.bases[base]
    return this.suspects.has(key) || (this.isChosen(key) && !(until !== undefined && key <= until))
  }

  private isChosen(key: string): boolean {
    return this.options.subset !== undefined && isInSubset(key, this.options.subset)
  }

  async segmentDone(timeline: string, end: Lsn, read_bytes: number): Promise<void> {
    const until = this.done.segments[timeline]
    if (until === undefined || parseLsn(until) < end) this.done.segments[timeline] = formatLsn(end)
    await this.step(read_bytes)
  }

  async baseObjectDone(base: string, key: string, read_bytes: number): Promise<void> {
    const until = this.done.bases[base]
    if (until === undefined || until < key) this.done.bases[base] = key
    await this.step(read_bytes)
  }

  report(): void {
    const { phase, objects, read_bytes, total_bytes, damaged } = this
    this.options.onProgress?.({ source: this.options.source, phase, objects, read_bytes, total_bytes, damaged })
  }

  private async step(read_bytes: number): Promise<void> {
    this.objects++
    this.read_bytes += read_bytes
    this.report()
    throwIfAborted(this.options.signal)
    await this.options.onStep()
    await this.options.throttle?.pass(read_bytes, this.options.signal)
  }

  private tell(finding: VerifyFinding): void {
    this.findings.push(finding)
    this.options.onFinding?.(finding)
  }
}

/** What can be done about an object that is not as it was written. */
export const bringBack =
  'bring the object back from another copy of the repository; without one, a new base (`walback backup --full`) makes what commits from then on restorable'
