import { expect, it } from 'vitest'
import { TableQueue, type Task } from '../../src/backup/table-queue.ts'
import type { Table } from '../../src/model/catalog.ts'

const table = (oid: number, pages: number): { table: Table; look: { stamp: string; isFollowed: boolean } } => ({
  table: { oid, schema: 'public', name: `t${oid}`, columns: [], types: [], pages },
  look: { stamp: 'same', isFollowed: true },
})
const named = (task: Task | undefined): string | undefined =>
  task?.parts.map(({ work, piece }) => `${work.table.oid}.${piece.index}`).join(' ')

it('begins with the largest table, in pieces, and gathers small ones', () => {
  const queue = new TableQueue([table(1, 2), table(2, 40_000), table(3, 3), table(4, 250), table(5, 256)])
  const tasks = Array.from({ length: 7 }, () => named(queue.next(true)))
  expect(tasks).toEqual(['2.0', '2.1', '2.2', '5.0', '4.0 3.0 1.0', undefined, undefined])
})

it('goes on with what is begun when nothing more may be begun', () => {
  const queue = new TableQueue([table(1, 20_000), table(2, 20_000)])
  const first = queue.next(true)
  expect([queue.next(false), queue.next(false)].map(named)).toEqual([named(first)?.replace('.0', '.1'), undefined])
})

it('gives again what was not read, each part by itself, and nothing of a table that has changed', () => {
  const queue = new TableQueue([table(1, 1), table(2, 2), table(3, 3)])
  const task = queue.next(true) as Task
  expect(named(task)).toBe('3.0 2.0 1.0')
  queue.retry(task)
  const changed = task.parts[1]?.work
  if (changed) changed.isStale = true
  expect([queue.next(true), queue.next(true), queue.next(true)].map(named)).toEqual(['3.0', '1.0', undefined])
})
