import type pg from 'pg'
import { qualified } from '../model/identifier.ts'
import type { SequenceValue } from '../model/stream-message.ts'

/**
 * Where sequences stand; `nextval` is never in the change stream, so samples are put there. Remembers what was said of
 * each, and says what is new.
 */
export class SequenceWatch {
  private readonly known = new Map<number, string>()

  /** The sequences that moved since the last call, as far as the role may read them. */
  async moved(client: pg.Client): Promise<SequenceValue[]> {
    const { rows } = await client.query<{ oid: string; schema: string; name: string; last: string | null }>(`
      SELECT c.oid::text AS oid, s.schemaname AS schema, s.sequencename AS name, s.last_value::text AS last
      FROM pg_catalog.pg_sequences s
        JOIN pg_catalog.pg_namespace n ON n.nspname = s.schemaname
        JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = s.sequencename
      WHERE c.relpersistence = 'p'`)
    const moved: SequenceValue[] = []
    for (const row of rows) {
      if (this.known.get(Number(row.oid)) === String(row.last)) continue
      const value = { oid: Number(row.oid), schema: row.schema, name: row.name }
      const position = row.last === null ? await readSequence(client, row) : { last: row.last, called: true }
      if (position === undefined) continue
      this.known.set(value.oid, String(row.last))
      moved.push({ ...value, ...position })
    }
    return moved
  }
}

/** `pg_sequences` hides the position of a sequence that has not been called; the sequence itself tells. */
async function readSequence(
  client: pg.Client,
  sequence: { readonly schema: string; readonly name: string },
): Promise<{ last: string; called: boolean } | undefined> {
  try {
    const { rows } = await client.query<{ last: string; called: boolean }>(
      `SELECT last_value::text AS last, is_called AS called FROM ${qualified(sequence)}`,
    )
    return rows[0]
  } catch {
    // Dropped a moment ago, or not ours to read: then the base's position and the columns' values stand in.
    return undefined
  }
}
