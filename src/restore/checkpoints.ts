import type pg from 'pg'
import { z } from 'zod'
import { WalbackError } from '../base/errors.ts'
import { quoteIdent, quoteLiteral } from '../model/identifier.ts'

/**
 * Where a restore notes in the database that it builds how far it is: a schema that is called as the database, by a name
 * that was drawn for it, and that a source therefore has no other of.
 */
const tablesOf = (database: string) => ({
  schema: quoteIdent(database),
  notes: `${quoteIdent(database)}.notes`,
  /** What a crash of the server empties, as it does all unlogged tables. */
  uncrashed: `${quoteIdent(database)}.uncrashed`,
})

/**
 * What a restore has done, noted in the database that it builds, in the same transaction as the work itself: whatever
 * ends it, at whichever end, what is noted is there, and nothing else is. Another process goes on from that.
 */
export class Checkpoints {
  /** Whether this goes on from what an earlier attempt has done. */
  readonly isResumed: boolean
  /** Whether the work could be gone on with from here. */
  isResumable = false
  /** Where it is noted; undefined where it is not. */
  private tables: ReturnType<typeof tablesOf> | undefined
  private readonly known: Map<string, unknown>

  private constructor(
    known: Map<string, unknown>,
    tables: ReturnType<typeof tablesOf> | undefined,
    isResumed: boolean,
  ) {
    this.known = known
    this.tables = tables
    this.isResumed = isResumed
  }

  /** For a database that is emptied again if the restore fails: nothing is noted in it. */
  static none(): Checkpoints {
    return new Checkpoints(new Map(), undefined, false)
  }

  static async begin(client: pg.Client, database: string): Promise<Checkpoints> {
    const tables = tablesOf(database)
    await client.query(
      `CREATE SCHEMA ${tables.schema}; CREATE TABLE ${tables.notes} (key text PRIMARY KEY, value text NOT NULL);
       CREATE UNLOGGED TABLE ${tables.uncrashed} (); INSERT INTO ${tables.uncrashed} DEFAULT VALUES`,
    )
    return new Checkpoints(new Map(), tables, false)
  }

  /** What an earlier attempt has noted. */
  static async resume(client: pg.Client, database: string): Promise<Checkpoints> {
    const tables = tablesOf(database)
    const { rows } = await client.query<{ key: string; value: string }>(`SELECT key, value FROM ${tables.notes}`)
    const known = new Map(rows.map(({ key, value }): [string, unknown] => [key, JSON.parse(value)]))
    const found = new Checkpoints(known, tables, true)
    found.isResumable = true
    return found
  }

  /** What was noted under a key, or undefined. */
  get<T>(key: string, shape: z.ZodType<T>): T | undefined {
    if (!this.known.has(key)) return undefined
    const value = shape.safeParse(this.known.get(key))
    if (value.success) return value.data
    throw new WalbackError('refused', `what the interrupted restore has noted of ${key} cannot be read`, {
      hint: 'remove it with `walback restore discard`, and restore anew',
    })
  }

  has(key: string): boolean {
    return this.known.has(key)
  }

  /** Notes that something is done, in the transaction that the session is in. */
  async note(client: pg.Client, key: string, value: unknown = true): Promise<void> {
    if (this.tables) await client.query(noteSql(this.tables.notes, key, value))
    this.known.set(key, value)
  }

  /** Whether the server has crashed since, and with it went the rows of unlogged tables: those that `lost` then names are as not done. */
  async forgetLost(client: pg.Client, lost: () => Promise<readonly string[]>): Promise<void> {
    if (this.tables === undefined) return
    const { notes, uncrashed } = this.tables
    const { rows } = await client.query(`SELECT FROM ${uncrashed} LIMIT 1`)
    if (rows.length > 0) return
    const keys = (await lost()).filter((key) => this.known.has(key))
    await client.query(`DELETE FROM ${notes} WHERE key = ANY ($1)`, [keys])
    for (const key of keys) this.known.delete(key)
    await client.query(`INSERT INTO ${uncrashed} DEFAULT VALUES`)
  }

  /** Runs a statement and notes that it was run, in one transaction. The session must be in none. */
  async run(client: pg.Client, key: string, sql: string): Promise<void> {
    // On a line of its own, since a statement may end in a comment.
    await client.query(this.tables ? `${sql}\n;${noteSql(this.tables.notes, key, true)}` : sql)
    this.known.set(key, true)
  }

  /** Does something and notes that it is done, in one transaction. */
  async together<T>(
    client: pg.Client,
    key: string,
    work: () => Promise<T>,
    value: (done: T) => unknown = () => true,
  ): Promise<T> {
    await client.query('BEGIN')
    try {
      const done = await work()
      await this.note(client, key, value(done))
      await client.query('COMMIT')
      return done
    } catch (error) {
      await client.query('ROLLBACK').catch(() => undefined)
      throw error
    }
  }

  /** From here on the work can be gone on with by another. */
  async offer(client: pg.Client, about: Interrupted): Promise<void> {
    if (this.tables === undefined) return
    await client.query(aboutSql(about, true))
    this.isResumable = true
  }

  /** From here on it cannot any more: what comes next is not noted, and what was is removed. */
  async withdraw(client: pg.Client, about: Interrupted): Promise<void> {
    if (this.tables === undefined) return
    this.isResumable = false
    await client.query(aboutSql(about, false))
    await client.query(`DROP SCHEMA ${this.tables.schema} CASCADE`)
    this.tables = undefined
  }
}

const noteSql = (notes: string, key: string, value: unknown): string =>
  `INSERT INTO ${notes} VALUES (${quoteLiteral(key)}, ${quoteLiteral(plainJson(value))}) ON CONFLICT (key) DO UPDATE SET value = excluded.value`

/** In ASCII: the database may have another encoding, and comments on databases are read from others. */
const plainJson = (value: unknown): string =>
  JSON.stringify(value).replaceAll(
    /[\u007f-\uffff]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )

/** What a database under a temporary name says of itself, in its comment, which can be read from outside. */
const aboutShape = z.object({
  walback: z.literal('restore'),
  /** The name that it gets in the end. */
  into: z.string(),
  source: z.string(),
  begun: z.string(),
  resumable: z.boolean(),
})

export interface Interrupted {
  /** Its temporary name. */
  readonly database: string
  readonly into: string
  readonly source: string
  /** RFC 3339. */
  readonly begun: string
}

function aboutSql({ database, into, source, begun }: Interrupted, resumable: boolean): string {
  const about: z.infer<typeof aboutShape> = { walback: 'restore', into, source, begun, resumable }
  return `COMMENT ON DATABASE ${quoteIdent(database)} IS ${quoteLiteral(plainJson(about))}`
}

/** What the comment of a database under a temporary name says, if it says that the work on it can be gone on with. */
export function resumableOf(database: string, comment: string | null): Interrupted | undefined {
  let said: unknown
  try {
    said = JSON.parse(comment ?? '')
  } catch {
    return undefined
  }
  const about = aboutShape.safeParse(said)
  if (!about.success || !about.data.resumable) return undefined
  const { into, source, begun } = about.data
  return { database, into, source, begun }
}
