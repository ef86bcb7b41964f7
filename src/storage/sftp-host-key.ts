import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import type { SftpLocation } from './sftp-url.ts'

export interface HostKeyJudge {
  /** The kinds of key to ask the server for, where we know which it has; else any. */
  readonly algorithms: readonly string[] | undefined
  /** Why a key is refused; undefined for the right one. */
  refusal(key: Buffer): WalbackError | undefined
}

/** Whoever does not look at the server's key hands password and backups to whoever answers: there is no way around it. */
export async function hostKeyJudge({ host, port, hostKey }: SftpLocation): Promise<HostKeyJudge> {
  const where = port === 22 ? host : `[${host}]:${port}`
  if (hostKey.kind === 'fingerprint') {
    return {
      algorithms: undefined,
      refusal: (key) => (fingerprintOf(key) === hostKey.sha256 ? undefined : otherKey(where, key, hostKey.sha256)),
    }
  }
  const found = knownKeys(await readKnownHosts(hostKey.file), where)
  const trusted = found.filter(({ revoked }) => !revoked)
  const shown = trusted.map(({ key }) => fingerprintOf(key)).join(', ')
  return {
    algorithms: trusted.length === 0 ? undefined : [...new Set(trusted.flatMap(({ key }) => algorithmsFor(key)))],
    refusal: (key) => {
      if (found.some((known) => known.revoked && known.key.equals(key)))
        return refused(where, `its key ${nameOf(key)} is revoked in ${hostKey.file}`, 'do not go on with this server')
      if (trusted.some((known) => known.key.equals(key))) return undefined
      if (trusted.length > 0) return otherKey(where, key, shown)
      return refused(
        where,
        `its key ${nameOf(key)} is not in ${hostKey.file}`,
        `compare it with the one its operator names, and then add it (ssh-keyscan -p ${port} ${host}) or set fingerprint=${fingerprintOf(key)} in the repository URL`,
      )
    },
  }
}

const refused = (where: string, why: string, hint: string): WalbackError =>
  new WalbackError('storage', `refused the server ${where}: ${why}`, { hint, facts: { host_key: true } })

const otherKey = (where: string, key: Buffer, known: string): WalbackError =>
  refused(
    where,
    `its key is ${nameOf(key)}, and known is ${known}`,
    'either the server has a new key, which its operator can tell, or somebody is between you and it',
  )

export const fingerprintOf = (key: Buffer): string =>
  `SHA256:${createHash('sha256').update(key).digest('base64').replace(/=+$/, '')}`

/** A public key begins with its kind, as a string with its length before it. */
const kindOf = (key: Buffer): string => key.subarray(4, 4 + key.readUInt32BE(0)).toString('latin1')

const nameOf = (key: Buffer): string => `${kindOf(key)} ${fingerprintOf(key)}`

/** One kind of RSA key signs in several ways. */
function algorithmsFor(key: Buffer): readonly string[] {
  const kind = kindOf(key)
  return kind === 'ssh-rsa' ? ['rsa-sha2-512', 'rsa-sha2-256', 'ssh-rsa'] : [kind]
}

async function readKnownHosts(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    // The server is then unknown, which says more of what to do.
    if (codeOf(error) === 'ENOENT') return ''
    throw new WalbackError('usage', `cannot read the known hosts in ${file}: ${messageOf(error)}`, { cause: error })
  }
}

interface KnownKey {
  readonly key: Buffer
  readonly revoked: boolean
}

/** The keys of a host in the format of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT". Authorities of certificates are passed over. */
export function knownKeys(text: string, where: string): readonly KnownKey[] {
  return text.split('\n').flatMap((line) => {
    const words = line.trim().split(/\s+/)
    const marker = words[0]?.startsWith('@') ? words.shift() : undefined
    const [hosts, kind, encoded] = words
    if (hosts === undefined || hosts.startsWith('#') || kind === undefined || encoded === undefined) return []
    if ((marker !== undefined && marker !== '@revoked') || !names(hosts, where)) return []
    const key = Buffer.from(encoded, 'base64')
    return key.length > 4 && kindOf(key) === kind ? [{ key, revoked: marker === '@revoked' }] : []
  })
}

function names(hosts: string, where: string): boolean {
  const hashed = /^\|1\|([^|]+)\|([^|]+)$/.exec(hosts)
  if (hashed !== null) {
    const [salt, hash] = [Buffer.from(hashed[1] ?? '', 'base64'), Buffer.from(hashed[2] ?? '', 'base64')]
    const own = createHmac('sha1', salt).update(where).digest()
    return own.length === hash.length && timingSafeEqual(own, hash)
  }
  const patterns = hosts.split(',')
  const matches = (pattern: string): boolean => wildcard(pattern).test(where)
  // One pattern behind a `!` takes back what others give.
  if (patterns.some((pattern) => pattern.startsWith('!') && matches(pattern.slice(1)))) return false
  return patterns.some((pattern) => matches(pattern))
}

const wildcard = (pattern: string): RegExp =>
  new RegExp(
    `^${pattern
      .replace(/[.+^${}()|[\]\\]/g, '\\$&')
      .replaceAll('*', '.*')
      .replaceAll('?', '.')}$`,
    'i',
  )
