import { assert } from '../base/assert.ts'
import type { DdlMessage } from '../model/ddl-message.ts'
import { nameDecoder } from '../model/encoding.ts'
import {
  isRowTag,
  parseLogicalMessage,
  parseRelation,
  parseRow,
  parseTruncate,
  type RelationMessage,
  type RowMessage,
  tags,
} from '../model/pgoutput.ts'
import { messagePrefix, parseStreamMessage } from '../model/stream-message.ts'
import { MessageReader } from './record.ts'

/** A change in the stream, rows under the form of the relation that they were made with. */
export type Change =
  | { readonly kind: 'row'; readonly relation: RelationMessage; readonly row: RowMessage }
  | { readonly kind: 'truncate'; readonly relations: readonly RelationMessage[] }
  | { readonly kind: 'ddl'; readonly message: DdlMessage }
  | { readonly kind: 'commit' }

/** Walks the records of blocks, and takes apart what its heir wants of them. */
export abstract class ChangeReader {
  private readonly relations = new Map<number, RelationMessage>()
  private readonly decode: (bytes: Buffer) => string
  private reader = new MessageReader()

  /** `encoding`: the server's. */
  constructor(encoding: string) {
    this.decode = nameDecoder(encoding)
  }

  /** A transaction begins, with this message. */
  protected abstract begin(message: Buffer): void
  /** It ends; true if that is to be told. */
  protected abstract commit(): boolean
  /** Whether changes of this relation are wanted now. */
  protected abstract isWanted(oid: number): boolean
  /** Whether what walback itself has said is. */
  protected abstract readonly wantsMessages: boolean

  /** Whether a message lacks its end. */
  protected get isInside(): boolean {
    return this.reader.isInside
  }

  /** What comes next is another segment. `mayBeginInside`: or blocks from the midst of one. */
  protected startAnew(options: { readonly mayBeginInside?: boolean } = {}): void {
    this.reader = new MessageReader(options)
  }

  *changes(block: Buffer): Generator<Change> {
    for (const message of this.reader.messages(block)) {
      const tag = message[0] as number
      if (isRowTag(tag)) {
        const oid = message.readUInt32BE(1)
        if (this.isWanted(oid)) yield { kind: 'row', relation: this.relation(oid), row: parseRow(message) }
      } else if (tag === tags.relation) {
        this.relations.set(message.readUInt32BE(1), parseRelation(message, this.decode))
      } else if (tag === tags.begin) this.begin(message)
      else if (tag === tags.commit) {
        if (this.commit()) yield { kind: 'commit' }
      } else if (tag === tags.truncate) {
        const relations = parseTruncate(message).relations.filter((oid) => this.isWanted(oid))
        if (relations.length > 0) yield { kind: 'truncate', relations: relations.map((oid) => this.relation(oid)) }
      } else if (tag === tags.message && this.wantsMessages) {
        const said = this.said(message)
        if (said) yield { kind: 'ddl', message: said }
      }
    }
  }

  private said(message: Buffer): DdlMessage | undefined {
    const { prefix, content } = parseLogicalMessage(message)
    if (prefix !== messagePrefix || content.length === 0) return undefined
    const said = parseStreamMessage(content, this.decode)
    const isNone = said === undefined || said.kind === 'mark' || said.kind === 'heartbeat' || said.kind === 'canary'
    return isNone ? undefined : said
  }

  private relation(oid: number): RelationMessage {
    const relation = this.relations.get(oid)
    assert(relation !== undefined, `relation ${oid} is declared before its rows`)
    return relation
  }
}
