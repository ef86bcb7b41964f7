import fc from 'fast-check'
import * as write from '../model/messages.ts'

/**
 * Change streams as a server sends them, made up: whole transactions one after the other, each relation declared before
 * its first row and again after it changed, and messages that are not transactional in between.
 */
export interface Sent {
  readonly message: Buffer
  /** The relation messages in force that this message's rows rely on. */
  readonly relies: ReadonlyMap<number, Buffer>
}

/** What is true of a transaction, counted while it was made up. */
export interface Truth {
  readonly xid: bigint
  readonly commit: bigint
  readonly end: bigint
  /** By table: inserts, updates, deletes, truncates. */
  readonly counts: ReadonlyMap<number, readonly number[]>
  readonly marks: readonly string[]
  readonly bytes: number
  /** Its place among the messages, with that of its commit. */
  readonly first: number
  readonly last: number
}

export interface Stream {
  readonly sent: readonly Sent[]
  readonly transactions: readonly Truth[]
}

type Step =
  | { readonly kind: 'insert' | 'update' | 'delete'; readonly table: number; readonly text: string }
  | { readonly kind: 'truncate'; readonly tables: readonly number[] }
  | { readonly kind: 'alter'; readonly table: number }
  | { readonly kind: 'mark'; readonly name: string }
  | { readonly kind: 'type' }

export interface Plan {
  readonly firstXid: bigint
  readonly transactions: readonly {
    readonly xidStep: bigint
    readonly steps: readonly Step[]
    readonly loose: readonly string[]
  }[]
}

const table = fc.integer({ min: 1, max: 4 })
const text = fc.oneof(
  fc.string({ maxLength: 10 }),
  fc.integer({ min: 0, max: 400 }).map((length) => 'x'.repeat(length)),
)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constantFrom('insert' as const, 'update' as const, 'delete' as const),
      table,
      text,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('truncate' as const), tables: fc.uniqueArray(table, { minLength: 1 }) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('alter' as const), table }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('mark' as const), name: fc.string({ maxLength: 5 }) }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'type' as const }) },
)

export const plan: fc.Arbitrary<Plan> = fc.record({
  firstXid: fc.oneof(
    fc.bigInt({ min: 3n, max: 1n << 34n }),
    fc.bigInt({ min: (1n << 32n) - 5n, max: (1n << 32n) + 5n }),
  ),
  transactions: fc.array(
    fc.record({
      // Commits are not in the order of ids.
      xidStep: fc.bigInt({ min: -2n, max: 4n }),
      steps: fc.array(step, { maxLength: 25 }),
      loose: fc.array(text, { maxLength: 2 }),
    }),
    { minLength: 1, maxLength: 8 },
  ),
})

/** Writes the plan out as the server would. */
export function streamOf({ firstXid, transactions }: Plan): Stream {
  const server = new Server()
  let xid = firstXid
  for (const { xidStep, steps, loose } of transactions) {
    for (const content of loose) server.loose(content)
    xid = xid + xidStep > 2n ? xid + xidStep : xid
    server.transaction(xid, steps)
  }
  return { sent: server.sent, transactions: server.transactions }
}

class Server {
  readonly sent: Sent[] = []
  readonly transactions: Truth[] = []
  private readonly versions = new Map<number, number>()
  private readonly declared = new Map<number, Buffer>()
  private at = 0x1000n

  loose(content: string): void {
    this.send(write.message(false, this.at, 'other', Buffer.from(content)))
  }

  transaction(xid: bigint, steps: readonly Step[]): void {
    const first = this.sent.length
    const commit = this.at + 0x1000n
    const end = commit + 0x30n
    const counts = new Map<number, number[]>()
    const marks: string[] = []
    const count = (oid: number, place: number): void => {
      const counted = counts.get(oid) ?? [0, 0, 0, 0]
      counts.set(oid, counted)
      counted[place] = (counted[place] as number) + 1
    }
    this.send(write.begin(commit, 0n, Number(xid % (1n << 32n))))
    for (const step of steps) this.step(step, count, marks)
    this.send(write.commit(commit, end, 0n))
    const bytes = this.sent.slice(first).reduce((sum, { message }) => sum + message.length, 0)
    this.transactions.push({ xid, commit, end, counts, marks, bytes, first, last: this.sent.length - 1 })
    this.at = end
  }

  private step(step: Step, count: (oid: number, place: number) => void, marks: string[]): void {
    if (step.kind === 'alter') {
      this.versions.set(step.table, (this.versions.get(step.table) ?? 1) + 1)
      this.declared.delete(step.table)
    } else if (step.kind === 'type') this.send(write.type(99, 'public', 'mood'))
    else if (step.kind === 'mark') {
      marks.push(step.name)
      this.send(
        write.message(true, this.at, 'walback', Buffer.from(JSON.stringify({ v: 1, kind: 'mark', name: step.name }))),
      )
    } else if (step.kind === 'truncate') {
      this.send(write.truncate(step.tables), this.relies(step.tables))
      for (const oid of step.tables) count(oid, 3)
    } else {
      const { table: oid, text: value } = step
      const relies = this.relies([oid])
      const row = Array.from({ length: this.versions.get(oid) ?? 1 }, () => value)
      if (step.kind === 'insert') this.send(write.insert(oid, row), relies)
      else if (step.kind === 'update') this.send(write.update(oid, row, ['K', row]), relies)
      else this.send(write.remove(oid, ['K', row]), relies)
      count(oid, ['insert', 'update', 'delete'].indexOf(step.kind))
    }
  }

  /** Declares what has not been declared since it changed. */
  private relies(oids: readonly number[]): Map<number, Buffer> {
    return new Map(
      oids.map((oid) => {
        let known = this.declared.get(oid)
        if (known === undefined) {
          const columns = Array.from({ length: this.versions.get(oid) ?? 1 }, (_, n) => ({
            name: `c${n}`,
            key: n === 0,
          }))
          known = write.relation(oid, 'public', `t${oid}`, columns)
          this.declared.set(oid, known)
          this.send(known)
        }
        return [oid, known]
      }),
    )
  }

  private send(message: Buffer, relies: ReadonlyMap<number, Buffer> = new Map()): void {
    this.sent.push({ message, relies })
  }
}
