import { type Lsn, parseLsnKey } from '../model/lsn.ts'
import {
  basesPrefix,
  proofsPrefix,
  prunedPrefix,
  segmentsPrefix,
  timelineKey,
  timelinesPrefix,
  verificationsPrefix,
} from '../repository/layout.ts'
import type { Repository } from '../repository/repository.ts'
import type { StoredSegment } from '../repository/segments.ts'
import type { StoredObject } from '../storage/storage.ts'

/** A segment as the listing shows it, with the parts under its key: its own and leftovers. */
export interface ShelvedSegment extends StoredSegment {
  readonly parts: readonly StoredObject[]
}

export interface ShelvedTimeline {
  readonly id: string
  readonly hasRecord: boolean
  readonly segments: readonly ShelvedSegment[]
  /** What else lies there: parts without their segment, and what is no object of ours. */
  readonly strays: readonly StoredObject[]
}

export interface ShelvedBase {
  readonly id: string
  /** All objects but the manifest, by key. */
  readonly objects: ReadonlyMap<string, number>
  readonly hasManifest: boolean
}

/** All that a repository holds of a source, by a listing: names and lengths. */
export interface Shelf {
  readonly timelines: readonly ShelvedTimeline[]
  readonly bases: readonly ShelvedBase[]
  /** What earlier runs of `verify` have noted. */
  readonly verifications: readonly StoredObject[]
  readonly proofs: readonly StoredObject[]
  readonly objects: number
  readonly stored_bytes: number
}

export async function listShelf(repository: Repository, source: string, signal?: AbortSignal): Promise<Shelf> {
  const timelines = new Map<string, TimelineShelf>()
  const bases = new Map<string, { objects: Map<string, number>; hasManifest: boolean }>()
  const verifications: StoredObject[] = []
  const proofs: StoredObject[] = []
  let [objects, stored_bytes] = [0, 0]
  const [ofTimelines, ofBases, ofVerifications, ofProofs] = [
    timelinesPrefix(source),
    basesPrefix(source),
    verificationsPrefix(source),
    proofsPrefix(source),
  ]
  for await (const object of repository.storage.list(`sources/${source}/`, { signal })) {
    const { key, size_bytes } = object
    objects++
    stored_bytes += size_bytes
    if (key.startsWith(ofTimelines)) {
      const id = key.slice(ofTimelines.length).split('/')[0] ?? ''
      let shelf = timelines.get(id)
      if (shelf === undefined) {
        shelf = new TimelineShelf(source, id)
        timelines.set(id, shelf)
      }
      shelf.add(object)
    } else if (key.startsWith(ofBases)) {
      const [id = '', name] = key.slice(ofBases.length).split('/')
      const base = bases.get(id) ?? { objects: new Map<string, number>(), hasManifest: false }
      bases.set(id, base)
      if (name === 'manifest.json') base.hasManifest = true
      else base.objects.set(key, size_bytes)
    } else if (key.startsWith(ofVerifications)) verifications.push(object)
    else if (key.startsWith(ofProofs)) proofs.push(object)
  }
  return {
    timelines: [...timelines.values()].map((shelf) => shelf.done()),
    bases: [...bases].map(([id, base]) => ({ id, ...base })),
    verifications,
    proofs,
    objects,
    stored_bytes,
  }
}

/** Sorts a timeline's keys, which come in their order: the parts of a segment just before it. */
class TimelineShelf {
  private readonly id: string
  private readonly recordKey: string
  private readonly prefix: string
  private readonly prunedPrefix: string
  private readonly segments: ShelvedSegment[] = []
  private readonly strays: StoredObject[] = []
  private waiting: { readonly start: Lsn; readonly parts: StoredObject[] } | undefined
  private hasRecord = false

  constructor(source: string, id: string) {
    this.id = id
    this.recordKey = timelineKey(source, id)
    this.prefix = segmentsPrefix(source, id)
    this.prunedPrefix = prunedPrefix(source, id)
  }

  add(object: StoredObject): void {
    const { key, size_bytes } = object
    if (key === this.recordKey) this.hasRecord = true
    if (key === this.recordKey || key.startsWith(this.prunedPrefix)) return
    const name = key.startsWith(this.prefix) ? segmentName.exec(key.slice(this.prefix.length)) : null
    const [, high, digits, kind] = name ?? []
    if (digits === undefined || high !== digits.slice(0, 8)) {
      this.strays.push(object)
      return
    }
    const start = parseLsnKey(digits)
    if (this.waiting?.start !== start) this.letGo()
    if (kind === 'wbs') {
      const parts = this.waiting?.parts ?? []
      const parts_bytes = parts.reduce((sum, part) => sum + part.size_bytes, 0)
      this.segments.push({ key, start, size_bytes, parts_bytes, parts })
      this.waiting = undefined
    } else if (this.waiting) this.waiting.parts.push(object)
    else this.waiting = { start, parts: [object] }
  }

  done(): ShelvedTimeline {
    this.letGo()
    const { id, hasRecord, segments, strays } = this
    return { id, hasRecord, segments, strays }
  }

  /** Parts whose segment did not come. */
  private letGo(): void {
    this.strays.push(...(this.waiting?.parts ?? []))
    this.waiting = undefined
  }
}

const segmentName = /^([0-9A-F]{8})\/([0-9A-F]{16})\.(?:[0-9a-f]{8}\.\d{6}\.)?(wbs|wbp)$/
