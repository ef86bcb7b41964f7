import type { Conninfo } from './conninfo.ts'

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
    PGOPTIONS: conninfo.options,
    PGAPPNAME: conninfo.applicationName ?? 'walback schema',
  }
}
