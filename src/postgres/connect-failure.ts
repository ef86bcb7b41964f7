/** What a failed attempt to connect means, and what the reader can do about it. Pure: it is told the error, it asks nothing. */
import pg from 'pg'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import { quoteIdent } from '../model/identifier.ts'
import { isTlsFailure } from './connect-tls.ts'
import { type Conninfo, describeConninfo, describeServer, isSocketDirectory, type Server } from './conninfo.ts'

export interface Attempt {
  readonly server: Server
  readonly error: unknown
}

interface Advice {
  readonly hint: string
  /** Whether waiting may be enough: a server that restarts, a network that comes back. */
  readonly retryable: boolean
}

/** The server's own answer, which has a SQLSTATE for a code; anything else happened on the way to it. */
const isServerError = (error: unknown): boolean => error instanceof pg.DatabaseError

/**
 * Whether the next host of the list is worth trying. A server that answered and said no ends the search, as in libpq, since
 * its peers would say the same; one that is starting up or shutting down does not.
 */
export const endsSearch = (error: unknown): boolean => isServerError(error) && codeOf(error) !== '57P03'

/** The error for all attempts together; the advice is on the last, which is the one that ended the search. */
export function connectFailure(conninfo: Conninfo, attempts: readonly Attempt[]): WalbackError {
  const last = attempts.at(-1)
  const reason =
    attempts.length === 1
      ? messageOf(last?.error)
      : attempts.map(({ server, error }) => `${describeServer(server)}: ${messageOf(error)}`).join('; ')
  const advice = attempts.map(({ server, error }) => advise(conninfo, server, error))
  return new WalbackError('database', `cannot connect to ${describeConninfo(conninfo)}: ${reason}`, {
    hint: advice.at(-1)?.hint ?? '',
    retryable: advice.some(({ retryable }) => retryable),
    cause: last?.error,
  })
}

function advise(conninfo: Conninfo, server: Server, error: unknown): Advice {
  if (error instanceof WalbackError) return { hint: error.hint ?? checkWithPsql(conninfo), retryable: error.retryable }
  if (isTlsFailure(error)) return { hint: tlsHint(conninfo, error), retryable: false }
  return isServerError(error) ? adviseOnAnswer(conninfo, error) : adviseOnSocket(conninfo, server, error)
}

const checkWithPsql = (conninfo: Conninfo): string => `check that this works: psql '${describeConninfo(conninfo)}'`

/** No connection to the server at all. */
function adviseOnSocket(conninfo: Conninfo, server: Server, error: unknown): Advice {
  const where = describeServer(server)
  switch (codeOf(error)) {
    case 'ECONNREFUSED':
      return {
        hint: `is the server running, and does it listen on ${where} (listen_addresses, port)?`,
        retryable: true,
      }
    case 'ENOTFOUND':
      return { hint: `no such host: check the spelling of ${server.host}, and DNS`, retryable: false }
    case 'EAI_AGAIN':
      return { hint: 'the name server does not answer', retryable: true }
    case 'ENOENT':
      return isSocketDirectory(server.host)
        ? {
            hint: `no server has its socket at ${server.host}/.s.PGSQL.${server.port}: is it running, is this its unix_socket_directories?`,
            retryable: true,
          }
        : { hint: checkWithPsql(conninfo), retryable: false }
    case 'EACCES':
      return {
        hint: `this user may not use ${where}: check the permissions (unix_socket_permissions)`,
        retryable: false,
      }
    case 'ETIMEDOUT':
      return {
        hint: `is a firewall dropping packets to ${where}? connect_timeout=SECONDS allows more time`,
        retryable: true,
      }
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return { hint: `there is no route to ${where}: check the network`, retryable: true }
    case 'ECONNRESET':
    case 'EPIPE':
      return {
        hint: 'the connection was cut while it was made; the log of the server or of a proxy says why',
        retryable: true,
      }
    default:
      // node-postgres' words for a socket that closed without an error.
      if (messageOf(error).includes('terminated unexpectedly')) {
        return { hint: 'the server closed the connection while it was made; its log says why', retryable: true }
      }
      return { hint: checkWithPsql(conninfo), retryable: false }
  }
}

/** The server said no; the SQLSTATE says why, in whatever language the message is. */
function adviseOnAnswer(conninfo: Conninfo, error: unknown): Advice {
  const role = quoteIdent(conninfo.user)
  switch (codeOf(error)) {
    case '28P01':
      return {
        hint: `the password for ${role} is wrong, or the role has none: psql's \\password ${conninfo.user} sets it`,
        retryable: false,
      }
    case '28000': {
      const encryption = ['disable', 'allow'].includes(conninfo.sslMode)
        ? '; if it wants encryption, sslmode=require'
        : ''
      return {
        hint: `the server does not let ${role} in this way: does the role exist with LOGIN, and does pg_hba.conf have a line for it, ${quoteIdent(conninfo.database)} and this address${encryption}?`,
        retryable: false,
      }
    }
    case '3D000':
      return { hint: `psql -l shows the databases: was it renamed or dropped? createdb makes one`, retryable: false }
    case '42501':
      return {
        hint: `grant what is missing: GRANT CONNECT ON DATABASE ${quoteIdent(conninfo.database)} TO ${role}, or for replication ALTER ROLE ${role} REPLICATION`,
        retryable: false,
      }
    case '53300':
      return {
        hint: 'the server has no free connection: see pg_stat_activity; max_connections, max_wal_senders',
        retryable: true,
      }
    case '57P03':
      return { hint: 'the server is starting up, shutting down or recovering: try again in a moment', retryable: true }
    case '57P01':
    case '57P02':
      return { hint: 'the server is shutting down or restarting', retryable: true }
    default:
      return { hint: checkWithPsql(conninfo), retryable: false }
  }
}

function tlsHint(conninfo: Conninfo, error: unknown): string {
  const mode = `sslmode=${conninfo.sslMode}`
  if (/does not support SSL/.test(messageOf(error))) {
    return `the server has ssl=off, and ${mode} insists on TLS: turn it on there, or use sslmode=prefer if you trust the network`
  }
  if (codeOf(error) === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return `the certificate is for another name: connect by the name that it has, or use sslmode=verify-ca`
  }
  if (/^(CERT_|SELF_SIGNED_|DEPTH_ZERO_|UNABLE_TO_|INVALID_CA|PATH_LENGTH_)/.test(codeOf(error) ?? '')) {
    return `sslrootcert (${conninfo.sslRootCert}) does not vouch for the server's certificate: give the CA that signed it`
  }
  return `TLS failed (${mode}): check sslcert, sslkey and the server's ssl_min_protocol_version`
}
