import { createHash } from 'node:crypto'
import { quoteIdent, quoteLiteral } from '../model/identifier.ts'
import { ddlCaptureSql, type RunAs } from './ddl-capture-sql.ts'
import { describeFunctionsSql } from './describe-sql.ts'
import { keepIdentitiesSql } from './identity-sql.ts'

/**
 * SQL that sets a source up. The order is what keeps applications unharmed: a published table without a replica
 * identity refuses UPDATE and DELETE, so identities come first, and the trigger that sees to future tables before them.
 */

export const setIdentityFullSql = (table: { schema: string; name: string }): string =>
  `ALTER TABLE ONLY ${quoteIdent(table.schema)}.${quoteIdent(table.name)} REPLICA IDENTITY FULL`

export const setIdentityDefaultSql = (table: { schema: string; name: string }): string =>
  `ALTER TABLE ONLY ${quoteIdent(table.schema)}.${quoteIdent(table.name)} REPLICA IDENTITY DEFAULT`

/** From 18 on REPLICA IDENTITY FULL asks for stored generated columns in the stream; before, they are never in it. */
const withGenerated = (serverVersion: number): readonly string[] =>
  serverVersion >= 180000 ? ['publish_generated_columns = stored'] : []

export function publishAllSql(publication: string, serverVersion: number): string {
  const options = withGenerated(serverVersion)
  return `CREATE PUBLICATION ${quoteIdent(publication)} FOR ALL TABLES${options.length > 0 ? ` WITH (${options.join(', ')})` : ''}`
}

export function publishListSql(
  publication: string,
  tables: readonly { schema: string; name: string }[],
  serverVersion: number,
  operations?: 'insert, truncate',
): string {
  const list = tables.map((table) => `${quoteIdent(table.schema)}.${quoteIdent(table.name)}`).join(',\n  ')
  const settings = [...(operations === undefined ? [] : [`publish = '${operations}'`]), ...withGenerated(serverVersion)]
  const options = settings.length === 0 ? '' : ` WITH (${settings.join(', ')})`
  return `CREATE PUBLICATION ${quoteIdent(publication)}${tables.length > 0 ? ` FOR TABLE ONLY\n  ${list.replaceAll(',\n  ', ',\n  ONLY ')}` : ''}${options}`
}

/**
 * Adds a table to a publication once nobody is writing to it: whoever has written before has then ended, so that a base
 * which is taken later sees their rows, and the stream has those of everybody after. (What a transaction wrote before
 * the table was published never comes, though it ends later.) One string, so one transaction.
 */
export function addToPublicationSql(publication: string, table: { schema: string; name: string }): string {
  const name = `${quoteIdent(table.schema)}.${quoteIdent(table.name)}`
  return `LOCK TABLE ONLY ${name} IN SHARE MODE; ALTER PUBLICATION ${quoteIdent(publication)} ADD TABLE ONLY ${name}`
}

/** Not temporary, without two-phase decoding; as a failover slot where the server has them. */
export function createSlotSql(slot: string, serverVersion: number): string {
  const failover = serverVersion >= 170000 ? ', failover => true' : ''
  return `SELECT slot_name FROM pg_catalog.pg_create_logical_replication_slot(${quoteLiteral(slot)}, 'pgoutput', temporary => false, twophase => false${failover})`
}

export const dropSlotSql = (slot: string): string => `SELECT pg_catalog.pg_drop_replication_slot(${quoteLiteral(slot)})`

/** What is done for tables without a key, and as whom the triggers run. */
export interface TriggerChoice {
  readonly identity: 'full' | 'skip'
  readonly runAs: RunAs
}

/** A publication of all tables needs nobody to add to it; a list has an owner who does. */
export const runAs = (role: { readonly superuser: boolean }, allTables: boolean): RunAs =>
  role.superuser && allTables ? 'user' : 'owner'

/**
 * Our event triggers and what they run, under a comment that tells which version of them it is: `init` replaces another
 * one. The session that installs them keeps them quiet about itself.
 */
export function triggersSql(choice: TriggerChoice): string {
  const rights =
    choice.runAs === 'user'
      ? 'GRANT USAGE ON SCHEMA walback TO PUBLIC;\nGRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA walback TO PUBLIC;'
      : 'REVOKE ALL ON ALL FUNCTIONS IN SCHEMA walback FROM PUBLIC;'
  return `SET walback.quiet = 'on';
CREATE SCHEMA IF NOT EXISTS walback;
${triggerFunctions(choice)}
${rights}
COMMENT ON SCHEMA walback IS ${quoteLiteral(schemaComment(triggersStamp(choice)))};
RESET walback.quiet;`
}

const triggerFunctions = ({ identity, runAs }: TriggerChoice): string =>
  [keepIdentitiesSql(identity), describeFunctionsSql('walback'), ddlCaptureSql(runAs)].join('\n')

export const schemaComment = (stamp: string): string =>
  `walback: continuous backup. Remove it with \`walback uninstall\`. (triggers ${stamp})`

/** Tells one version of the triggers from another. */
export const triggersStamp = (choice: TriggerChoice): string =>
  createHash('sha256').update(triggerFunctions(choice)).digest('hex').slice(0, 12)
