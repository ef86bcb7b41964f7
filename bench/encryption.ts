/**
 * How fast objects are encrypted and opened, beside the cipher alone: `npx tsx bench/encryption.ts`. One core, and a
 * store that takes everything and keeps nothing, or gives from memory.
 */
import { createCipheriv, randomBytes } from 'node:crypto'
import { EncryptedStorage } from '../src/storage/encrypted.ts'
import { type Generation, publicOf } from '../src/storage/sealed-keys.ts'
import { type GetOptions, inMemory, type Storage } from '../src/storage/storage.ts'

const object_bytes = 64 << 20
const rounds = 8
const mib = 1 << 20

const privateKey = randomBytes(32)
const generation: Generation = {
  number: 1,
  privateKey,
  publicKey: publicOf(privateKey),
  structureSecret: randomBytes(32),
}

let stored: Buffer[] = []
let keeps = false
let held: ReturnType<typeof inMemory> | undefined
const sink: Storage = {
  url: 'memory:',
  put: async (_key, body) => {
    stored = []
    for await (const chunk of Buffer.isBuffer(body) ? [body] : body) if (keeps) stored.push(chunk)
    return true
  },
  get: (key: string, options?: GetOptions) => (held ?? inMemory(Buffer.alloc(0))).get(key, options),
  size: async () => undefined,
  list: async function* () {},
  delete: async () => undefined,
}
const storage = new EncryptedStorage(sink, { newest: generation, find: async () => generation })
const chunk = randomBytes(mib)

async function* body(): AsyncGenerator<Buffer> {
  for (let n = 0; n < object_bytes / mib; n++) yield chunk
}

async function measure(what: string, bytes: number, work: () => Promise<void>): Promise<void> {
  await work()
  const times: number[] = []
  for (let n = 0; n < rounds; n++) {
    const begun = performance.now()
    await work()
    times.push(performance.now() - begun)
  }
  const median_ms = times.sort((a, b) => a - b)[rounds >> 1] ?? 0
  console.log(`${what.padEnd(28)} ${(bytes / mib / (median_ms / 1000)).toFixed(0).padStart(6)} MiB/s`)
}

await measure('AES-256-GCM alone, 64 MiB', object_bytes, async () => {
  for (let n = 0; n < object_bytes / 65_536; n++) {
    const cipher = createCipheriv('aes-256-gcm', privateKey, Buffer.alloc(12))
    cipher.update(chunk.subarray(0, 65_536))
    cipher.final()
  }
})
await measure('encrypt 64 MiB', object_bytes, async () => void (await storage.put('x.wbr', body())))
keeps = true
await storage.put('x.wbr', body())
held = inMemory(Buffer.concat(stored))
await measure('open 64 MiB', object_bytes, async () => {
  for await (const _ of storage.get('x.wbr'));
})
keeps = false
const small = 1000
await measure('encrypt 1000 of 10 KiB', small * 10_240, async () => {
  for (let n = 0; n < small; n++) await storage.put('x.wbr', chunk.subarray(0, 10_240))
})
