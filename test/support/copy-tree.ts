import { constants } from 'node:fs'
import { copyFile, mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf } from '../../src/base/errors.ts'
import { forEachParallel } from '../../src/base/parallel.ts'

/** libuv has four threads for file work unless told otherwise; a few more jobs keep them busy. */
const lanes = 8

/**
 * Copies a tree of plain files under a running server: what vanishes meanwhile is left out, as PostgreSQL's manual
 * allows a base backup to do. `keep` sees each path relative to the top; a folder it refuses is not made. Links are not
 * followed. Blocks are shared where the file system can.
 */
export async function copyTree(from: string, to: string, keep: (path: string) => boolean = () => true): Promise<void> {
  const files: string[] = []
  const walk = async (path: string): Promise<void> => {
    await mkdir(join(to, path), { recursive: true, mode: 0o700 })
    const entries = await readdir(join(from, path), { withFileTypes: true }).catch(unlessGone)
    for (const entry of entries ?? []) {
      const inner = join(path, entry.name)
      if (!keep(inner)) continue
      if (entry.isDirectory()) await walk(inner)
      else if (entry.isFile()) files.push(inner)
    }
  }
  await walk('')
  await forEachParallel(files, lanes, async (path) => {
    await copyFile(join(from, path), join(to, path), constants.COPYFILE_FICLONE).catch(unlessGone)
  })
}

function unlessGone(error: unknown): undefined {
  if (codeOf(error) !== 'ENOENT') throw error
}
