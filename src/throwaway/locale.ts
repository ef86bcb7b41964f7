import type pg from 'pg'
import { codeOf } from '../base/errors.ts'
import type { DatabaseProperties } from '../model/catalog.ts'
import { quoteIdent } from '../model/identifier.ts'
import { createDatabaseSql } from '../restore/destination.ts'
import type { RestorePlan } from '../restore/plan.ts'

/**
 * The plan with a locale that this machine has. Small machines and containers have few, and a throwaway server that
 * refuses for want of one would be of no use; rows are the same under any.
 */
export async function withKnownLocale(
  admin: pg.Client,
  plan: RestorePlan,
  onNote: (note: string) => void,
): Promise<RestorePlan> {
  const { database } = plan.base
  if (isKnown(database) || (await canBeMade(admin, database))) return plan
  onNote(
    `this machine has no locale ${database.locale ?? database.collate}: text is sorted by its bytes here, unlike at the source`,
  )
  const plain = database.encoding === 'UTF8' ? { provider: 'b', locale: 'C.UTF-8' } : { provider: 'c', locale: null }
  return { ...plan, base: { ...plan.base, database: { ...database, ...plain, ...everywhere, icuRules: null } } }
}

const everywhere = { collate: 'C', ctype: 'C' } as const

const isKnown = ({ provider, collate, ctype }: DatabaseProperties): boolean =>
  provider === 'c' && [collate, ctype].every((name) => name === 'C' || name === 'POSIX')

/** Whether the server makes a database like that; it is the only one who knows. */
async function canBeMade(admin: pg.Client, database: DatabaseProperties): Promise<boolean> {
  const { rows } = await admin.query<{ v: string }>(`SELECT current_setting('server_version_num') AS v`)
  try {
    await admin.query(createDatabaseSql(trial, database, Number(rows[0]?.v)))
  } catch (error) {
    if (localeCodes.has(codeOf(error) ?? '')) return false
    throw error
  }
  await admin.query(`DROP DATABASE ${quoteIdent(trial)}`)
  return true
}

const trial = 'locale_trial'

/** wrong_object_type and invalid_parameter_value: no such locale, or not with this encoding; feature_not_supported: no ICU. */
const localeCodes = new Set(['42809', '22023', '0A000', '42P17'])
