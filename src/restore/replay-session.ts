import type pg from 'pg'
import { codeOf, WalbackError } from '../base/errors.ts'
import type { ObjectAddress, ObjectState } from '../model/ddl-message.ts'
import { quoteIdent } from '../model/identifier.ts'
import { describeFunctionsSql } from '../postgres/describe-sql.ts'
import { rowSettings } from '../postgres/row-session.ts'

/** Where a restore keeps what it needs in the target while it replays changes of the schema. */
const schema = 'walback$restore'

/** An object of the target. */
export interface Found {
  readonly class: string
  readonly oid: string
  readonly state: ObjectState | null
}

/**
 * The session that replays changes of the schema. It is a replica's (foreign keys and ordinary triggers do not fire),
 * has the settings of a session of rows, and those of the source's session only while a statement runs.
 */
export class ReplaySession {
  readonly client: pg.Client
  /** As server_version_num. */
  serverVersion = 0
  private isInTransaction = false
  private readonly defaults: Record<string, string | undefined> = {}

  constructor(client: pg.Client) {
    this.client = client
  }

  async prepare(): Promise<void> {
    try {
      await this.client.query('SET session_replication_role = replica')
    } catch (error) {
      if (codeOf(error) !== '42501') throw error
      throw new WalbackError('prerequisite', 'the role may not replay changes of the schema', {
        cause: error,
        hint: 'restore as a superuser (or, from 15 on: GRANT SET ON PARAMETER session_replication_role TO the role), or to a target before the first change of the schema since the base',
      })
    }
    await this.client.query(`CREATE SCHEMA ${quoteIdent(schema)}`)
    await this.client.query(describeFunctionsSql(schema))
    await this.client.query(findFunctionSql)
    const version = await this.client.query<{ v: string }>(`SELECT current_setting('server_version_num') AS v`)
    this.serverVersion = Number(version.rows[0]?.v)
  }

  async finish(): Promise<void> {
    await this.commit()
    await this.client.query(`DROP SCHEMA ${quoteIdent(schema)} CASCADE`)
    await this.client.query('SET session_replication_role = DEFAULT')
  }

  get isOpen(): boolean {
    return this.isInTransaction
  }

  /** What the source did in one transaction is done in one, so that what it deferred can be deferred. */
  async begin(): Promise<void> {
    if (this.isInTransaction) return
    await this.client.query('BEGIN')
    await this.client.query('SET CONSTRAINTS ALL DEFERRED')
    this.isInTransaction = true
  }

  async commit(): Promise<void> {
    if (!this.isInTransaction) return
    await this.client.query('COMMIT')
    this.isInTransaction = false
  }

  /** Runs a statement as it ran on the source; undone if it fails. `role`: undefined for the restorer's own. */
  async runAs(sql: string, settings: Readonly<Record<string, string>>, role: string | undefined): Promise<void> {
    await this.attempt(async () => {
      await this.set(settings)
      if (role !== undefined) await this.client.query(`SET LOCAL ROLE ${quoteIdent(role)}`)
      await this.client.query(sql)
      if (role !== undefined) await this.client.query('SET LOCAL ROLE NONE')
      await this.set({ ...(await this.defaultsOf(Object.keys(settings))), ...rowSettings })
    })
  }

  /**
   * Runs a statement that no transaction block allows, as it ran on the source, between two transactions. False: it
   * failed, and has done nothing.
   */
  async runAlone(sql: string, settings: Readonly<Record<string, string>>, role: string | undefined): Promise<boolean> {
    await this.commit()
    const names = Object.keys(settings)
    try {
      await this.set(settings, 'session')
      if (role !== undefined) await this.client.query(`SET ROLE ${quoteIdent(role)}`)
      await this.client.query(sql)
      return true
    } catch (error) {
      if (!isStatementError(error)) throw error
      return false
    } finally {
      await this.client.query('SET ROLE NONE')
      await this.set({ ...(await this.defaultsOf(names)), ...rowSettings }, 'session')
      await this.begin()
    }
  }

  /** Runs a statement of our own; undone if it fails. */
  async run(sql: string): Promise<void> {
    await this.attempt(async () => {
      // What a function's body names may not be there yet, or be called otherwise by now.
      await this.client.query('SET LOCAL check_function_bodies = off')
      await this.client.query(sql)
    })
  }

  /** The state of an object of the target. */
  async describe(catalog: string, oid: string): Promise<ObjectState | undefined> {
    const { rows } = await this.client.query<{ state: ObjectState | null }>(
      `SELECT ${quoteIdent(schema)}.describe($1::pg_catalog.regclass, $2::pg_catalog.oid) AS state`,
      [`pg_catalog.${catalog}`, oid],
    )
    return rows[0]?.state ?? undefined
  }

