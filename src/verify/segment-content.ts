import { WalbackError } from '../base/errors.ts'
import { isRowTag, parseCommit, tags } from '../model/pgoutput.ts'
import { fullXid } from '../model/snapshot.ts'
import { readRecords } from '../repository/record.ts'
import type { SegmentHeader, SegmentTrailer, TransactionEntry } from '../repository/segment-format.ts'
import { TransactionCounter } from '../repository/transaction-counter.ts'

/**
 * Holds a segment's records against its trailer: that it names the transactions that are there, with the rows by table
 * and operation that `log` shows of them and the blocks that they begin in, and that it ends where it says.
 */
export class SegmentContent {
  private readonly key: string
  private readonly counter: TransactionCounter
  private readonly trailer: SegmentTrailer
  private block = -1
  private begun: number | undefined
  private transactions = 0
  private isInside = false
  private firstWrong: string | undefined

  constructor(key: string, header: SegmentHeader, trailer: SegmentTrailer) {
    this.key = key
    this.trailer = trailer
    this.counter = new TransactionCounter(fullXid(BigInt(header.xid)), header.encoding)
  }

  /** The next block, of the parts first. */
  add(raw: Buffer, items: number): void {
    this.block++
    let records = 0
    for (const { message, part } of readRecords(raw)) {
      records++
      if (message.length === 0) throw this.damaged(`block ${this.block} holds an empty record`)
      const tag = message[0] as number
      if (part === 'middle' || part === 'last') this.continue(message, part)
      else if (part === 'first' && !isRowTag(tag)) throw this.damaged('a message that is no row is divided')
      else if (tag === tags.relation) this.counter.declare(message)
      else this.take(tag, message, part === 'first')
    }
    if (records !== items)
      throw this.damaged(`block ${this.block} holds ${records} records, and its head says ${items}`)
  }

  /** After the last block. */
  end(): void {
    if (this.isInside || this.begun !== undefined) throw this.damaged('it ends inside a transaction')
    if (this.firstWrong !== undefined) throw this.damaged(this.firstWrong)
    const named = this.trailer.transactions.length
    if (named !== this.transactions)
      throw this.damaged(`it holds ${this.transactions} transactions, and its trailer names ${named}`)
  }

  private continue(message: Buffer, part: 'middle' | 'last'): void {
    if (!this.isInside) throw this.damaged('a message lacks its beginning')
    this.counter.more(message)
    this.isInside = part === 'middle'
  }

  private take(tag: number, message: Buffer, goesOn: boolean): void {
    if (this.isInside) throw this.damaged('a message lacks its end')
    if (tag === tags.begin) {
      if (this.begun !== undefined) throw this.damaged('a transaction begins inside another')
      this.begun = this.block
    } else if (this.begun === undefined) {
      // Only messages that were not transactional come between transactions; the trailer does not tell of them.
      if (tag !== tags.message) throw this.damaged('a change lies outside of transactions')
      return
    }
    this.counter.count(tag, message)
    this.isInside = goesOn
    if (tag === tags.commit) this.commit(message)
  }

  private commit(message: Buffer): void {
    const found = this.counter.finish(parseCommit(message), this.begun ?? 0)
    this.begun = undefined
    const named = this.trailer.transactions[this.transactions++]
    const tables = this.counter.takeTables()
    if (named === undefined || this.firstWrong !== undefined) return
    const [ours, theirs] = [essence(found, tables), essence(named, this.trailer.tables)]
    if (ours !== theirs)
      this.firstWrong = `its trailer says of tx:${found.xid} what its records do not: ${theirs}, not ${ours}`
  }

  private damaged(what: string): WalbackError {
    return new WalbackError('corrupt', `${this.key} is damaged: ${what}`)
  }
}

/**
 * What every version has said of a transaction; the order of tables is not part of it. Nor is its length: a relation's
 * message that was put in again does not count, and cannot be told from the one that came.
 */
function essence(entry: TransactionEntry, tables: SegmentTrailer['tables']): string {
  const counts = entry.counts.map(([place, ...rows]) => {
    const { oid, schema, name } = tables[place] ?? { oid: 0, schema: '', name: '' }
    return [oid, schema, name, ...rows].join(' ')
  })
  const { xid, commit, end, time, block, marks = [] } = entry
  const beat = entry.heartbeat === undefined ? [] : [entry.heartbeat.from, entry.heartbeat.snapshot]
  return JSON.stringify([xid, commit, end, time, block, counts.sort(), marks, beat])
}
