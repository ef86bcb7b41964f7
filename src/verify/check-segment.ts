import { WalbackError } from '../base/errors.ts'
import { parseLsn } from '../model/lsn.ts'
import { readContainer, readHeader } from '../repository/container.ts'
import { fetchObject } from '../repository/load-segments.ts'
import type { Repository } from '../repository/repository.ts'
import { type SegmentHeader, type SegmentSummary, segmentHeader } from '../repository/segment-format.ts'
import { summaryFrom } from '../repository/segments.ts'
import type { DamageKind } from './finding.ts'
import { SegmentContent } from './segment-content.ts'
import type { ShelvedSegment } from './shelf.ts'

/** What is wrong with a segment by itself. */
export interface SegmentFault {
  readonly kind: Extract<DamageKind, 'segment-damaged' | 'part-missing' | 'part-damaged'>
  readonly key: string
  readonly message: string
}

/** What a segment turned out to be; without a summary nothing is known of it but where it begins. */
export interface CheckedSegment {
  readonly segment: ShelvedSegment
  readonly header: SegmentHeader | undefined
  readonly summary: SegmentSummary | undefined
  readonly fault: SegmentFault | undefined
  /** Bytes of objects that were read whole. */
  readonly read_bytes: number
}

export interface SegmentPlace {
  readonly repository: Repository
  readonly source: string
  readonly timeline: string
}

/**
 * Reads a segment, and its parts, whole or by header, trailer and lengths alone, and checks what can be checked without
 * its neighbours.
 */
export async function checkSegment(
  place: SegmentPlace,
  segment: ShelvedSegment,
  isWhole: boolean,
  signal: AbortSignal,
): Promise<CheckedSegment> {
  const { repository } = place
  let header: SegmentHeader | undefined
  let summary: SegmentSummary | undefined
  const found = (fault: SegmentFault | undefined, read_bytes = 0): CheckedSegment => ({
    segment,
    header,
    summary,
    fault,
    read_bytes,
  })
  try {
    const source = isWhole ? await fetchObject(repository, segment, signal) : repository.storage
    header = parseSegmentHeader(await readHeader(source, segment.key, signal), 'segment', segment, place)
    summary = await summaryFrom(source, segment, signal)
    const fault = partFault(segment, summary)
    if (fault || !isWhole) return found(fault)
    const content = new SegmentContent(segment.key, header, summary.trailer)
    const inPart = await readParts(place, segment, { header, summary, content }, signal)
    if (inPart) return found(inPart)
    for await (const one of readContainer(source, summary, signal))
      if (one.kind === 'block') content.add(one.raw, one.items)
    content.end()
    return found(undefined, segment.size_bytes + sizeOf(summary))
  } catch (error) {
    return found({ kind: 'segment-damaged', key: segment.key, message: wordsOf(error) })
  }
}

/** What an object's damage is called; any other failure is the store's, or ours, and goes on. */
export function wordsOf(error: unknown): string {
  // A reader that meets numbers that cannot be is at damage that its hash would show at the end.
  if (error instanceof RangeError) return `damaged: ${error.message}`
  const isDamage =
    error instanceof WalbackError &&
    (error.code === 'corrupt' || error.facts['format'] !== undefined || error.facts['absent'] === true)
  if (!isDamage) throw error
  return error.message
}

const damaged = (key: string, what: string): WalbackError => new WalbackError('corrupt', `${key} is damaged: ${what}`)

const sizeOf = ({ trailer }: SegmentSummary): number =>
  trailer.parts.reduce((sum, { size_bytes }) => sum + size_bytes, 0)

/** Parts that are named and not there, or not as long. */
function partFault(segment: ShelvedSegment, { trailer }: SegmentSummary): SegmentFault | undefined {
  const held = new Map(segment.parts.map(({ key, size_bytes }) => [key, size_bytes]))
  for (const { key, size_bytes } of trailer.parts) {
    const length = held.get(key)
    if (length === undefined)
      return { kind: 'part-missing', key, message: `${key} is missing, a part of ${segment.key}` }
    if (length !== size_bytes)
      return { kind: 'part-damaged', key, message: `${key} is damaged: it has ${length} bytes, not ${size_bytes}` }
  }
  return undefined
}

async function readParts(
  place: SegmentPlace,
  segment: ShelvedSegment,
  { header, summary, content }: { header: SegmentHeader; summary: SegmentSummary; content: SegmentContent },
  signal: AbortSignal,
): Promise<SegmentFault | undefined> {
  for (const reference of summary.trailer.parts) {
    try {
      for await (const one of readContainer(place.repository.storage, reference, signal)) {
        if (one.kind === 'block') content.add(one.raw, one.items)
        if (one.kind !== 'header') continue
        const { previous } = parseSegmentHeader(one.header, 'part', { ...segment, key: reference.key }, place)
        if (previous !== header.previous) throw damaged(reference.key, 'it follows another segment than its own does')
      }
    } catch (error) {
      return { kind: 'part-damaged', key: reference.key, message: wordsOf(error) }
    }
  }
  return undefined
}

/** A header must be of what lies under its key. */
function parseSegmentHeader(
  json: unknown,
  kind: SegmentHeader['kind'],
  { key, start }: Pick<ShelvedSegment, 'key' | 'start'>,
  { source, timeline }: SegmentPlace,
): SegmentHeader {
  const header = segmentHeader.safeParse(json).data
  if (header === undefined) throw damaged(key, 'its header has an unknown form')
  const isRight =
    header.kind === kind && header.source === source && header.timeline === timeline && parseLsn(header.start) === start
  if (isRight) return header
  throw damaged(
    key,
    `it is the ${header.kind} at ${header.start} of timeline ${header.timeline} of ${header.source}, under another's key`,
  )
}
