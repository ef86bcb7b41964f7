import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { JsonMembers } from '../../src/repository/json-members.ts'
import { sealedJson, sealedPieces } from '../../src/repository/sealed-json.ts'
import { readMembers } from '../../src/repository/sealed-members.ts'

/** The bytes, cut at the given places. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const ends = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b)
  return [...ends, bytes.length].map((end, index) => bytes.subarray(index === 0 ? 0 : ends[index - 1], end))
}

const source = (chunks: readonly Buffer[]) => ({
  get: async function* () {
    yield* chunks
  },
  size: async () => chunks.reduce((sum, { length }) => sum + length, 0),
})

const places = fc.array(fc.nat(), { maxLength: 20 })

/** What JSON has of its own is what must not be taken for structure inside a text. */
const nasty = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom('"', '\\', '\\"', '{[', ']}', ',', ':', 'ä"\u2028', '\\\\'),
)
const value = fc.oneof(fc.jsonValue(), nasty, fc.array(fc.oneof(nasty, fc.jsonValue())))

describe('members of an object of JSON', () => {
  test('are those that JSON.parse finds, however it is written and cut', () => {
    fc.assert(
      fc.property(
        fc.dictionary(nasty, value),
        places,
        fc.constantFrom(undefined, 1, '\t\n'),
        fc.func(fc.constantFrom('whole', 'elements', 'skipped')),
        (object, cuts, space, wish) => {
          const text = JSON.stringify(object, null, space)
          const parsed = new Map(Object.entries(JSON.parse(text)))
          const use = (name: string) =>
            wish(name) === 'elements' && !Array.isArray(parsed.get(name)) ? 'whole' : wish(name)
          const found = new Map<string, unknown>()
          const members = new JsonMembers(
            (name) => {
              if (use(name) === 'elements') found.set(name, [])
              return use(name)
            },
            (name, member) => {
              if (use(name) === 'elements') (found.get(name) as unknown[]).push(member)
              else found.set(name, member)
            },
          )
          for (const chunk of cut(Buffer.from(text), cuts)) members.push(chunk)
          members.end()
          expect(found).toEqual(new Map([...parsed].filter(([name]) => use(name) !== 'skipped')))
        },
      ),
    )
  })

  test('what is not one whole object is refused', () => {
    for (const text of ['', '[]', '1', '{', '{"a":1', '{"a":[1}', '{}{}', '}', '{"a" 1}', '{"a":1:2}', '{"a"}']) {
      const members = new JsonMembers(
        () => 'whole',
        () => undefined,
      )
      const read = () => {
        members.push(Buffer.from(text))
        members.end()
      }
      expect(read, text).toThrow(SyntaxError)
    }
  })
})

describe('a sealed object', () => {
  const shape = z.object({
    format: z.literal(1),
    name: z.string(),
    list: z.array(z.object({ n: z.number() })),
    note: z.string().optional(),
    rest: z.array(z.number()).default([]),
  })
  const whole = { format: 1, extra: { list: [1] }, name: 'ä', list: [{ n: 1 }, { n: 2, more: true }] }

  test('is written by and by as it is at once', () => {
    fc.assert(
      fc.property(fc.dictionary(nasty, value, { minKeys: 1 }), (object) => {
        const json = JSON.stringify(object)
        expect(sealedJson(object).toString('utf8').startsWith(json.slice(0, -1))).toBe(true)
        expect(JSON.parse(sealedJson(object).toString('utf8'))).toMatchObject(JSON.parse(json))
      }),
    )
    const long = { list: Array.from({ length: 50_000 }, (_, n) => ({ n })), left: undefined, end: [] }
    const pieces = [...sealedPieces(long)]
    expect(pieces.length).toBeGreaterThan(2)
    expect(Buffer.concat(pieces).toString('utf8')).toContain(JSON.stringify(long).slice(0, -1))
  })

  test('is read as its shape says, its seal looked at', async () => {
    await fc.assert(
      fc.asyncProperty(places, async (cuts) => {
        const { value, fault } = await readMembers(source(cut(sealedJson(whole), cuts)), 'key', shape, { latest: 1 })
        expect(fault).toBeUndefined()
        expect(value).toEqual(shape.parse(whole))
      }),
    )
  })

  test('is refused when any bit is another, when it is cut, and without its seal', async () => {
    const bytes = sealedJson(whole)
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const altered = Buffer.from(bytes)
      altered[bit >> 3] = (altered[bit >> 3] as number) ^ (1 << (bit & 7))
      await expect(readMembers(source([altered]), 'key', shape, { latest: 1 })).rejects.toMatchObject({
        code: 'corrupt',
      })
    }
    for (let length = 0; length < bytes.length; length++) {
      await expect(readMembers(source([bytes.subarray(0, length)]), 'key', shape, { latest: 1 })).rejects.toMatchObject(
        {
          code: 'corrupt',
        },
      )
    }
    const bare = Buffer.from(JSON.stringify(whole))
    await expect(readMembers(source([bare]), 'key', shape, { latest: 1 })).rejects.toMatchObject({
      message: /seal is missing/,
    })
  })

  test('says what is not as the shape has it, and who may read a later format', async () => {
    const read = (object: object) => readMembers(source([sealedJson(object)]), 'key', shape, { latest: 1 })
    expect((await read({ ...whole, list: [{ n: 1 }, { n: 'x' }] })).fault).toMatch(/^list\[1\]: /)
    expect((await read({ format: 1, name: 'x' })).fault).toMatch(/^list: /)
    await expect(read({ ...whole, list: { n: 1 } })).rejects.toMatchObject({ message: /list is not an array/ })
    await expect(read({ format: 2, list: 'other' })).rejects.toMatchObject({ message: /list is not an array/ })
    await expect(read({ format: 2, list: ['other'] })).rejects.toMatchObject({
      code: 'failed',
      message: /has format 2/,
    })
  })
})
