import fc from 'fast-check'
import { expect, test } from 'vitest'
import { MessageSplitter } from '../../src/postgres/message-splitter.ts'

const message = fc.record({ type: fc.integer({ min: 1, max: 255 }), body: fc.uint8Array({ maxLength: 40 }) })

function encode({ type, body }: { type: number; body: Uint8Array }): Buffer {
  const bytes = Buffer.alloc(5 + body.length)
  bytes[0] = type
  bytes.writeUInt32BE(4 + body.length, 1)
  Buffer.from(body).copy(bytes, 5)
  return bytes
}

test('messages come out as they went in, however the bytes were cut', () => {
  fc.assert(
    fc.property(fc.array(message), fc.array(fc.integer({ min: 1, max: 23 }), { minLength: 1 }), (messages, cuts) => {
      const bytes = Buffer.concat(messages.map(encode))
      const splitter = new MessageSplitter()
      const out: { type: number; body: Uint8Array }[] = []
      const held: { view: Buffer; copy: Buffer }[] = []
      for (let at = 0, n = 0; at < bytes.length; n++) {
        const size = cuts[n % cuts.length] as number
        splitter.push(Buffer.from(bytes.subarray(at, at + size)), (type, body, whole) => {
          out.push({ type, body: Uint8Array.from(body) })
          held.push({ view: whole, copy: Buffer.from(whole) })
        })
        at += size
      }
      expect(out).toEqual(messages)
      // What was handed out does not change when more comes.
      for (const { view, copy } of held) expect(view.equals(copy)).toBe(true)
    }),
    { numRuns: 500 },
  )
})

test('a long message comes in parts that are together what went in', () => {
  const long = fc.record({ type: fc.integer({ min: 1, max: 255 }), body: fc.uint8Array({ maxLength: 200 }) })
  fc.assert(
    fc.property(fc.array(long), fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1 }), (messages, cuts) => {
      const bytes = Buffer.concat(messages.map(encode))
      const splitter = new MessageSplitter(50, 30)
      const out: { type: number; body: Uint8Array }[] = []
      let begun: { type: number; body: Uint8Array } | undefined
      for (let at = 0, n = 0; at < bytes.length; n++) {
        const size = cuts[n % cuts.length] as number
        splitter.push(Buffer.from(bytes.subarray(at, at + size)), (type, body, _, part) => {
          expect(begun === undefined).toBe(part === 'whole' || part === 'first')
          // No more is held than a part and what came with its end.
          if (part !== 'whole') expect(body.length).toBeLessThan(30 + 90)
          begun = { type, body: Uint8Array.from([...(begun?.body ?? []), ...body]) }
          if (part === 'first' || part === 'middle') return
          out.push(begun)
          begun = undefined
        })
        at += size
      }
      expect(out).toEqual(messages)
    }),
    { numRuns: 500 },
  )
})
