import { compressBlock } from '../codec/block.ts'
import type { Table } from '../model/catalog.ts'
import type { BaseTable, ObjectReference } from '../repository/base.ts'
import { ContainerWriter } from '../repository/container.ts'
import { basePrefix } from '../repository/layout.ts'
import type { Repository } from '../repository/repository.ts'
import type { RowsTarget } from './rows.ts'

/** Where the objects of one base go. */
export class BaseStore {
  readonly repository: Repository
  readonly source: string
  readonly base: string
  /** Drawn by each process that works at the base, so that none writes what another has written. */
  readonly run: string
  private readonly signal: AbortSignal | undefined
  private count = 0

  constructor(place: {
    readonly repository: Repository
    readonly source: string
    readonly base: string
    readonly run: string
    readonly signal: AbortSignal | undefined
  }) {
    this.repository = place.repository
    this.source = place.source
    this.base = place.base
    this.run = place.run
    this.signal = place.signal
  }

  /** A key under the base for a name like `rows/16384.00000.wbr`, that no other attempt at the same thing has. */
  key(name: string): string {
    const attempt = `${this.run}-${this.count++}`
    return `${basePrefix(this.source, this.base)}${name.replace(/\.\w+$/, (end) => `.${attempt}${end}`)}`
  }

  /** Where the rows of a table go, or a piece of them. */
  rows({ oid, schema, name, columns }: BaseTable | Table, index: number): RowsTarget {
    return {
      storage: this.repository.storage,
      key: this.key(`rows/${oid}.${String(index).padStart(5, '0')}.wbr`),
      header: { kind: 'rows', schema, name, columns },
    }
  }

  async text(name: string, text: string): Promise<ObjectReference> {
    const container = new ContainerWriter()
    const parts = [container.header({ kind: 'text', name })]
    const bytes = Buffer.from(text, 'utf8')
    for (let at = 0; at < bytes.length; at += textBlockBytes) {
      parts.push(container.add(await compressBlock(bytes.subarray(at, at + textBlockBytes), 1)))
    }
    parts.push(container.end({ kind: 'text' }))
    const key = this.key(name)
    await this.repository.storage.put(key, Buffer.concat(parts), { ifAbsent: true, signal: this.signal })
    return { key, size_bytes: container.size_bytes, sha256: container.sha256 }
  }
}

const textBlockBytes = 1 << 20
