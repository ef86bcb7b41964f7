import { existsSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { version } from '../src/base/version.ts'

/** The floors, from the ground up; biome.json says the same, import by import, and this follows them where they lead. */
const floors: readonly (readonly string[])[] = [
  ['src/base', 'src/model'],
  ['src/postgres', 'src/storage', 'src/codec'],
  ['src/repository'],
  ['src/backup', 'src/capture', 'src/restore', 'src/history', 'src/retention', 'src/verify', 'src/copy'],
  ['src/compact', 'src/swap', 'src/throwaway', 'src/undo'],
  ['src/index.ts', 'src/config.ts'],
  ['agent', 'cli', 'web'],
]
const root = path.resolve(import.meta.dirname, '..')
const face = ['src/index.ts', 'src/config.ts']

/** What a file may import besides its own folder: lower floors, and of src only the face from the top floor. */
function mayImport(from: string, to: string): boolean {
  const [own, other] = [unitOf(from), unitOf(to)]
  if (own === other) return true
  if (own === 'src/model' && other === 'src/base') return true
  if (own === 'src/index.ts' && other === 'src/config.ts') return true
  if (own === 'src/repository' && other === 'src/postgres') return false
  if (own === 'cli' && other === 'agent') return true
  if (floorOf(own) === floors.length - 1) return face.includes(other)
  return floorOf(other) < floorOf(own)
}

/** The folder or file that stands on a floor. */
function unitOf(file: string): string {
  const unit = floors.flat().find((name) => file === name || file.startsWith(`${name}/`))
  if (unit === undefined) throw new Error(`${file} stands on no floor`)
  return unit
}

const floorOf = (unit: string): number => floors.findIndex((floor) => floor.includes(unit))

const sources = filesBelow('src', 'agent', 'cli', 'web').map((file) => ({
  file,
  text: readFileSync(path.join(root, file), 'utf8'),
}))

function filesBelow(...folders: string[]): string[] {
  return folders
    .filter((folder) => existsSync(path.join(root, folder)))
    .flatMap((folder) =>
      readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
        .map((name) => path.posix.join(folder, name.replaceAll('\\', '/')))
        .filter((file) => /\.(ts|tsx|mjs|js)$/.test(file) && !file.includes('/node_modules/')),
    )
}

/** Paths of ours that a file imports, statically or not, as types or as values. */
function importsOf(file: string, text: string): string[] {
  const found = text.matchAll(/(?:\bfrom|\bimport|\bimport\s*\(|new URL\()\s*['"](\.[^'"]*)['"]/g)
  return [...found].map(([, target]) => path.posix.join(path.posix.dirname(file), target as string))
}

describe('the tree', () => {
  test('every source file stands on a floor', () => {
    expect(sources.map(({ file }) => unitOf(file)).every((unit) => floorOf(unit) >= 0)).toBe(true)
  })

  test('imports lead down, and never to a sibling', () => {
    const wrong = sources.flatMap(({ file, text }) =>
      importsOf(file, text)
        .filter((target) => target !== 'package.json' && !mayImport(file, target))
        .map((target) => `${file} imports ${target}`),
    )
    expect(wrong).toEqual([])
  })

  test('the rule itself bites', () => {
    expect(mayImport('src/repository/x.ts', 'src/postgres/y.ts')).toBe(false)
    expect(mayImport('src/base/x.ts', 'src/model/y.ts')).toBe(false)
    expect(mayImport('src/codec/x.ts', 'src/storage/y.ts')).toBe(false)
    expect(mayImport('src/restore/x.ts', 'src/backup/y.ts')).toBe(false)
    expect(mayImport('src/capture/x.ts', 'src/index.ts')).toBe(false)
    expect(mayImport('cli/x.ts', 'src/restore/y.ts')).toBe(false)
    expect(mayImport('agent/x.ts', 'cli/y.ts')).toBe(false)
    expect(mayImport('cli/x.ts', 'src/index.ts')).toBe(true)
    expect(mayImport('src/restore/x.ts', 'src/postgres/y.ts')).toBe(true)
    expect(
      importsOf('src/a/x.ts', "export type { T } from '../b/y.ts'\nawait import('./z.ts')\nimport './w.ts'"),
    ).toEqual(['src/b/y.ts', 'src/a/z.ts', 'src/a/w.ts'])
  })

  test('no file is longer than a sitting', () => {
    const long = sources.filter(({ text }) => text.split('\n').length - 1 > 400).map(({ file }) => file)
    expect(long).toEqual([])
  })

  test('nothing is left to be done', () => {
    const marker = new RegExp(`\\b(${['TO', 'DO'].join('')}|${['FIX', 'ME'].join('')}|XXX)\\b`)
    const left = sources.filter(({ text }) => marker.test(text)).map(({ file }) => file)
    expect(left).toEqual([])
  })

  test('the version is the one of package.json', () => {
    const manifest: { version: string } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'))
    expect(version).toBe(manifest.version)
  })
})
