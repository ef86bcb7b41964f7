import type pg from 'pg'
import { messageOf } from '../base/errors.ts'
import type { DatabaseProperties } from '../model/catalog.ts'
import { quoteIdent, quoteLiteral } from '../model/identifier.ts'
import type { Roles } from './roles.ts'
import { settingFor, settingSql } from './settings.ts'

/** A statement, or one that gives a role something. */
type Step =
  | string
  | {
      readonly what: 'owner' | 'grant' | 'setting'
      readonly role: string | null
      readonly sql: (name: string) => string
    }

/**
 * Gives a database what pg_dump --create says of one: comment, settings, rights, owner last. What the server does not
 * take is left out and told, each in a line.
 */
export async function applyProperties(
  client: pg.Client,
  database: string,
  source: DatabaseProperties,
  options: { readonly roles: Roles; readonly onWarning: (warning: string) => void },
): Promise<void> {
  const { roles, onWarning } = options
  for (const step of stepsFor(quoteIdent(database), source, roles)) {
    try {
      if (typeof step === 'string') await client.query(step)
      else await roles.give(client, step.what, step.role, step.sql)
    } catch (error) {
      onWarning(
        `left out (${messageOf(error)}): ${typeof step === 'string' ? step : step.sql(quoteIdent(step.role ?? ''))}`,
      )
    }
  }
}

function stepsFor(name: string, source: DatabaseProperties, roles: Roles): Step[] {
  const set = (setting: string): string => settingSql(settingFor(setting, (role) => roles.nameOnTarget(role)))
  return [
    ...(source.comment === null ? [] : [`COMMENT ON DATABASE ${name} IS ${quoteLiteral(source.comment)}`]),
    ...source.settings.map((setting) => `ALTER DATABASE ${name} ${set(setting)}`),
    ...source.roleSettings.flatMap(({ role, settings }) =>
      settings.map((setting): Step => {
        return { what: 'setting', role, sql: (to) => `ALTER ROLE ${to} IN DATABASE ${name} ${set(setting)}` }
      }),
    ),
    ...(source.connectionLimit < 0 ? [] : [`ALTER DATABASE ${name} CONNECTION LIMIT ${source.connectionLimit}`]),
    ...(source.grants === null
      ? []
      : [{ what: 'grant', role: null, sql: (to: string) => `REVOKE ALL ON DATABASE ${name} FROM ${to}` } as const]),
    ...(source.grants ?? []).map(({ role, privilege, grantable }): Step => {
      const option = grantable ? ' WITH GRANT OPTION' : ''
      return { what: 'grant', role, sql: (to) => `GRANT ${privilege} ON DATABASE ${name} TO ${to}${option}` }
    }),
    { what: 'owner', role: source.owner, sql: (to) => `ALTER DATABASE ${name} OWNER TO ${to}` },
  ]
}
