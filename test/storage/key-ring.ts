import { randomBytes } from 'node:crypto'
import { type Generation, type KeyRing, publicOf } from '../../src/storage/sealed-keys.ts'

export function newGeneration(number = 1): Generation & { privateKey: Buffer } {
  const privateKey = randomBytes(32)
  return { number, privateKey, publicKey: publicOf(privateKey), structureSecret: randomBytes(32) }
}

/** What a thief of an agent has of a key. */
export const writerOf = (generation: Generation): Generation => ({ ...generation, privateKey: undefined })

export const ringOf = (...generations: readonly [Generation, ...Generation[]]): KeyRing => ({
  newest: generations.at(-1) as Generation,
  find: async (number) => generations.find((one) => one.number === number),
})
