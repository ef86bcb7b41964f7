import { WalbackError } from '../base/errors.ts'
import { type Lsn, lsn } from './lsn.ts'
import { fromPostgresTime, type Micros } from './time.ts'

/**
 * pgoutput, protocol version 1: PostgreSQL manual, "Logical Replication Message Formats". Values stay the bytes that
 * the server sent; only what steers (tags, relation ids, positions, times) is taken apart.
 */
export const tags = {
  begin: 0x42, // B
  commit: 0x43, // C
  origin: 0x4f, // O
  relation: 0x52, // R
  type: 0x59, // Y
  insert: 0x49, // I
  update: 0x55, // U
  delete: 0x44, // D
  truncate: 0x54, // T
  message: 0x4d, // M
} as const

export interface BeginMessage {
  /** Start of the commit record. */
  readonly commitLsn: Lsn
  readonly commitTime: Micros
  readonly xid: number
}

export function parseBegin(b: Buffer): BeginMessage {
  return {
    commitLsn: lsn(b.readBigUInt64BE(1)),
    commitTime: fromPostgresTime(b.readBigInt64BE(9)),
    xid: b.readUInt32BE(17),
  }
}

export interface CommitMessage {
  readonly commitLsn: Lsn
  /** End of the commit record: the position that may be confirmed once the transaction is durable. */
  readonly endLsn: Lsn
  readonly commitTime: Micros
}

export function parseCommit(b: Buffer): CommitMessage {
  return {
    commitLsn: lsn(b.readBigUInt64BE(2)),
    endLsn: lsn(b.readBigUInt64BE(10)),
    commitTime: fromPostgresTime(b.readBigInt64BE(18)),
  }
}

/** How rows of a relation are told apart in updates and deletes. */
export type ReplicaIdentity = 'default' | 'nothing' | 'full' | 'index'

export interface RelationMessage {
  readonly oid: number
  readonly schema: string
  readonly name: string
  readonly identity: ReplicaIdentity
  readonly columns: readonly RelationColumn[]
}

export interface RelationColumn {
  readonly name: string
  readonly isKey: boolean
  readonly typeOid: number
  readonly typeModifier: number
}

const identities: Readonly<Record<string, ReplicaIdentity>> = { d: 'default', n: 'nothing', f: 'full', i: 'index' }

/** Relation messages carry names in the server's encoding; `decode` turns them into text. */
export function parseRelation(b: Buffer, decode: (bytes: Buffer) => string): RelationMessage {
  const cursor = new Cursor(b, 1)
  const oid = cursor.uint32()
  // An empty namespace stands for pg_catalog.
  const schema = decode(cursor.cstring()) || 'pg_catalog'
  const name = decode(cursor.cstring())
  const identity = identities[String.fromCharCode(cursor.uint8())] ?? malformed('relation')
  const columns: RelationColumn[] = []
  for (let n = cursor.uint16(); n > 0; n--) {
    const isKey = (cursor.uint8() & 1) === 1
    columns.push({ isKey, name: decode(cursor.cstring()), typeOid: cursor.uint32(), typeModifier: cursor.int32() })
  }
  return { oid, schema, name, identity, columns }
}

/** Type ids that a relation message names, without decoding names. */
export function relationTypeOids(b: Buffer): number[] {
  return parseRelation(b, () => ' ').columns.map((column) => column.typeOid)
}

/** A column's value: text as bytes, NULL, or `unchanged` (a TOASTed value that an update left alone and did not send). */
export type Value = Buffer | null | typeof unchanged
export const unchanged = Symbol('unchanged TOAST value')
export type Tuple = readonly Value[]

export type RowMessage =
  | { readonly kind: 'insert'; readonly relation: number; readonly row: Tuple }
  | { readonly kind: 'update'; readonly relation: number; readonly old: OldTuple | undefined; readonly row: Tuple }
  | { readonly kind: 'delete'; readonly relation: number; readonly old: OldTuple }

/** `key`: only key columns hold values, the others read NULL; `full`: the whole old row. */
export interface OldTuple {
  readonly kind: 'key' | 'full'
  readonly values: Tuple
}

export const isRowTag = (tag: number): boolean => tag === tags.insert || tag === tags.update || tag === tags.delete

export function parseRow(b: Buffer): RowMessage {
  const cursor = new Cursor(b, 1)
  const relation = cursor.uint32()
  const mark = cursor.uint8()
  const tag = b[0]
  if (tag === tags.insert && mark === markNew) return { kind: 'insert', relation, row: cursor.tuple() }
  if (tag === tags.update && mark === markNew) return { kind: 'update', relation, old: undefined, row: cursor.tuple() }
  if (mark !== markKey && mark !== markOld) return malformed('row')
  const old: OldTuple = { kind: mark === markKey ? 'key' : 'full', values: cursor.tuple() }
  if (tag === tags.delete) return { kind: 'delete', relation, old }
  if (tag === tags.update && cursor.uint8() === markNew) return { kind: 'update', relation, old, row: cursor.tuple() }
  return malformed('row')
}

const [markNew, markKey, markOld] = [0x4e, 0x4b, 0x4f]

export interface TruncateMessage {
  readonly cascade: boolean
  readonly restartIdentity: boolean
  readonly relations: readonly number[]
}

export function parseTruncate(b: Buffer): TruncateMessage {
  const cursor = new Cursor(b, 1)
  const count = cursor.uint32()
  const flags = cursor.uint8()
  const relations = Array.from({ length: count }, () => cursor.uint32())
  return { cascade: (flags & 1) === 1, restartIdentity: (flags & 2) === 2, relations }
}

export interface LogicalMessage {
  readonly transactional: boolean
  readonly lsn: Lsn
  readonly prefix: string
  readonly content: Buffer
}

export function parseLogicalMessage(b: Buffer): LogicalMessage {
  const cursor = new Cursor(b, 1)
  const transactional = (cursor.uint8() & 1) === 1
  const position = lsn(cursor.uint64())
  const prefix = cursor.cstring().toString('utf8')
  return { transactional, lsn: position, prefix, content: cursor.bytes(cursor.uint32()) }
}

function malformed(what: string): never {
  throw new WalbackError('corrupt', `a ${what} message of the change stream has an unknown form`)
}

class Cursor {
  private readonly b: Buffer
  private at: number
  constructor(b: Buffer, at: number) {
    this.b = b
    this.at = at
  }
  uint8(): number {
    return this.b.readUInt8(this.at++)
  }
  uint16(): number {
    this.at += 2
    return this.b.readUInt16BE(this.at - 2)
  }
  uint32(): number {
    this.at += 4
    return this.b.readUInt32BE(this.at - 4)
  }
  int32(): number {
    this.at += 4
    return this.b.readInt32BE(this.at - 4)
  }
  uint64(): bigint {
    this.at += 8
    return this.b.readBigUInt64BE(this.at - 8)
  }
  bytes(length: number): Buffer {
    if (this.at + length > this.b.length) malformed('cut')
    this.at += length
    return this.b.subarray(this.at - length, this.at)
  }
  cstring(): Buffer {
    const end = this.b.indexOf(0, this.at)
    if (end < 0) malformed('cut')
    const value = this.b.subarray(this.at, end)
    this.at = end + 1
    return value
  }
  tuple(): Tuple {
    const values: Value[] = []
    for (let n = this.uint16(); n > 0; n--) {
      const kind = this.uint8()
      if (kind === 0x74) values.push(this.bytes(this.uint32()))
      else if (kind === 0x6e) values.push(null)
      else if (kind === 0x75) values.push(unchanged)
      else malformed('tuple')
    }
    return values
  }
}
