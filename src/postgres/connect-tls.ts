/** libpq's `sslmode`, in terms of Node's TLS (PostgreSQL manual, "SSL Support", and fe-secure-openssl.c). */
import { readFile } from 'node:fs/promises'
import type { ConnectionOptions } from 'node:tls'
import { unreachable } from '../base/assert.ts'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import { type Conninfo, isSocketDirectory, type SslMode } from './conninfo.ts'

export type Encryption = 'plain' | 'tls'

/** What to try with one server, in order. A Unix socket is never encrypted, whatever the mode says. */
export function encryptionsToTry(mode: SslMode, host: string): readonly [Encryption, ...Encryption[]] {
  if (isSocketDirectory(host)) return ['plain']
  switch (mode) {
    case 'disable':
      return ['plain']
    case 'allow':
      return ['plain', 'tls']
    case 'prefer':
      return ['tls', 'plain']
    case 'require':
    case 'verify-ca':
    case 'verify-full':
      return ['tls']
    default:
      return unreachable(mode)
  }
}

/** The words of node-postgres when the server answers N, or anything but S, to its request for TLS. */
const declined = /server does not support SSL|error establishing an SSL connection/

/** Whether a failure is that of TLS itself, by the codes of Node and OpenSSL. */
export function isTlsFailure(error: unknown): boolean {
  const code = codeOf(error) ?? ''
  if (
    /^(ERR_(TLS|SSL|OSSL)_|EPROTO$|CERT_|CRL_|SELF_SIGNED_|DEPTH_ZERO_|UNABLE_TO_|INVALID_CA|PATH_LENGTH_)/.test(code)
  )
    return true
  return declined.test(messageOf(error))
}

/**
 * Whether `allow` and `prefer` go on to their second choice: TLS failed, or pg_hba.conf has no line for this kind of
 * connection (28000). Unlike libpq not after a wrong password, which would be sent a second time, unencrypted.
 */
export const isWorthOtherEncryption = (error: unknown): boolean => isTlsFailure(error) || codeOf(error) === '28000'

/** Reads the certificate files and says what of the server's certificate is checked. */
export async function tlsOptions(conninfo: Conninfo): Promise<ConnectionOptions> {
  const { sslMode, sslRootCert, sslCert, sslKey } = conninfo
  // A given root certificate turns require into verify-ca: libpq's rule, kept for the sake of old configurations.
  const checksChain = sslMode.startsWith('verify') || (sslMode === 'require' && sslRootCert !== undefined)
  if (checksChain && sslRootCert === undefined) {
    throw new WalbackError('database', `sslmode ${sslMode} needs a root certificate, and none is given`, {
      hint: 'set sslrootcert to a file of CA certificates, or to system for those that the system trusts',
    })
  }
  return {
    rejectUnauthorized: checksChain,
    ...(checksChain &&
      sslRootCert !== undefined &&
      sslRootCert !== 'system' && { ca: await read('sslrootcert', sslRootCert) }),
    // Anything but verify-full takes a certificate for whatever name.
    ...(sslMode !== 'verify-full' && { checkServerIdentity: () => undefined }),
    ...(sslCert !== undefined && { cert: await read('sslcert', sslCert) }),
    ...(sslKey !== undefined && { key: await read('sslkey', sslKey) }),
  }
}

async function read(parameter: string, path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw new WalbackError('database', `cannot read ${parameter} ${path}: ${messageOf(error)}`, {
      hint: `set ${parameter} to a PEM file that this user can read`,
      cause: error,
    })
  }
}
