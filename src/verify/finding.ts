import type { Lsn } from '../model/lsn.ts'
import type { Micros } from '../model/time.ts'

/** What `verify` finds. Kinds are stable names. */
export const damageKinds = [
  /** The record of a timeline is gone, or is not what was written; so is, as far as it matters, what it carries. */
  'timeline-missing',
  'timeline-damaged',
  'segment-missing',
  'segment-damaged',
  /** A segment names another one before it than the one that is there: one of the two was exchanged. */
  'chain-broken',
  'part-missing',
  'part-damaged',
  'manifest-missing',
  'manifest-damaged',
  'base-object-missing',
  'base-object-damaged',
  /** The record of a base that is being taken, which the next backup would carry on. */
  'progress-damaged',
  'verification-damaged',
  /** The audit record is not as it was written. */
  'audit-broken',
  /** What an earlier verification found sound is not there any more, or is another. */
  'rolled-back',
] as const
export type DamageKind = (typeof damageKinds)[number]

/** What is told and is no damage. */
export const noteKinds = [
  /** Objects that nothing names: what interrupted writers left. */
  'leftover',
  'base-unfinished',
  /** The archive has not reached a base. */
  'base-ahead',
  /** A base that an earlier verification saw was removed. */
  'base-gone',
  /** What was damaged when it was read, and sound when it was read again. */
  'read-twice',
] as const
export type NoteKind = (typeof noteKinds)[number]

/** A stretch of a timeline; undefined where a time is not known, or where it goes on to the timeline's end. */
export interface LostTargets {
  readonly timeline: string
  readonly from: Place
  readonly to: Place | undefined
}

export interface Place {
  readonly lsn: Lsn
  readonly time: Micros | undefined
}

interface Common {
  readonly source: string
  readonly key: string
  readonly message: string
}

export type VerifyFinding = Common &
  (
    | {
        readonly level: 'damage'
        readonly kind: DamageKind
        /** The targets that it makes unrestorable; undefined where the archive does not tell. */
        readonly lost: readonly LostTargets[] | undefined
        readonly hint: string
      }
    | { readonly level: 'note'; readonly kind: NoteKind }
  )

export type Damage = Extract<VerifyFinding, { level: 'damage' }>
export const isDamage = (finding: VerifyFinding): finding is Damage => finding.level === 'damage'
