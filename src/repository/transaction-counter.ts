import { assert } from '../base/assert.ts'
import { isLost } from '../model/ddl-message.ts'
import { nameDecoder } from '../model/encoding.ts'
import { formatLsn } from '../model/lsn.ts'
import {
  type BeginMessage,
  type CommitMessage,
  parseBegin,
  parseLogicalMessage,
  parseRelation,
  parseTruncate,
  tags,
} from '../model/pgoutput.ts'
import { type FullXid, widenXid } from '../model/snapshot.ts'
import { messagePrefix, parseStreamMessage } from '../model/stream-message.ts'
import type { TransactionEntry } from './segment-format.ts'

export interface TableName {
  readonly oid: number
  readonly schema: string
  readonly name: string
}

/** Counts what each transaction does to each table, for the trailer that `log` reads instead of the rows. */
export class TransactionCounter {
  xid: FullXid
  private readonly decode: (bytes: Buffer) => string
  private readonly names = new Map<number, TableName>()
  private tables: TableName[] = []
  private places = new Map<number, number>()
  private begin: BeginMessage | undefined
  private bytes = 0
  private counts = new Map<number, [number, number, number, number]>()
  private marks: string[] = []
  private heartbeat: TransactionEntry['heartbeat']
  private ddl: NonNullable<TransactionEntry['ddl']> = []
  private ddlCount = 0
  private dropped: { readonly identity: string } | undefined

  constructor(xid: FullXid, encoding: string) {
    this.xid = xid
    this.decode = nameDecoder(encoding)
  }

  /** Counts what follows of a message whose first part was counted. */
  more(message: Buffer): void {
    this.bytes += message.length
  }

  count(tag: number, message: Buffer): void {
    this.bytes += message.length
    if (tag === tags.insert) this.of(message.readUInt32BE(1))[0]++
    else if (tag === tags.update) this.of(message.readUInt32BE(1))[1]++
    else if (tag === tags.delete) this.of(message.readUInt32BE(1))[2]++
    else if (tag === tags.truncate) for (const oid of parseTruncate(message).relations) this.of(oid)[3]++
    else if (tag === tags.begin) this.start(message)
    else if (tag === tags.relation) this.declare(message)
    else if (tag === tags.message) this.ours(message)
  }

  /** Takes a relation's name from its message, and does not count it. */
  declare(message: Buffer): void {
    const { oid, schema, name } = parseRelation(message, this.decode)
    this.names.set(oid, { oid, schema, name })
  }

  /** The trailer's entry of the transaction that this commit ends; `block` is where it begins. */
  finish(commit: CommitMessage, block: number): TransactionEntry {
    assert(this.begin !== undefined, 'a transaction ends that began')
    return {
      xid: this.xid.toString(),
      commit: formatLsn(commit.commitLsn),
      end: formatLsn(commit.endLsn),
      time: commit.commitTime.toString(),
      bytes: this.bytes,
      block,
      counts: [...this.counts].map(([oid, counts]) => [this.place(oid), ...counts]),
      ...(this.ddlCount > 0 ? { ddl: this.ddl, ddlCount: this.ddlCount } : {}),
      ...(this.marks.length > 0 ? { marks: this.marks } : {}),
      ...(this.heartbeat === undefined ? {} : { heartbeat: this.heartbeat }),
    }
  }

  /** The tables that entries since the last call refer to by place. */
  takeTables(): TableName[] {
    const taken = this.tables
    this.tables = []
    this.places = new Map()
    return taken
  }

  private start(message: Buffer): void {
    this.begin = parseBegin(message)
    this.xid = widenXid(this.begin.xid, this.xid)
    this.bytes = message.length
    this.counts = new Map()
    this.marks = []
    this.heartbeat = undefined
    this.ddl = []
    this.ddlCount = 0
  }

  private ours(message: Buffer): void {
    const { prefix, content } = parseLogicalMessage(message)
    const said = prefix === messagePrefix ? parseStreamMessage(content, this.decode) : undefined
    if (said?.kind === 'mark') this.marks.push(said.name)
    else if (said?.kind === 'heartbeat') {
      const { from, snapshot, sequences, catalog } = said
      this.heartbeat = { from, snapshot, sequences, ...(catalog === undefined ? {} : { catalog }) }
    } else if (said?.kind === 'ddl') {
      const object = said.objects.find(({ identity }) => identity !== null) ?? this.dropped
      const isUnsure = said.unknownRows.length > 0
      this.command({ tag: said.tag, object: object?.identity ?? null, ...(isUnsure ? { unsure: 'rows' } : {}) })
      this.dropped = undefined
    } else if (said?.kind === 'ddl-dropped') this.dropped = said.objects.find(({ original }) => original)
    else if (said?.kind === 'ddl-failed' && isLost(said.event))
      this.command({ tag: said.tag, object: null, unsure: 'all' })
    else if (said?.kind === 'ddl-failed' && said.event === 'rows')
      this.command({ tag: said.tag, object: null, unsure: 'rows' })
  }

  /** The first hundred are named, and of the others those that are not followed exactly. */
  private command(command: NonNullable<TransactionEntry['ddl']>[number]): void {
    this.ddlCount++
    if (this.ddl.length < 100 || command.unsure !== undefined) this.ddl.push(command)
  }

  private of(oid: number): [number, number, number, number] {
    let counts = this.counts.get(oid)
    if (counts === undefined) {
      counts = [0, 0, 0, 0]
      this.counts.set(oid, counts)
    }
    return counts
  }

  private place(oid: number): number {
    let place = this.places.get(oid)
    if (place === undefined) {
      place = this.tables.length
      this.tables.push(this.names.get(oid) ?? { oid, schema: '', name: `relation ${oid}` })
      this.places.set(oid, place)
    }
    return place
  }
}
