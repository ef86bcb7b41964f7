/**
 * Writes pgoutput messages of protocol version 1 from the manual's "Logical Replication Message Formats", so that tests
 * can make streams without a server. Knows nothing of src/model/pgoutput.ts.
 */
export interface ColumnSpec {
  readonly name: string
  readonly key?: boolean
  readonly type?: number
  readonly modifier?: number
}

/** Text, NULL, or a TOASTed value that the server did not send again. */
export type Cell = string | Buffer | null | 'unchanged'[]
export const toasted: 'unchanged'[] = ['unchanged']

const text = (value: string): Buffer => Buffer.from(`${value}\0`)
const u8 = (value: number): Buffer => Buffer.of(value)
const tag = (letter: string): Buffer => Buffer.from(letter, 'latin1')

function u16(value: number): Buffer {
  const b = Buffer.alloc(2)
  b.writeUInt16BE(value)
  return b
}

function u32(value: number): Buffer {
  const b = Buffer.alloc(4)
  b.writeUInt32BE(value >>> 0)
  return b
}

function u64(value: bigint): Buffer {
  const b = Buffer.alloc(8)
  b.writeBigUInt64BE(BigInt.asUintN(64, value))
  return b
}

/** `time` in microseconds since 2000. */
export const begin = (commitLsn: bigint, time: bigint, xid: number): Buffer =>
  Buffer.concat([tag('B'), u64(commitLsn), u64(time), u32(xid)])

export const commit = (commitLsn: bigint, endLsn: bigint, time: bigint): Buffer =>
  Buffer.concat([tag('C'), u8(0), u64(commitLsn), u64(endLsn), u64(time)])

export const origin = (lsn: bigint, name: string): Buffer => Buffer.concat([tag('O'), u64(lsn), text(name)])

export const type = (oid: number, schema: string, name: string): Buffer =>
  Buffer.concat([tag('Y'), u32(oid), text(schema), text(name)])

export function relation(
  oid: number,
  schema: string,
  name: string,
  columns: readonly ColumnSpec[],
  identity: 'd' | 'n' | 'f' | 'i' = 'd',
): Buffer {
  const described = columns.map((column) =>
    Buffer.concat([u8(column.key ? 1 : 0), text(column.name), u32(column.type ?? 25), u32(column.modifier ?? -1)]),
  )
  return Buffer.concat([tag('R'), u32(oid), text(schema), text(name), tag(identity), u16(columns.length), ...described])
}

function tuple(cells: readonly Cell[]): Buffer {
  const parts = cells.map((cell) => {
    if (cell === null) return tag('n')
    if (Array.isArray(cell)) return tag('u')
    const bytes = Buffer.from(cell as string)
    return Buffer.concat([tag('t'), u32(bytes.length), bytes])
  })
  return Buffer.concat([u16(cells.length), ...parts])
}

export const insert = (oid: number, row: readonly Cell[]): Buffer =>
  Buffer.concat([tag('I'), u32(oid), tag('N'), tuple(row)])

/** `old` with the mark that tells a key (`K`) from a whole old row (`O`). */
export function update(oid: number, row: readonly Cell[], old?: readonly ['K' | 'O', readonly Cell[]]): Buffer {
  const before = old === undefined ? [] : [tag(old[0]), tuple(old[1])]
  return Buffer.concat([tag('U'), u32(oid), ...before, tag('N'), tuple(row)])
}

export const remove = (oid: number, old: readonly ['K' | 'O', readonly Cell[]]): Buffer =>
  Buffer.concat([tag('D'), u32(oid), tag(old[0]), tuple(old[1])])

export const truncate = (oids: readonly number[], flags = 0): Buffer =>
  Buffer.concat([tag('T'), u32(oids.length), u8(flags), ...oids.map(u32)])

export const message = (transactional: boolean, lsn: bigint, prefix: string, content: Buffer): Buffer =>
  Buffer.concat([tag('M'), u8(transactional ? 1 : 0), u64(lsn), text(prefix), u32(content.length), content])
