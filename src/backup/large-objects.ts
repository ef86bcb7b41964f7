import type pg from 'pg'
import type { LargeObject } from '../model/catalog.ts'
import { largeObjectDataSql, readLargeObjects } from '../postgres/catalog.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { openRowSession } from '../postgres/row-session.ts'
import type { ObjectReference } from '../repository/base.ts'
import type { BaseStore } from './base-store.ts'
import { storeRows } from './rows.ts'
import type { HeldSnapshot } from './snapshot.ts'

/** Stores the large objects as the base's last snapshot sees them: the stream does not follow them. */
export async function storeLargeObjects(
  conninfo: Conninfo,
  leader: pg.Client,
  held: HeldSnapshot,
  store: BaseStore,
  options: { readonly before: () => Promise<void>; readonly signal: AbortSignal | undefined },
): Promise<{ objects: LargeObject[]; data: ObjectReference[] }> {
  const { signal } = options
  const objects = await readLargeObjects(leader)
  if (objects.length === 0) return { objects, data: [] }
  await options.before()
  const sql = `COPY (${await largeObjectDataSql(leader)}) TO STDOUT`
  const worker = await openRowSession(conninfo, signal === undefined ? {} : { signal })
  try {
    await worker.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
    await worker.query(`SET TRANSACTION SNAPSHOT '${held.exported}'`)
    const target = {
      storage: store.repository.storage,
      key: store.key('large-objects/00000.wbr'),
      header: { kind: 'large objects' },
    }
    const { key, size_bytes, sha256 } = await storeRows(worker, sql, target, { signal })
    return { objects, data: [{ key, size_bytes, sha256 }] }
  } finally {
    await worker.end().catch(() => undefined)
  }
}
