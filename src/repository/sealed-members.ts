import { z } from 'zod'
import { messageOf } from '../base/errors.ts'
import type { ObjectSource } from '../storage/storage.ts'
import { JsonMembers, type MemberUse } from './json-members.ts'
import { damaged, refuseNewer, SealCheck } from './sealed-json.ts'

/** What is found of the members of a shape, and what is wrong with the first that is not as the shape says. */
export interface FoundMembers<S extends z.ZodRawShape> {
  readonly value: Partial<z.infer<z.ZodObject<S>>>
  readonly fault: string | undefined
}

/**
 * Reads an object of JSON, as `readJson` does, member by member and arrays element by element; so that one of tens of
 * megabytes takes no more memory than what is made of it. Members that the shape does not have are passed over. `latest`:
 * the format that is known.
 */
export async function readMembers<S extends z.ZodRawShape>(
  source: ObjectSource,
  key: string,
  shape: z.ZodObject<S>,
  { latest, signal }: { readonly latest: number; readonly signal?: AbortSignal | undefined },
): Promise<FoundMembers<S>> {
  const found = new ShapedMembers(shape.shape)
  const members = new JsonMembers(
    (name) => found.use(name),
    (name, value) => found.take(name, value),
  )
  const seal = new SealCheck()
  let failure: { readonly error: unknown } | undefined
  // What is not JSON is read to its end all the same: whether it is damaged, its hash tells best.
  const attempt = (parse: () => void): void => {
    if (failure !== undefined) return
    try {
      parse()
    } catch (error) {
      failure = { error }
    }
  }
  for await (const chunk of source.get(key, { signal })) {
    seal.push(chunk)
    attempt(() => members.push(chunk))
  }
  attempt(() => members.end())
  const verdict = seal.verdict()
  if (verdict === 'broken') throw damaged(key, 'its hash is another')
  if (failure !== undefined) throw damaged(key, messageOf(failure.error), failure.error)
  refuseNewer(key, found.format, latest)
  if (verdict === 'missing') throw damaged(key, 'its seal is missing')
  found.end()
  return { value: found.value as FoundMembers<S>['value'], fault: found.fault }
}

/** Holds each member, or element of one, against its shape as it comes. */
class ShapedMembers {
  readonly value: Record<string, unknown> = {}
  fault: string | undefined
  format: unknown
  private readonly shapes: z.ZodRawShape

  constructor(shapes: z.ZodRawShape) {
    this.shapes = shapes
  }

  use(name: string): MemberUse {
    if (!Object.hasOwn(this.shapes, name)) return 'skipped'
    if (!(this.shapes[name] instanceof z.ZodArray)) return 'whole'
    this.value[name] = []
    return 'elements'
  }

  take(name: string, found: unknown): void {
    if (name === 'format') this.format = found
    const shape = this.shapes[name]
    const list = this.value[name]
    if (!(shape instanceof z.ZodArray)) this.value[name] = this.fitted(name, shape, found)
    else if (Array.isArray(list)) list.push(this.fitted(`${name}[${list.length}]`, shape.element, found))
  }

  /** Members that are not there: some have a default. */
  end(): void {
    for (const [name, shape] of Object.entries(this.shapes)) {
      if (Object.hasOwn(this.value, name)) continue
      const fitted = this.fitted(name, shape, undefined)
      if (fitted !== undefined) this.value[name] = fitted
    }
  }

  private fitted(where: string, shape: unknown, found: unknown): unknown {
    const parsed = (shape as z.ZodType).safeParse(found)
    if (parsed.success) return parsed.data
    this.fault ??= `${where}: ${z.prettifyError(parsed.error)}`
    return undefined
  }
}
