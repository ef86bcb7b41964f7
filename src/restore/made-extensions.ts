import { fullXid, isVisible, parseSnapshot } from '../model/snapshot.ts'
import type { BaseManifest } from '../repository/base.ts'
import type { DdlOfNote } from './not-restored.ts'

/** Names of the extensions that were made after a base: its schema does not name them, and a replay makes them. */
export function madeExtensions(base: Pick<BaseManifest, 'snapshot'>, ddl: readonly DdlOfNote[]): string[] {
  const snapshot = parseSnapshot(base.snapshot)
  const made = ddl.filter(({ tag, xid }) => makesExtension(tag) && !isVisible(fullXid(BigInt(xid)), snapshot))
  return [...new Set(made.flatMap(({ object }) => (object === null ? [] : [unquoted(object)])))]
}

export const makesExtension = (tag: string): boolean => tag === 'CREATE EXTENSION'

/** The server gives identities as SQL writes them. */
const unquoted = (identity: string): string =>
  identity.startsWith('"') ? identity.slice(1, -1).replaceAll('""', '"') : identity
