import { chmod, readFile, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { writeConfig } from '../../cli/write-config.ts'
import { WalbackError } from '../../src/base/errors.ts'
import { parseDuration, parseSize } from '../../src/base/quantity.ts'
import { assertionsOf, type Config, configPlaces, loadConfig, parseConfig, resolveSettings } from '../../src/config.ts'
import { folder } from './walback.ts'

const complaint = (text: string, env = {}): string => {
  try {
    parseConfig(text, 'walback.yaml', env)
  } catch (error) {
    if (error instanceof WalbackError) return `${error.message} | ${error.hint}`
    throw error
  }
  return 'accepted'
}

const config = (text: string) => parseConfig(text, '/etc/walback/walback.yaml', {})

describe('a configuration', () => {
  it('is typed, with defaults', () => {
    const parsed = config(
      'version: 1\nrepositories: [./repo]\nsources:\n  app: { url: "postgres://a@h/app" }\nstream: { segment_age: 500ms, segment_size: 1 MiB }\n',
    )
    expect(parsed).toMatchObject({
      repositories: [{ url: './repo', mode: 'required' }],
      sources: { app: { url: 'postgres://a@h/app' } },
      stream: { segment_age: 500, segment_size: 1 << 20, heartbeat: 60_000 },
    })
    expect(config('version: 1\nsources: { app: }\n')).toMatchObject({
      sources: { app: {} },
      stream: { segment_age: 5000, segment_size: 8 << 20 },
      schema: { on_unseen_change: 'backup' },
      backup: { max_snapshot_age: 900_000, yield_after: 1000 },
    })
    expect(config('version: 1\nschema: { on_unseen_change: alert }\n')).toMatchObject({
      schema: { on_unseen_change: 'alert' },
    })
  })

  it.each([
    [
      'version: 1\nretention:\n  dayly: 7\n',
      'walback.yaml:3:3: unknown key "dayly" in retention | did you mean daily?',
    ],
    ['version: 1\nretention:\n  daily: 0\n', 'walback.yaml:3:10: retention.daily: at least 1'],
    ['version: 1\nrepositry: x\n', 'walback.yaml:2:1: unknown key "repositry" | did you mean repositories?'],
    [
      'version: 1\nsources:\n  app:\n    url: x\n    slot: y\n',
      'walback.yaml:5:5: unknown key "slot" in sources.app | known keys here: url, repositories',
    ],
    [
      'version: 1\nstream:\n  segment_agee: 5s\n',
      'walback.yaml:3:3: unknown key "segment_agee" in stream | did you mean segment_age?',
    ],
    [
      'version: 1\nstream: { segment_age: 5 }\n',
      'walback.yaml:2:24: stream.segment_age: a duration with its unit is needed, such as 500ms, 5s or 1m; a bare number is not taken',
    ],
    [
      'version: 1\nstream: { segment_size: 16 }\n',
      'walback.yaml:2:25: stream.segment_size: a size with its unit is needed',
    ],
    ['version: 1\nstream: { heartbeat: 2d }\n', 'walback.yaml:2:22: stream.heartbeat: out of range: from 1s to 1h'],
    [
      'version: 1\nschema: { on_unseen_changes: alert }\n',
      'walback.yaml:2:11: unknown key "on_unseen_changes" in schema | did you mean on_unseen_change?',
    ],
    [
      'version: 1\nschema: { on_unseen_change: no }\n',
      'walback.yaml:2:29: schema.on_unseen_change: one of backup, alert',
    ],
    ['version: 2\n', 'walback.yaml:1:10: version: this walback reads version 1'],
    ['repositories: [x]\n', 'walback.yaml:1:1: version: this walback reads version 1'],
    ['', 'walback.yaml:1:1: a configuration is a map'],
    ['- 1\n', 'walback.yaml:1:1: a configuration is a map'],
    ['version: 1\nversion: 1\n', 'walback.yaml:2:1: not YAML: Map keys must be unique'],
    ['version: 1\nsources: {\n', 'not YAML'],
    ['version: 1\nsources: { "a/b": {} }\n', 'walback.yaml:2:12: not a name for a source: "a/b"'],
    ['version: 1\nrepositories: ["${NOWHERE}"]\n', 'walback.yaml:2:16: the environment variable NOWHERE is not set'],
    ['version: 1\nsources: { app: { url: "" } }\n', 'walback.yaml:2:24: sources.app.url: empty; leave it out'],
  ])('%j is refused with line, column and help', (text, message) => {
    expect(complaint(text)).toContain(message)
  })

  it('takes variables in braces only, after YAML has been read, and lets them be written as themselves', () => {
    const text = 'version: 1\nrepositories: ["${ROOT}/app"]\nsources: { app: { url: "postgres://u:p$x@h/$${d}" } }\n'
    expect(parseConfig(text, 'f', { ROOT: 'a: b\n#' })).toMatchObject({
      repositories: [{ url: 'a: b\n#/app' }],
      sources: { app: { url: 'postgres://u:p$x@h/${d}' } },
    })
  })

  it('tells how much log the slot of a source may keep, and what then', () => {
    const text = 'version: 1\nsources:\n  app:\n    guard: { max_slot_wal: 5GB, on_limit: release }\n  other:\n'
    const config = parseConfig(text, 'w.yaml', {})
    const of = (source: string) => resolveSettings({ source }, config, {}).guard
    expect(of('app')).toEqual({ maxSlotWal_bytes: 5e9, onLimit: 'release' })
    expect(of('other')).toEqual({ maxSlotWal_bytes: 20e9, onLimit: 'alert' })
    expect(resolveSettings({ db: 'postgres://h/d', repo: 'r' }, undefined, {}).guard.onLimit).toBe('alert')
    const wrong = (guard: string) => () =>
      parseConfig(`version: 1\nsources:\n  app:\n    guard: ${guard}\n`, 'w.yaml', {})
    expect(wrong('{ max_slot_wal: 5 }')).toThrow(
      'w.yaml:4:28: sources.app.guard.max_slot_wal: a size with its unit is needed',
    )
    expect(wrong('{ on_limit: drop }')).toThrow('one of alert, release')
    expect(wrong('{ max_slot_wall: 5GB }')).toThrow('unknown key "max_slot_wall" in sources.app.guard')
  })

  it('says what must hold in restored databases, for one source or for all, and when that is tried', () => {
    const parse = (text: string) => parseConfig(`version: 1\n${text}`, 'walback.yaml', {})
    const config = parse(`
assertions: [{ name: all, sql: SELECT true }]
verify: { restore: {} }
sources:
  app: { assertions: [{ name: own, sql: SELECT 1, expect: 1 }] }
  other:
`)
    expect(assertionsOf(config, 'app')).toEqual([{ name: 'own', sql: 'SELECT 1', expect: 1 }])
    expect(assertionsOf(config, 'other')).toEqual([{ name: 'all', sql: 'SELECT true', expect: true }])
    expect(assertionsOf(undefined, 'app')).toEqual([])
    const settings = (of: Config) => resolveSettings({}, of, {}).rehearsal
    expect(settings(config)).toEqual({ every_ms: 7 * 86_400_000, target: 'latest' })
    expect(settings(parse('verify: { restore: { every: 1d, target: random } }'))).toEqual({
      every_ms: 86_400_000,
      target: 'random',
    })
    expect(settings(parse('verify: { every: 1d }'))).toBeUndefined()
    expect(() => parse('verify: { restore: { target: oldest } }')).toThrow(
      'walback.yaml:2:30: verify.restore.target: one of latest, random',
    )
    expect(() => parse('verify: { restore: { evry: 1d } }')).toThrow('unknown key "evry" in verify.restore')
    expect(() => parse('assertions: [{ name: a, sql: SELECT 1 }, { name: a, sql: SELECT 2 }]')).toThrow(
      'two have the same name',
    )
    expect(() => parse('assertions: [{ name: a, sql: SELECT 1, expct: 1 }]')).toThrow(
      'unknown key "expct" in assertions.0',
    )
  })

  it('say when the agent compacts, and what it does at a change of the schema', () => {
    const parse = (line: string): Config => config(`version: 1\n${line}\n`)
    const settings = (of: Config) => resolveSettings({}, of, {}).compaction
    expect(settings(parse('compact: { every: 1d }'))).toEqual({
      every_ms: 86_400_000,
      memory_bytes: 256 << 20,
      maxRate: undefined,
      onSchemaChange: 'backup',
    })
    expect(settings(parse('compact: { memory: 64MiB }'))).toBeUndefined()
    expect(() => parse('compact: { every: 1d, on_schema_change: stop }')).toThrow(
      'walback.yaml:2:41: compact.on_schema_change: one of backup, alert',
    )
    expect(() => parse('compact: { evry: 1d }')).toThrow('unknown key "evry" in compact')
  })

  it('is looked for in the documented places, and a named one must be there', async () => {
    expect(configPlaces({ HOME: '/h' }, '/w')).toEqual([
      '/w/walback.yaml',
      '/h/.config/walback/walback.yaml',
      '/etc/walback/walback.yaml',
    ])
    expect(configPlaces({ HOME: '/h', XDG_CONFIG_HOME: '/x' }, '/w')[1]).toBe('/x/walback/walback.yaml')
    await using place = await folder()
    await writeFile(path.join(place.path, 'walback.yaml'), 'version: 1\nrepositories: [here]\n')
    await writeFile(path.join(place.path, 'other.yaml'), 'version: 1\nrepositories: [there]\n')
    const cwd = place.path
    expect(await loadConfig({ env: {}, cwd })).toMatchObject({
      repositories: [{ url: 'here' }],
      file: path.join(cwd, 'walback.yaml'),
    })
    expect(await loadConfig({ env: { WALBACK_CONFIG: 'other.yaml' }, cwd })).toMatchObject({
      repositories: [{ url: 'there' }],
    })
    expect(await loadConfig({ file: 'walback.yaml', env: { WALBACK_CONFIG: 'other.yaml' }, cwd })).toMatchObject({
      repositories: [{ url: 'here' }],
    })
    await expect(loadConfig({ file: 'none.yaml', env: {}, cwd })).rejects.toThrow('cannot read the configuration')
  })

  it.each([
    ['5s', 5000],
    ['500ms', 500],
    ['1.5m', 90_000],
    ['2h', 7_200_000],
    ['5', undefined],
    ['5 parsecs', undefined],
    ['-1s', undefined],
  ])('reads the duration %s', (text, value) => {
    expect(parseDuration(text)).toBe(value)
  })

  it.each([
    ['16MiB', 16 << 20],
    ['20MB', 20e6],
    ['1.5GiB', 1.5 * 2 ** 30],
    ['10 kB', 10_000],
    ['16', undefined],
    ['16M', undefined],
  ])('reads the size %s', (text, value) => {
    expect(parseSize(text)).toBe(value)
  })
})

describe('settings', () => {
  const two = config(
    'version: 1\nrepositories: [/r]\nsources:\n  app: { url: "postgres://u@h/app" }\n  shop: { url: "postgres://u@h/shop", repositories: ["file:///s"] }\n',
  )
  const one = config('version: 1\nrepositories: [repo]\nsources: { app: { url: "postgres://u@h/app" } }\n')

  it('come from flags alone', () => {
    const settings = resolveSettings({ db: 'postgres://u@h/My App', repo: '/r' }, undefined, {})
    expect(settings).toMatchObject({
      source: undefined,
      suggested: 'My-App',
      repositories: [{ url: '/r' }],
      stream: { segmentAge_ms: 5000, segmentBytes: 8 << 20, heartbeat_ms: 60_000 },
    })
  })

  it('take the only source of a configuration, or the one named, with its own repository', () => {
    expect(resolveSettings({}, one, {})).toMatchObject({
      source: 'app',
      conninfo: { database: 'app' },
      repositories: [{ url: '/etc/walback/repo' }],
    })
    expect(resolveSettings({}, two, {})).toMatchObject({
      source: undefined,
      conninfo: undefined,
      configured: ['app', 'shop'],
    })
    expect(resolveSettings({ source: 'shop' }, two, {})).toMatchObject({
      source: 'shop',
      repositories: [{ url: 'file:///s' }],
    })
    expect(() => resolveSettings({ source: 'shap' }, two, {})).toThrow('has no source shap')
  })

  it('say what each repository is for: the first is required, others as they are told', () => {
    const text =
      'version: 1\nrepositories: [a, { url: "s3://b", name: second, mode: required }, c]\nsources: { app: { url: "postgres://u@h/app" } }\n'
    expect(resolveSettings({}, config(text), {}).repositories).toEqual([
      { name: undefined, url: '/etc/walback/a', mode: 'required' },
      { name: 'second', url: 's3://b', mode: 'required' },
      { name: undefined, url: '/etc/walback/c', mode: 'best_effort' },
    ])
  })

  it('let flags win over the environment, and that over the file', () => {
    const env = { WALBACK_DB: 'postgres://u@h/env', WALBACK_REPO: '/env' }
    expect(resolveSettings({ source: 'app' }, one, env)).toMatchObject({
      conninfo: { database: 'env' },
      repositories: [{ url: '/env' }],
    })
    expect(resolveSettings({ db: 'postgres://u@h/flag', repo: '/flag' }, one, env)).toMatchObject({
      source: undefined,
      conninfo: { database: 'flag' },
      repositories: [{ url: '/flag' }],
    })
  })

  it('take PG* where no URL is, but do not invent a database', () => {
    expect(resolveSettings({}, undefined, { PGDATABASE: 'pg', PGUSER: 'u' }).conninfo).toMatchObject({ database: 'pg' })
    expect(resolveSettings({}, undefined, {}).conninfo).toBeUndefined()
    expect(resolveSettings({}, config('version: 1\nsources: { app: }\n'), { PGUSER: 'me' })).toMatchObject({
      source: 'app',
      conninfo: { database: 'me' },
    })
  })
})

describe('writing a configuration', () => {
  const content = { source: 'app', url: 'postgres://u:p%24@h/app?x=${y}', repositoryUrl: 'file:///r' }

  it('makes a file that only its owner reads, and that reads back as it was meant', async () => {
    await using place = await folder()
    const file = path.join(place.path, 'sub', 'walback.yaml')
    expect(await writeConfig(file, content, {})).toEqual({ kind: 'written', file })
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect(parseConfig(await readFile(file, 'utf8'), file, {})).toMatchObject({
      repositories: [{ url: 'file:///r' }],
      sources: { app: { url: content.url } },
    })
    expect(await writeConfig(file, content, {})).toEqual({ kind: 'same', file })
    expect(await writeConfig(file, { ...content, repositoryUrl: '/r' }, {})).toEqual({ kind: 'same', file })
  })

  it('never touches another file, and says what it lacks', async () => {
    await using place = await folder()
    const file = path.join(place.path, 'walback.yaml')
    const before = '# mine\nversion: 1\nrepositories: [/elsewhere]\n'
    await writeFile(file, before)
    await chmod(file, 0o644)
    const writing = await writeConfig(file, content, {})
    expect(writing).toMatchObject({
      kind: 'different',
      add: 'sources:\n  app:\n    url: postgres://u:p%24@h/app?x=$${y}\n    repositories:\n      - file:///r\n',
    })
    expect(await readFile(file, 'utf8')).toBe(before)
  })
})
