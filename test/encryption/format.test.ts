import {
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hkdfSync,
  randomBytes,
} from 'node:crypto'
import { Decrypter, generateIdentity, identityToRecipient } from 'age-encryption'
import { expect, it } from 'vitest'
import { listKey, rotateKey } from '../../src/repository/key-changes.ts'
import { makeRecipient } from '../../src/repository/recipients.ts'
import { Repository } from '../../src/repository/repository.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'

/** A reader of encrypted objects that was written from docs/repository-format.md, section 10, and shares no code. */
const none = Buffer.alloc(0)
const hkdf = (secret: Buffer, salt: Buffer, info: string | Buffer): Buffer =>
  Buffer.from(hkdfSync('sha256', secret, salt, info, 32))
const hmac = (secret: Buffer, purpose: string, text: string): string =>
  createHmac('sha256', hkdf(secret, none, purpose))
    .update(text)
    .digest('hex')

const pkcs8 = (raw: Buffer) =>
  createPrivateKey({
    key: Buffer.concat([Buffer.from('302e020100300506032b656e04220420', 'hex'), raw]),
    format: 'der',
    type: 'pkcs8',
  })
const spki = (raw: Buffer) =>
  createPublicKey({
    key: Buffer.concat([Buffer.from('302a300506032b656e032100', 'hex'), raw]),
    format: 'der',
    type: 'spki',
  })

function open(key: string, stored: Buffer, full: Buffer, publicKey: Buffer): Buffer {
  const head = stored.subarray(0, 96)
  expect(head.subarray(0, 9)).toEqual(Buffer.from('WBSEALED\x01', 'latin1'))
  const kind = head.readUInt8(9)
  const n = stored.length - 96
  // 96 + n + 16 * (floor(n / 65536) + 2)
  const frames = Math.floor((n - 32) / 65_552)
  const length = n - 32 - 16 * frames
  const cut = kind === 3 ? Number(head.readBigUInt64LE(16)) : kind === 1 ? length + 1 : -1
  const h = createHash('sha256').update(head).update(key).digest()
  const ephemeral = head.subarray(56, 88)
  const shared = () =>
    diffieHellman({ privateKey: pkcs8(hkdf(full, none, 'walback x25519 1')), publicKey: spki(ephemeral) })
  const keyOf = (section: 'rows' | 'structure') =>
    hkdf(
      section === 'rows'
        ? hkdf(shared(), Buffer.concat([ephemeral, publicKey]), 'walback session 1')
        : hkdf(full, none, 'walback structure 1'),
      head.subarray(24, 56),
      Buffer.concat([Buffer.from(`walback ${section} 1`), h]),
    )
  const out: Buffer[] = []
  let at = 96
  if (kind !== 3) {
    expect(stored.subarray(96, 112)).toEqual(Buffer.alloc(16))
    at = 112
  }
  const take = (section: 'rows' | 'structure', frame: number, bytes: number, isLast: boolean) => {
    const nonce = Buffer.alloc(12)
    nonce.set([section === 'rows' ? 1 : 2, isLast ? 1 : 0])
    nonce.writeBigUInt64BE(BigInt(frame), 4)
    const decipher = createDecipheriv('aes-256-gcm', keyOf(section), nonce)
    decipher.setAuthTag(stored.subarray(at + bytes, at + bytes + 16))
    out.push(decipher.update(stored.subarray(at, at + bytes)))
    decipher.final()
    at += bytes + 16
  }
  for (let frame = 0; frame <= frames; frame++) {
    const [start, end] = [frame * 65_536, Math.min(length, (frame + 1) * 65_536)]
    const isLast = frame === frames
    if (kind !== 3) take(kind === 1 ? 'rows' : 'structure', frame, end - start, isLast)
    else if (frame === Math.floor(cut / 65_536)) {
      take('rows', frame, cut - start, true)
      take('structure', frame, end - cut, isLast)
    } else take(cut >= end ? 'rows' : 'structure', frame, end - start, frame > cut / 65_536 && isLast)
  }
  expect(at).toBe(stored.length)
  return Buffer.concat(out)
}

it('what is written is as the format says', async () => {
  const storage = new MemoryStorage()
  const identity = await generateIdentity()
  const reader = { kind: 'age', recipient: await identityToRecipient(identity) } as const
  await Repository.createEncrypted(storage, [await makeRecipient(reader, 'reader', 'full')])
  const access = { credential: { kind: 'age', identities: [identity] } } as const
  const before = await Repository.open(storage, access)
  if (before.key === undefined) throw new Error('not encrypted')
  await rotateKey(before.clear, before.key)
  const repository = await Repository.open(storage, access)
  const bodies = new Map<string, { body: Buffer; rows_bytes?: number }>()
  for (const length of [0, 1, 65_535, 65_536, 65_537, 200_000]) {
    bodies.set(`sources/x/rows/${length}.wbr`, { body: randomBytes(length) })
    bodies.set(`sources/x/${length}.json`, { body: randomBytes(length) })
    for (const rows_bytes of new Set([0, Math.min(length, 65_536), Math.floor(length / 2), length]))
      bodies.set(`sources/x/${length}-${rows_bytes}.wbs`, { body: randomBytes(length), rows_bytes })
  }
  for (const [key, { body, ...options }] of bodies) await repository.storage.put(key, body, options)

  const objectOf = (key: string) => storage.objects.get(key) as Buffer
  const first = JSON.parse(objectOf('walback.json').toString())
  const second = JSON.parse(objectOf('keys/00000002.json').toString())
  expect(first.format).toBe(2)
  let last: Buffer | undefined
  let previous = ''
  for (const [n, record] of [first.encryption, second].entries()) {
    const entry = JSON.parse(objectOf(`${record.recipients}reader.json`).toString())
    const age = new Decrypter()
    age.addIdentity(identity)
    const line = await age.decrypt(new Uint8Array(objectOf(entry.object)), 'text')
    const [, secret = ''] = /^walback-key 0000000\d full (\S+)\n$/.exec(line) ?? []
    const full = Buffer.from(secret, 'base64')
    const structure = hkdf(full, none, 'walback structure 1')
    const m = `walback key 1\n${n + 1}\n${record.publicKey}\n${record.structure}\n${previous}\n`
    expect(record.previous ?? '').toBe(previous)
    expect(record.structure).toBe(hmac(structure, 'walback structure check 1', ''))
    expect(record.mac).toBe(hmac(structure, 'walback record 1', m))
    if (last !== undefined) {
      const structureBefore = hkdf(last, none, 'walback structure 1')
      expect(record.vouched).toEqual({
        full: hmac(last, 'walback vouch 1', m),
        write: hmac(structureBefore, 'walback vouch 1', m),
      })
    }
    const signed = JSON.stringify([n + 1, 'reader', 'age', 'full', reader.recipient, null])
    expect(entry.mac).toBe(hmac(full, 'walback recipient 1', signed))
    previous = (createHash('sha256').update(m).digest('hex').slice(0, 32).match(/.{4}/g) ?? []).join('-')
    last = full
  }
  const key = repository.key
  if (key === undefined || last === undefined) throw new Error('no key')
  expect((await listKey(repository.clear, key)).generations[1]?.fingerprint).toBe(previous)
  for (const [name, { body }] of bodies)
    expect(open(name, objectOf(name), last, Buffer.from(second.publicKey, 'base64')).equals(body), name).toBe(true)
})
