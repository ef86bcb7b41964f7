/**
 * libpq's connection parameters: the environment variable of each, and what walback does with it.
 * The list is that of the PostgreSQL manual, "Parameter Key Words" and "Environment Variables" (chapter libpq).
 *
 * A parameter that walback cannot honour is only passed over when that changes nothing that the user relies on (keep-alive
 * timing, Kerberos names). One that protects the user (`sslcrl`, `requirepeer`) is refused instead: a connection that is
 * silently less safe than the one that was asked for is worse than none.
 */

interface ParameterSpec {
  readonly env?: string
  /** `used` when absent; `refused` means any value but the harmless ones is an error. */
  readonly support?: 'ignored' | { readonly refusedUnless: readonly string[] }
}

const specs = {
  host: { env: 'PGHOST' },
  port: { env: 'PGPORT' },
  user: { env: 'PGUSER' },
  password: { env: 'PGPASSWORD' },
  passfile: { env: 'PGPASSFILE' },
  dbname: { env: 'PGDATABASE' },
  service: { env: 'PGSERVICE' },
  sslmode: { env: 'PGSSLMODE' },
  sslrootcert: { env: 'PGSSLROOTCERT' },
  sslcert: { env: 'PGSSLCERT' },
  sslkey: { env: 'PGSSLKEY' },
  channel_binding: { env: 'PGCHANNELBINDING' },
  connect_timeout: { env: 'PGCONNECT_TIMEOUT' },
  target_session_attrs: { env: 'PGTARGETSESSIONATTRS' },
  options: { env: 'PGOPTIONS' },
  application_name: { env: 'PGAPPNAME' },
  fallback_application_name: {},

  client_encoding: { env: 'PGCLIENTENCODING', support: 'ignored' }, // always UTF8: node-postgres sends it
  replication: { support: 'ignored' }, // walback decides it for each connection
  keepalives: { support: 'ignored' },
  keepalives_idle: { support: 'ignored' },
  keepalives_interval: { support: 'ignored' },
  keepalives_count: { support: 'ignored' },
  tcp_user_timeout: { support: 'ignored' },
  sslcompression: { env: 'PGSSLCOMPRESSION', support: 'ignored' },
  sslsni: { env: 'PGSSLSNI', support: 'ignored' },
  sslkeylogfile: { support: 'ignored' },
  krbsrvname: { env: 'PGKRBSRVNAME', support: 'ignored' },
  gsslib: { env: 'PGGSSLIB', support: 'ignored' },
  gssdelegation: { env: 'PGGSSDELEGATION', support: 'ignored' },
  min_protocol_version: { env: 'PGMINPROTOCOLVERSION', support: 'ignored' },
  max_protocol_version: { env: 'PGMAXPROTOCOLVERSION', support: 'ignored' },

  hostaddr: { env: 'PGHOSTADDR', support: { refusedUnless: [] } },
  gssencmode: { env: 'PGGSSENCMODE', support: { refusedUnless: ['disable', 'prefer'] } },
  load_balance_hosts: { env: 'PGLOADBALANCEHOSTS', support: { refusedUnless: ['disable'] } },
  requirepeer: { env: 'PGREQUIREPEER', support: { refusedUnless: [] } },
  require_auth: { env: 'PGREQUIREAUTH', support: { refusedUnless: [] } },
  sslnegotiation: { env: 'PGSSLNEGOTIATION', support: { refusedUnless: ['postgres'] } },
  sslcertmode: { env: 'PGSSLCERTMODE', support: { refusedUnless: ['allow'] } },
  sslpassword: { support: { refusedUnless: [] } },
  sslcrl: { env: 'PGSSLCRL', support: { refusedUnless: [] } },
  sslcrldir: { env: 'PGSSLCRLDIR', support: { refusedUnless: [] } },
  ssl_min_protocol_version: {
    env: 'PGSSLMINPROTOCOLVERSION',
    support: { refusedUnless: ['TLSv1', 'TLSv1.1', 'TLSv1.2'] },
  },
  ssl_max_protocol_version: { env: 'PGSSLMAXPROTOCOLVERSION', support: { refusedUnless: [] } },
} as const satisfies Record<string, ParameterSpec>

export type Parameter = keyof typeof specs

/** Parameters as one source (a URI, a service, the environment) gives them. */
export type Settings = ReadonlyMap<Parameter, string>

export const isParameter = (name: string): name is Parameter => Object.hasOwn(specs, name)

const all = (Object.keys(specs) as Parameter[]).map((name): readonly [Parameter, ParameterSpec] => [name, specs[name]])

/** The hint for a name that is none of libpq's. It lists what walback reads, since a misspelt name must not be shown: see conninfo-text.ts. */
export const parametersHint = `parameters are those of libpq; walback uses ${all
  .filter(([, spec]) => spec.support === undefined)
  .map(([name]) => name)
  .join(', ')}`

export function envOf(parameter: Parameter): string | undefined {
  const spec: ParameterSpec = specs[parameter]
  return spec.env
}

/** What the PG* variables say. */
export function settingsOfEnv(env: Readonly<Record<string, string | undefined>>): Settings {
  const settings = new Map<Parameter, string>()
  for (const [name, spec] of all) {
    const value = spec.env === undefined ? undefined : env[spec.env]
    if (value !== undefined) settings.set(name, value)
  }
  return settings
}

/** Whether walback would have to do something with this value that it does not do. */
export function isRefused(parameter: Parameter, value: string): boolean {
  const { support }: ParameterSpec = specs[parameter]
  if (support === undefined || support === 'ignored' || value === '') return false
  return !support.refusedUnless.includes(value)
}
