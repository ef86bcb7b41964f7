/**
 * The programs that tests start as processes of their own, compiled once before all tests: started from their source,
 * each would first be compiled anew, which takes longer than most of what they are started for. It is also how an
 * installed walback runs.
 */
import { execFile } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'

const root = fileURLToPath(new URL('../..', import.meta.url))
const folder = path.join(root, 'node_modules', '.cache', 'walback-compiled')

/** The program made of a source file, named from the top of the tree. */
export const compiled = (source: string): string => path.join(folder, source.replace(/\.ts$/, '.js'))

/** Vitest's globalSetup. Types are for `npm run types` to check. */
export async function setup(): Promise<void> {
  const tsc = path.join(path.dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin', 'tsc')
  const options = ['--noCheck', '--incremental', '--rootDir', root, '--outDir', folder]
  await mkdir(folder, { recursive: true })
  await writeFile(path.join(folder, 'package.json'), '{ "type": "module" }\n')
  await promisify(execFile)(process.execPath, [tsc, '-p', root, ...options])
}

/** A plugin of vite's by which a module takes itself for its compiled form, and starts the programs beside that one. */
export const startsCompiled = (source: string) => ({
  name: `starts compiled programs: ${source}`,
  transform: (code: string, id: string) =>
    path.relative(root, id) === path.normalize(source)
      ? code.replaceAll('import.meta.url', JSON.stringify(pathToFileURL(compiled(source)).href))
      : undefined,
})

/** A plugin of vite's by which clusters are copies of one that initdb made (`copied-cluster.ts`). */
export const copiesClusters = {
  name: 'copies clusters',
  enforce: 'pre' as const,
  resolveId: (imported: string, importer: string | undefined) =>
    imported === './embedded-initdb.ts' && importer === path.join(root, 'src/postgres/embedded.ts')
      ? path.join(root, 'test/support/copied-cluster.ts')
      : undefined,
}
