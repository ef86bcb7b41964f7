import { WalbackError } from '../base/errors.ts'

/** A secret as it was given: itself, or the file it is read from when the store is first used. */
export interface GivenSecret {
  readonly text: string | undefined
  readonly file: string | undefined
}

/** What may be shown to the server; what is given is tried, each in its turn. */
export interface SftpLogin {
  readonly keyFile: string | undefined
  readonly passphrase: GivenSecret
  readonly password: GivenSecret
  /** The socket of an agent that holds keys. */
  readonly agent: string | undefined
}

/** What the server's own key is held against. */
export type HostKeyCheck =
  | { readonly kind: 'fingerprint'; readonly sha256: string }
  | { readonly kind: 'known hosts'; readonly file: string }

export interface SftpLocation {
  readonly host: string
  readonly port: number
  readonly user: string
  /** A path of the server; one that does not begin with `/` begins in the user's own folder. */
  readonly root: string
  readonly login: SftpLogin
  readonly hostKey: HostKeyCheck
  readonly url: string
}

type Env = Readonly<Record<string, string | undefined>>

export const sftpExample = 'sftp://user@host/path'

const parameters = ['key_file', 'known_hosts', 'fingerprint']

/**
 * Reads `sftp://user@host:port/path?key_file=…&known_hosts=…&fingerprint=SHA256:…`; `/~/` begins in the user's own
 * folder. Secrets come from the environment alone: WALBACK_SFTP_PASSWORD, WALBACK_SFTP_KEY_PASSPHRASE, or either with
 * `_FILE`. WALBACK_SFTP_KEY_FILE, WALBACK_SFTP_KNOWN_HOSTS and SSH_AUTH_SOCK stand in for what the URL leaves out.
 */
export function parseSftpUrl(text: string, env: Env): SftpLocation {
  const refuse = (what: string, hint = `an SFTP repository is ${sftpExample}`): never => {
    throw new WalbackError('usage', `not a usable repository URL: ${what}`, { hint })
  }
  const parsed = URL.canParse(text) ? new URL(text) : refuse('it cannot be read as a URL')
  if (parsed.password) refuse('it holds a password', `a URL is shown and logged: ${loginHint}`)
  if (!parsed.hostname) refuse('it names no host')
  if (!parsed.username) refuse('it names no user')
  if (parsed.hash) refuse('it has a part behind #, which a path writes as %23')
  for (const [name] of parsed.searchParams) {
    if (!parameters.includes(name)) refuse(`there is no parameter ${name}`, `parameters: ${parameters.join(', ')}`)
  }
  const path = decoded(parsed.pathname)?.replace(/\/+/g, '/').replace(/\/$/, '') ?? refuse('its path cannot be read')
  if (path === '' || path === '/~') refuse('it names no folder', `name one of its own: ${sftpExample}`)
  // A plus sign is a part of fingerprints, and a space in queries.
  const given = (name: string): string | undefined => parsed.searchParams.get(name)?.replaceAll(' ', '+') || undefined
  const fingerprint = given('fingerprint')?.replace(/=+$/, '')
  if (fingerprint !== undefined && !/^SHA256:[A-Za-z0-9+/]{43}$/.test(fingerprint))
    refuse('its fingerprint is not SHA256:… of 43 characters', 'ssh-keygen -lf shows that of a key')
  const query = parameters.flatMap((name) => (given(name) ? [`${name}=${given(name)}`] : [])).join('&')
  const port = parsed.port === '' ? 22 : Number(parsed.port)
  return {
    host: parsed.hostname.replace(/^\[|\]$/g, ''),
    port,
    user: decoded(parsed.username) ?? refuse('its user cannot be read'),
    root: path.startsWith('/~/') ? path.slice(3) : path,
    login: loginFrom(parsed.searchParams.get('key_file') || undefined, env, refuse),
    hostKey:
      fingerprint === undefined
        ? { kind: 'known hosts', file: knownHosts(parsed.searchParams.get('known_hosts') || undefined, env, refuse) }
        : { kind: 'fingerprint', sha256: fingerprint },
    url: `sftp://${parsed.username}@${parsed.hostname}${port === 22 ? '' : `:${port}`}${encodeURI(path)}${query === '' ? '' : `?${query}`}`,
  }
}

const loginHint =
  'give a key (key_file= in the URL, or WALBACK_SFTP_KEY_FILE), an agent (SSH_AUTH_SOCK) or WALBACK_SFTP_PASSWORD_FILE'

function loginFrom(given: string | undefined, env: Env, refuse: (what: string, hint?: string) => never): SftpLogin {
  const secret = (name: string): GivenSecret => ({
    text: env[name] || undefined,
    file: env[`${name}_FILE`] || undefined,
  })
  const login = {
    keyFile: given ?? (env['WALBACK_SFTP_KEY_FILE'] || undefined),
    passphrase: secret('WALBACK_SFTP_KEY_PASSPHRASE'),
    password: secret('WALBACK_SFTP_PASSWORD'),
    agent: env['SSH_AUTH_SOCK'] || undefined,
  }
  const { keyFile, agent, password } = login
  return (keyFile ?? agent ?? password.text ?? password.file) ? login : refuse('no login for its host', loginHint)
}

function knownHosts(given: string | undefined, env: Env, refuse: (what: string, hint: string) => never): string {
  const named = given ?? (env['WALBACK_SFTP_KNOWN_HOSTS'] || undefined)
  if (named !== undefined) return named
  const home = env['HOME'] || refuse("what is the server's key?", 'add known_hosts=FILE or fingerprint=SHA256:… to it')
  return `${home}/.ssh/known_hosts`
}

function decoded(text: string): string | undefined {
  try {
    const plain = decodeURIComponent(text)
    return plain.includes('\0') ? undefined : plain
  } catch {
    return undefined
  }
}
