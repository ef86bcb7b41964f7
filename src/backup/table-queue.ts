import type { Table } from '../model/catalog.ts'
import type { TableLook } from '../postgres/table-looks.ts'
import type { StoredRows } from './rows.ts'

/** A table on its way into a base under one snapshot. */
export interface TableWork {
  readonly table: Table
  /** What it looks like under the snapshot. */
  readonly look: TableLook
  readonly pieces: readonly Piece[]
  readonly stored: StoredRows[]
  /** How often other sessions have come between. */
  interruptions: number
  /** It does not look any more as it does under the snapshot: nothing more of it can be read under that. */
  isStale: boolean
}

export interface Piece {
  readonly index: number
  /** Heap pages [first, next); the last piece of a table has no end, for pages added since. */
  readonly pages: { readonly first: number; readonly next: number | undefined } | undefined
}

/** What one transaction reads: a piece of a table, or several small tables. */
export interface Task {
  readonly parts: readonly { readonly work: TableWork; readonly piece: Piece }[]
}

/** 128 MiB. */
const pagesPerPiece = 16_384
/** Small tables share a transaction, whose statements cost more than their rows do. */
const batch = { tables: 64, pages: 256 }

export function planPieces(pages: number): Piece[] {
  if (pages <= pagesPerPiece) return [{ index: 0, pages: undefined }]
  const count = Math.ceil(pages / pagesPerPiece)
  return Array.from({ length: count }, (_, index) => ({
    index,
    pages: { first: index * pagesPerPiece, next: index === count - 1 ? undefined : (index + 1) * pagesPerPiece },
  }))
}

/** Hands out what there is to read, the largest tables first, so that no worker is left with one at the end. */
export class TableQueue {
  private readonly works: TableWork[]
  private readonly begun: Task[] = []

  constructor(tables: readonly { readonly table: Table; readonly look: TableLook }[]) {
    this.works = tables
      .map(({ table, look }) => ({ table, look, pieces: planPieces(table.pages) }))
      .map((work): TableWork => ({ ...work, stored: [], interruptions: 0, isStale: false }))
      .sort((a, b) => a.table.pages - b.table.pages)
  }

  /** The next task; `mayBegin`: of a table of which nothing has been read yet, too. */
  next(mayBegin: boolean): Task | undefined {
    for (;;) {
      const task = this.begun.shift() ?? (mayBegin ? this.begin() : undefined)
      if (task === undefined) return undefined
      const parts = task.parts.filter(({ work }) => !work.isStale)
      if (parts.length > 0) return { parts }
    }
  }

  /** Puts parts back that were not read, each by itself. */
  retry(task: Task): void {
    for (const part of task.parts) this.begun.push({ parts: [part] })
  }

  private begin(): Task | undefined {
    const work = this.works.pop()
    if (work === undefined) return undefined
    const [first, ...more] = work.pieces.map((piece): Task => ({ parts: [{ work, piece }] })) as [Task, ...Task[]]
    this.begun.push(...more)
    if (more.length > 0) return first
    const parts = [...first.parts]
    let pages = work.table.pages
    while (parts.length < batch.tables) {
      const small = this.works.at(-1)
      if (small === undefined || pages + small.table.pages > batch.pages) break
      this.works.pop()
      pages += small.table.pages
      parts.push({ work: small, piece: small.pieces[0] as Piece })
    }
    return { parts }
  }
}
