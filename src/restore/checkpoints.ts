import type pg from 'pg'
import { z } from 'zod'
import { WalbackError } from '../base/errors.ts'
import { quoteIdent, quoteLiteral } from '../model/identifier.ts'

/** Where a restore notes in the database that it builds how far it is. */
const schema = 'walback$resume'
const notes = `${quoteIdent(schema)}.notes`
/** What a crash of the server empties, as it does all unlogged tables. */
const uncrashed = `${quoteIdent(schema)}.uncrashed`

/**
 * What a restore has done, noted in the database that it builds, in the same transaction as the work itself: whatever
 * ends it, at whichever end, what is noted is there, and nothing else is. Another process goes on from that.
 */
export class Checkpoints {
  /** Whether this goes on from what an earlier attempt has done. */
  readonly isResumed: boolean
  /** Whether the work could be gone on with from here. */
  isResumable = false
  private isKept: boolean
  private readonly known: Map<string, unknown>

  private constructor(known: Map<string, unknown>, isKept: boolean, isResumed: boolean) {
    this.known = known
    this.isKept = isKept
    this.isResumed = isResumed
  }

  /** For a database that is emptied again if the restore fails: nothing is noted in it. */
  static none(): Checkpoints {
    return new Checkpoints(new Map(), false, false)
  }

  static async begin(client: pg.Client): Promise<Checkpoints> {
    await client.query(
      `CREATE SCHEMA ${quoteIdent(schema)}; CREATE TABLE ${notes} (key text PRIMARY KEY, value pg_catalog.jsonb NOT NULL);
       CREATE UNLOGGED TABLE ${uncrashed} (); INSERT INTO ${uncrashed} DEFAULT VALUES`,
    )
    return new Checkpoints(new Map(), true, false)
  }

  /** What an earlier attempt has noted. */
  static async resume(client: pg.Client): Promise<Checkpoints> {
    const { rows } = await client.query<{ key: string; value: unknown }>(`SELECT key, value FROM ${notes}`)
    const found = new Checkpoints(new Map(rows.map(({ key, value }) => [key, value])), true, true)
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
    if (this.isKept) await client.query(this.noteSql(key, value))
    this.known.set(key, value)
  }

  /** Whether the server has crashed since, and with it went the rows of unlogged tables: those that `lost` then names are as not done. */
  async forgetLost(client: pg.Client, lost: () => Promise<readonly string[]>): Promise<void> {
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
    await client.query(this.isKept ? `${sql}\n;${this.noteSql(key, true)}` : sql)
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
    if (!this.isKept) return
    await client.query(aboutSql(about, true))
    this.isResumable = true
  }

  /** From here on it cannot any more: what comes next is not noted, and what was is removed. */
  async withdraw(client: pg.Client, about: Interrupted): Promise<void> {
    if (!this.isKept) return
    this.isResumable = false
    await client.query(aboutSql(about, false))
    await client.query(`DROP SCHEMA ${quoteIdent(schema)} CASCADE`)
    this.isKept = false
  }

  private noteSql(key: string, value: unknown): string {
    return `INSERT INTO ${notes} VALUES (${quoteLiteral(key)}, ${quoteLiteral(JSON.stringify(value))}) ON CONFLICT (key) DO UPDATE SET value = excluded.value`
  }
}

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
  return `COMMENT ON DATABASE ${quoteIdent(database)} IS ${quoteLiteral(JSON.stringify(about))}`
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
