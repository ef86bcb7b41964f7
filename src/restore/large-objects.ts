import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { quoteLiteral } from '../model/identifier.ts'
import { rightsInAcl } from '../postgres/acl-item.ts'
import type { BaseManifest } from '../repository/base.ts'
import { readContainer } from '../repository/container.ts'
import type { Repository } from '../repository/repository.ts'
import type { Checkpoints } from './checkpoints.ts'
import { splitLine } from './copy-text.ts'
import type { Roles } from './roles.ts'

/** Makes the base's large objects anew under their ids, with owners, rights and comments. */
export async function restoreLargeObjects(
  client: pg.Client,
  repository: Repository,
  stored: BaseManifest['largeObjects'],
  options: { readonly roles: Roles; readonly points: Checkpoints; readonly signal?: AbortSignal | undefined },
): Promise<void> {
  const { roles, points, signal } = options
  if (!points.has('large objects')) {
    if (points.isResumed) await removeAll(client)
    for (const { oid } of stored.objects) await client.query(`SELECT pg_catalog.lo_create(${oid})`)
    for (const reference of stored.data) {
      for await (const part of readContainer(repository.storage, { ...reference, kind: 'large objects' }, signal)) {
        if (part.kind === 'block') await writePages(client, part.raw, signal)
      }
    }
    await points.note(client, 'large objects')
  }
  for (const { oid, owner, acl, comment } of stored.objects) {
    if (comment) await client.query(`COMMENT ON LARGE OBJECT ${oid} IS ${quoteLiteral(comment)}`)
    const object = `LARGE OBJECT ${oid}`
    // What the owner may do comes with it.
    for (const { role, letter, grantable } of acl.flatMap(rightsInAcl).filter((right) => right.role !== owner)) {
      const right = letter === 'r' ? 'SELECT' : 'UPDATE'
      const option = grantable ? ' WITH GRANT OPTION' : ''
      await roles.give(client, 'grant', role, (name) => `GRANT ${right} ON ${object} TO ${name}${option}`)
    }
    await roles.give(client, 'owner', owner, (name) => `ALTER ${object} OWNER TO ${name}`)
  }
}

/** What an earlier attempt has made of them. One at a time, since each takes a lock. */
async function removeAll(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ oid: string }>(
    'SELECT oid::text AS oid FROM pg_catalog.pg_largeobject_metadata',
  )
  for (const { oid } of rows) await client.query('SELECT pg_catalog.lo_unlink($1::oid)', [oid])
}

/** Lines of (object, byte offset, bytes as `\\x…`; the backslash is doubled in COPY's text). */
async function writePages(client: pg.Client, lines: Buffer, signal: AbortSignal | undefined): Promise<void> {
  // One transaction for a block, since each page by itself would be one.
  await client.query('BEGIN')
  for (let start = 0; start < lines.length; ) {
    throwIfAborted(signal)
    const end = lines.indexOf(10, start)
    const [oid, offset, data] = splitLine(lines.subarray(start, end))
    const bytes = Buffer.from((data ?? Buffer.alloc(0)).toString('latin1').replace(/^\\\\x/, ''), 'hex')
    if (bytes.length > 0)
      await client.query('SELECT pg_catalog.lo_put($1::oid, $2::bigint, $3)', [
        oid?.toString(),
        offset?.toString(),
        bytes,
      ])
    start = end + 1
  }
  await client.query('COMMIT')
}
