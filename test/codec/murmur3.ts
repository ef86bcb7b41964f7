/**
 * MurmurHash3_x86_128 a second time, word for word after Appleby's C++ and in plain BigInt arithmetic: slow, and shares
 * nothing with src/codec/row-hash.ts. Gives the four 32-bit lanes.
 */
export function murmur3(bytes: Buffer, seed = 0): [bigint, bigint, bigint, bigint] {
  const [c1, c2, c3, c4] = [0x239b961bn, 0xab0e9789n, 0x38b34ae5n, 0xa1e38b93n]
  let [h1, h2, h3, h4] = [BigInt(seed), BigInt(seed), BigInt(seed), BigInt(seed)]
  const whole = bytes.length - (bytes.length % 16)
  for (let at = 0; at < whole; at += 16) {
    const k = (n: number): bigint => BigInt(bytes.readUInt32LE(at + 4 * n))
    h1 ^= times(rotl(times(k(0), c1), 15n), c2)
    h1 = u32(times(u32(rotl(h1, 19n) + h2), 5n) + 0x561ccd1bn)
    h2 ^= times(rotl(times(k(1), c2), 16n), c3)
    h2 = u32(times(u32(rotl(h2, 17n) + h3), 5n) + 0x0bcaa747n)
    h3 ^= times(rotl(times(k(2), c3), 17n), c4)
    h3 = u32(times(u32(rotl(h3, 15n) + h4), 5n) + 0x96cd1c35n)
    h4 ^= times(rotl(times(k(3), c4), 18n), c1)
    h4 = u32(times(u32(rotl(h4, 13n) + h1), 5n) + 0x32ac3b17n)
  }
  // The tail, padded with zero bytes: a lane without bytes stays as it was, since zero times anything is zero.
  const tail = Buffer.alloc(16)
  bytes.copy(tail, 0, whole)
  const k = (n: number): bigint => BigInt(tail.readUInt32LE(4 * n))
  h4 ^= times(rotl(times(k(3), c4), 18n), c1)
  h3 ^= times(rotl(times(k(2), c3), 17n), c4)
  h2 ^= times(rotl(times(k(1), c2), 16n), c3)
  h1 ^= times(rotl(times(k(0), c1), 15n), c2)
  const length = BigInt(bytes.length)
  h1 ^= length
  h2 ^= length
  h3 ^= length
  h4 ^= length
  h1 = u32(h1 + h2 + h3 + h4)
  h2 = mix(u32(h2 + h1))
  h3 = mix(u32(h3 + h1))
  h4 = mix(u32(h4 + h1))
  h1 = u32(mix(h1) + h2 + h3 + h4)
  return [h1, u32(h2 + h1), u32(h3 + h1), u32(h4 + h1)]
}

export const hex = (lanes: readonly bigint[]): string =>
  lanes.map((lane) => lane.toString(16).padStart(8, '0')).join('')

/** What a table's hash must be: its rows' lanes, summed modulo 2^32. */
export function sumOf(rows: readonly Buffer[]): string {
  const sum = [0n, 0n, 0n, 0n]
  for (const row of rows) {
    for (const [lane, value] of murmur3(row).entries()) sum[lane] = u32((sum[lane] as bigint) + value)
  }
  return hex(sum)
}

const u32 = (x: bigint): bigint => x & 0xffffffffn
const times = (a: bigint, b: bigint): bigint => u32(a * b)
const rotl = (x: bigint, r: bigint): bigint => u32(x << r) | (x >> (32n - r))

function mix(h: bigint): bigint {
  h = times(h ^ (h >> 16n), 0x85ebca6bn)
  h = times(h ^ (h >> 13n), 0xc2b2ae35n)
  return h ^ (h >> 16n)
}
