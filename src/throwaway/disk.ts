import { statfs } from 'node:fs/promises'
import { WalbackError } from '../base/errors.ts'
import { embeddedRoot } from '../postgres/embedded.ts'
import type { RestorePlan } from '../restore/plan.ts'

/** What a restore takes on a disk, about: rows with their headers, indexes, the server's log, and the server itself. */
export const neededDisk_bytes = ({ base, bytes }: Pick<RestorePlan, 'base' | 'bytes'>): number =>
  Math.round(base.raw_bytes * rowsOnDisk + bytes.segments * streamOnDisk) + serverAlone_bytes

/** Text of rows becomes about as much in tables, and as much again in indexes; the log may hold a part of it twice. */
const rowsOnDisk = 2.5
/** The stream is stored compressed, and not all that it holds is still there in the end. */
const streamOnDisk = 4
/** An empty cluster has 40 MB, and the log may grow to `max_wal_size` before it is used again. */
const serverAlone_bytes = 400e6

/** Refuses what the disk of temporary folders has no room for, before anything is written to it. */
export async function requireDisk(plans: readonly RestorePlan[]): Promise<void> {
  const folder = await embeddedRoot()
  const { bavail, bsize } = await statfs(folder)
  const free_bytes = bavail * bsize
  const needed_bytes = plans.reduce((sum, plan) => sum + neededDisk_bytes(plan), 0)
  if (free_bytes >= needed_bytes) return
  throw new WalbackError(
    'prerequisite',
    `a throwaway server needs about ${inMegabytes(needed_bytes)} in ${folder}, where ${inMegabytes(free_bytes)} are free`,
    {
      hint: 'set TMPDIR to a folder with more room, or give --on postgres://… of a server that has it',
      facts: { folder, needed_bytes, free_bytes },
    },
  )
}

const inMegabytes = (bytes: number): string => `${Math.ceil(bytes / 1e6)} MB`