  /** Undoes everything if `work` throws. */
  async attempt<T>(work: () => Promise<T>): Promise<T> {
    await this.client.query('SAVEPOINT walback')
    try {
      const result = await work()
      await this.client.query('RELEASE SAVEPOINT walback')
      return result
    } catch (error) {
      await this.client.query('ROLLBACK TO SAVEPOINT walback')
      await this.client.query('RELEASE SAVEPOINT walback')
      throw error
    }
  }

  /** The objects of these addresses, as the target has them now; undefined for those that it does not have. */
  async find(addresses: readonly ObjectAddress[]): Promise<(Found | undefined)[]> {
    if (addresses.length === 0) return []
    const { rows } = await this.client.query<{ found: Found | null }>(
      `SELECT ${quoteIdent(schema)}.find(a->>'type', ARRAY(SELECT pg_catalog.jsonb_array_elements_text(a->'names')), ARRAY(SELECT pg_catalog.jsonb_array_elements_text(a->'args'))) AS found
       FROM pg_catalog.jsonb_array_elements($1::jsonb) WITH ORDINALITY t(a, place) ORDER BY place`,
      [JSON.stringify(addresses)],
    )
    return rows.map(({ found }) => found ?? undefined)
  }

  /** What settings are without anybody's doing, in a session of this one's. */
  private async defaultsOf(names: readonly string[]): Promise<Readonly<Record<string, string>>> {
    const unknown = names.filter((name) => !(name in this.defaults))
    if (unknown.length > 0) {
      const { rows } = await this.client.query<{ name: string; value: string }>(
        'SELECT name, reset_val AS value FROM pg_catalog.pg_settings WHERE lower(name) = ANY ($1)',
        [unknown.map((name) => name.toLowerCase())],
      )
      for (const name of unknown)
        this.defaults[name] = rows.find((row) => row.name.toLowerCase() === name.toLowerCase())?.value
    }
    return Object.fromEntries(
      names.flatMap((name) => (this.defaults[name] === undefined ? [] : [[name, this.defaults[name]]])),
    )
  }

  /** Settings that this server does not know, or does not take, are left as they are. */
  private async set(
    settings: Readonly<Record<string, string>>,
    span: 'transaction' | 'session' = 'transaction',
  ): Promise<void> {
    const list = Object.entries(settings)
    if (list.length === 0) return
    const isLocal = String(span === 'transaction')
    const all = list.map((_, n) => `pg_catalog.set_config($${2 * n + 1}, $${2 * n + 2}, ${isLocal})`).join(', ')
    const attempt = (work: () => Promise<unknown>) => (this.isInTransaction ? this.attempt(work) : work())
    try {
      await attempt(() => this.client.query(`SELECT ${all}`, list.flat()))
    } catch (error) {
      if (!isStatementError(error)) throw error
      for (const [name, value] of list) {
        await attempt(() => this.client.query(`SELECT pg_catalog.set_config($1, $2, ${isLocal})`, [name, value])).catch(
          (second: unknown) => {
            if (!isStatementError(second)) throw second
          },
        )
      }
    }
  }
}

/** An error that the server found in a statement; not one of the connection, the server's end, its disk or a cancellation. */
export const isStatementError = (error: unknown): boolean => /^(?!08|53|57|58)[0-9A-Z]{5}$/.test(codeOf(error) ?? '')

const findFunctionSql = `
CREATE FUNCTION ${quoteIdent(schema)}.find(type text, names text[], args text[]) RETURNS jsonb LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $walback$
DECLARE
  a record;
BEGIN
  BEGIN
    -- Two kinds of addresses are given and not taken.
    IF type = 'composite type' THEN
      SELECT 'pg_type'::regclass::oid AS classid, t.oid AS objid INTO a FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE n.nspname = names[1] AND t.typname = names[2] AND t.typtype = 'c';
    ELSIF type = 'operator' AND cardinality(args) = 1 THEN
      SELECT 'pg_operator'::regclass::oid AS classid, o.oid AS objid INTO a FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
        WHERE n.nspname = names[1] AND o.oprname = names[2] AND o.oprleft = 0 AND o.oprright = args[1]::regtype;
    ELSE
      SELECT * INTO a FROM pg_get_object_address(type, names, args);
    END IF;
  EXCEPTION WHEN OTHERS THEN
    -- There is no such object, or not of this type.
    RETURN NULL;
  END;
  IF a.objid IS NULL THEN RETURN NULL; END IF;
  RETURN jsonb_build_object('class', a.classid::regclass::text, 'oid', a.objid::text, 'state', ${quoteIdent(schema)}.describe(a.classid, a.objid));
END
$walback$;`
