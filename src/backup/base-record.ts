import type { BaseBeginning, StoredTable } from '../repository/base-progress.ts'
import { writeBeginning, writeStoredTables } from '../repository/base-progress.ts'
import type { BaseStore } from './base-store.ts'

/** Keeps a durable record of what is done, now and then, so that an interruption costs no more than that. */
export class BaseRecord {
  private readonly store: BaseStore
  private waiting: StoredTable[] = []
  private waitingBytes = 0
  private since_ms = performance.now()
  private count = 0
  private writing: Promise<void> = Promise.resolve()

  constructor(store: BaseStore) {
    this.store = store
  }

  async begin(beginning: BaseBeginning): Promise<void> {
    await writeBeginning(this.store.repository, this.store.source, beginning)
  }

  async add(table: StoredTable): Promise<void> {
    this.waiting.push(table)
    this.waitingBytes += table.raw_bytes
    const isDue =
      this.waiting.length >= most.tables ||
      this.waitingBytes >= most.bytes ||
      performance.now() - this.since_ms >= most.age_ms
    if (isDue) await this.flush()
  }

  /** Writes what is not written yet. */
  async flush(): Promise<void> {
    const tables = this.waiting
    this.waiting = []
    this.waitingBytes = 0
    this.since_ms = performance.now()
    if (tables.length > 0) this.writing = this.writing.then(() => this.write(tables))
    await this.writing
  }

  private async write(tables: readonly StoredTable[]): Promise<void> {
    const { repository, source, base, run } = this.store
    const name = `${run}-${String(this.count++).padStart(6, '0')}`
    await writeStoredTables(repository, { source, base, name }, tables)
  }
}

/** What an interruption may cost: so many small tables, or bytes, or so much time. */
const most = { tables: 1000, bytes: 32 << 20, age_ms: 15_000 }
