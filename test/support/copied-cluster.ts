/**
 * Takes the place of `src/postgres/embedded-initdb.ts` in tests (see `copiesClusters`): initdb takes a second of the
 * processor and makes the same each time, so it runs once for each major version, and what it made is copied, under an
 * identity of its own.
 */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chown, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { inject } from 'vitest'
import { codeOf } from '../../src/base/errors.ts'
import { type ClusterOptions, type Means, initdb as make } from '../../src/postgres/embedded-initdb.ts'

export { environment, lastLines } from '../../src/postgres/embedded-initdb.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** The folder of the clusters that are copied. */
    clusters: string
  }
}

export async function initdb(cluster: string, options: ClusterOptions, means: Means): Promise<void> {
  const { directory, initdb: more, signal } = options
  // What is said of the making itself is for initdb to do.
  if ([directory, more, signal, means.password].some((said) => said !== undefined)) return make(cluster, options, means)
  await promisify(execFile)('cp', ['-a', `${await original(means)}/.`, cluster])
  await giveIdentity(cluster)
}

/** Made by whichever test comes first; of several that make it at once, the first to be done is heard. */
async function original(means: Means): Promise<string> {
  const folder = inject('clusters')
  const name = String(means.binaries.major)
  const found = path.join(folder, name)
  if ((await readdir(folder)).includes(name)) return found
  const made = await mkdtemp(path.join(folder, 'made-'))
  const { account } = means
  if (account) await chown(made, account.uid, account.gid)
  await make(made, {}, means)
  await rename(made, found).catch(async (error: unknown) => {
    if (codeOf(error) !== 'ENOTEMPTY' && codeOf(error) !== 'EEXIST') throw error
    await rm(made, { recursive: true })
  })
  return found
}

/**
 * The system identifier is what tells one server from another. It is the first thing in `pg_control`, which ends in a
 * CRC-32C whose place depends on the version, and it is in the head of each file of the log, which is one yet.
 */
async function giveIdentity(cluster: string): Promise<void> {
  const identity = randomBytes(8)
  // By the machine's order of bytes, and positive.
  identity[7] = (identity[7] ?? 0) & 0x7f
  const control = path.join(cluster, 'global/pg_control')
  const bytes = await readFile(control)
  const end = endOfControl(bytes)
  identity.copy(bytes)
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, end)), end)
  await writeFile(control, bytes)
  const logs = path.join(cluster, 'pg_wal')
  for (const name of (await readdir(logs)).filter((file) => /^[0-9A-F]{24}$/.test(file))) {
    const log = await readFile(path.join(logs, name))
    identity.copy(log, afterPageHeader)
    await writeFile(path.join(logs, name), log)
  }
}

/** Where `xlp_sysid` is in the first page of a log's file. */
const afterPageHeader = 24

/** Where the sum over what comes before is. */
function endOfControl(bytes: Buffer): number {
  for (let at = 8; at < 512; at += 4) if (crc32c(bytes.subarray(0, at)) === bytes.readUInt32LE(at)) return at
  throw new Error('pg_control has no sum that fits')
}

function crc32c(bytes: Uint8Array): number {
  let sum = 0xffffffff
  for (const byte of bytes) {
    sum ^= byte
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0x82f63b78 : 0)
  }
  return ~sum >>> 0
}
