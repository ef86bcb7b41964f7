import { startupOptions } from './connect.ts'
import type { Conninfo } from './conninfo.ts'

/**
 * Settings of the session that `pg_dump` has. Its queries join catalogs with one another, and with 50,000 tables the
 * planner, which takes a merge join for one that ends early, put one of them (getMatViewDependencies) at three minutes
 * instead of a millisecond; and compiling them costs more than it saves.
 */
export const dumpSettings: Readonly<Record<string, string>> = { enable_mergejoin: 'off', jit: 'off' }

/**
 * The environment of a libpq program that is to connect where we do. Secrets go this way, since the arguments of a
 * process are everybody's to read. Variables that we did not set are left out: they are in the conninfo already.
 */
export function libpqEnvironment(
  conninfo: Conninfo,
  inherited: Readonly<Record<string, string | undefined>>,
): Record<string, string | undefined> {
  return {
    ...Object.fromEntries(Object.entries(inherited).filter(([name]) => !name.startsWith('PG'))),
    // Messages in English and sorting by bytes; the encoding of a dump is an argument.
    LC_ALL: 'C',
    LANGUAGE: undefined,
    PGHOST: conninfo.hosts.map(({ host }) => host).join(','),
    PGPORT: conninfo.hosts.map(({ port }) => port).join(','),
    PGUSER: conninfo.user,
    PGDATABASE: conninfo.database,
    PGPASSWORD: conninfo.password,
    PGPASSFILE: conninfo.passfile,
    PGSSLMODE: conninfo.sslMode,
    PGSSLROOTCERT: conninfo.sslRootCert,
    PGSSLCERT: conninfo.sslCert,
    PGSSLKEY: conninfo.sslKey,
    PGCHANNELBINDING: conninfo.channelBinding,
    PGGSSENCMODE: 'disable',
    PGCONNECT_TIMEOUT: String(conninfo.connectTimeout_s),
    PGTARGETSESSIONATTRS: conninfo.targetSessionAttrs,
    PGOPTIONS: startupOptions(conninfo.options, dumpSettings),
    PGAPPNAME: conninfo.applicationName ?? 'walback schema',
  }
}
