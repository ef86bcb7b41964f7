import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { codeOf, messageOf } from '../base/errors.ts'
import { quoteIdent, quoteLiteral } from '../model/identifier.ts'
import type { BaseManifest } from '../repository/base.ts'
import { readContainer } from '../repository/container.ts'
import type { Repository } from '../repository/repository.ts'
import { splitLine } from './copy-text.ts'

/** Makes the base's large objects anew under their ids, with owners, rights and comments. */
export async function restoreLargeObjects(
  client: pg.Client,
  repository: Repository,
  stored: BaseManifest['largeObjects'],
  options: { readonly onWarning: (warning: string) => void; readonly signal?: AbortSignal | undefined },
): Promise<void> {
  const { onWarning, signal } = options
  for (const { oid } of stored.objects) await client.query(`SELECT pg_catalog.lo_create(${oid})`)
  for (const reference of stored.data) {
    for await (const part of readContainer(repository.storage, reference, signal)) {
      if (part.kind === 'block') await writePages(client, part.raw, signal)
    }
  }
  for (const { oid, owner, acl, comment } of stored.objects) {
    if (comment) await client.query(`COMMENT ON LARGE OBJECT ${oid} IS ${quoteLiteral(comment)}`)
    // Each by itself: a role that is missing takes nothing from the others.
    const rights = [
      ...acl.flatMap((item) => grants(oid, item)),
      `ALTER LARGE OBJECT ${oid} OWNER TO ${quoteIdent(owner)}`,
    ]
    for (const statement of rights) {
      try {
        await client.query(statement)
      } catch (error) {
        if (codeOf(error) !== '42704' && codeOf(error) !== '42501') throw error
        onWarning(`left out (${messageOf(error)}): ${statement}`)
      }
    }
  }
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

/** One item of an ACL, such as `alice=rw/owner`: r SELECT, w UPDATE, a star for the grant option. */
function grants(oid: number, item: string): string[] {
  const match = /^("(?:[^"]|"")*"|[^=]*)=([rw*]*)\//.exec(item)
  if (!match) return []
  const name = (match[1] ?? '').replace(/^"|"$/g, '').replaceAll('""', '"')
  const to = name === '' ? 'PUBLIC' : quoteIdent(name)
  return [...(match[2] ?? '').matchAll(/([rw])(\*?)/g)].map(
    ([, right, option]) =>
      `GRANT ${right === 'r' ? 'SELECT' : 'UPDATE'} ON LARGE OBJECT ${oid} TO ${to}${option ? ' WITH GRANT OPTION' : ''}`,
  )
}
