import { WalbackError } from '../base/errors.ts'
import { quoteIdent } from '../model/identifier.ts'
import { oldestServerVersion, type SourceFacts } from '../postgres/source.ts'

/** Refuses a source that capture cannot work on, with the SQL that mends it. */
export function checkPrerequisites(facts: SourceFacts, options: { readonly slotExists: boolean }): void {
  const missing = (message: string, hint: string): WalbackError => new WalbackError('prerequisite', message, { hint })
  if (facts.version < oldestServerVersion) {
    throw missing(
      `PostgreSQL ${facts.versionText} is too old: walback needs 14 or newer`,
      'upgrade the server; every major from 14 on is supported',
    )
  }
  if (facts.inRecovery) {
    throw missing(
      'the server is a standby',
      'give --db the primary: a standby cannot say which transactions it has not seen',
    )
  }
  if (facts.walLevel !== 'logical') {
    throw missing(
      `wal_level is ${facts.walLevel}, and logical replication needs logical`,
      "ALTER SYSTEM SET wal_level = 'logical';   -- then restart the server (on RDS: rds.logical_replication = 1)",
    )
  }
  if (!facts.role.replication) {
    throw missing(
      `role ${facts.role.name} may not replicate`,
      `ALTER ROLE ${quoteIdent(facts.role.name)} REPLICATION;   -- as a superuser (on RDS: GRANT rds_replication TO ${quoteIdent(facts.role.name)})`,
    )
  }
  if (!facts.role.createInDatabase) {
    throw missing(
      `role ${facts.role.name} may not create a publication in database ${facts.database.name}`,
      `GRANT CREATE ON DATABASE ${quoteIdent(facts.database.name)} TO ${quoteIdent(facts.role.name)};`,
    )
  }
  if (!options.slotExists && facts.slots.used >= facts.slots.max) {
    throw missing(
      `all ${facts.slots.max} replication slots are in use`,
      `ALTER SYSTEM SET max_replication_slots = ${facts.slots.max + 5};   -- then restart the server, or drop a slot that nobody needs`,
    )
  }
  if (facts.maxWalSenders < 1) {
    throw missing('max_wal_senders is 0', 'ALTER SYSTEM SET max_wal_senders = 10;   -- then restart the server')
  }
}
