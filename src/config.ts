/** The typed configuration: `walback.yaml`, the environment's shortcuts and the command line's flags, made one. */
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { type Document, isMap, isScalar, LineCounter, parseDocument, visit } from 'yaml'
import { z } from 'zod'
import { codeOf, messageOf, WalbackError } from './base/errors.ts'
import { nearest } from './base/nearest.ts'
import { duration, size } from './base/quantity.ts'
import { type CompactSettings, compactSettings, compactShape } from './compact/settings.ts'
import { type Conninfo, resolveConninfo } from './postgres/conninfo.ts'
import { type EncryptionSettings, encryptionSettings, encryptionShape, withFilesFrom } from './repository/access.ts'
import { checkSourceName, suggestSourceName } from './repository/layout.ts'
import { type RetentionSettings, retentionSettings, retentionShape } from './retention/settings.ts'
import { placesIn, type RepositoryPlace, repositoriesShape } from './storage/places.ts'
import { type Assertion, assertionShape } from './throwaway/assertions.ts'
import {
  type RehearsalSettings,
  rehearsalSettings,
  rehearsalShape,
  type VerifySettings,
  verifySettings,
  verifyShape,
} from './verify/settings.ts'

export type { CompactSettings, RehearsalSettings, VerifySettings }

export type Env = Readonly<Record<string, string | undefined>>

/** What to do when the slot keeps more log than it may: say so, or drop it, so that the server's disk cannot fill. */
export const slotLimitPolicies = ['alert', 'release'] as const
export type SlotLimitPolicy = (typeof slotLimitPolicies)[number]

const guardShape = z.strictObject({
  max_slot_wal: size('16MiB', '100TB').prefault('20GB'),
  on_limit: z.enum(slotLimitPolicies, `one of ${slotLimitPolicies.join(', ')}`).default('alert'),
})

/** What must hold in every database that is restored to be verified. */
const assertionsShape = z
  .array(assertionShape)
  .refine((all) => new Set(all.map(({ name }) => name)).size === all.length, 'two have the same name')

const sourceShape = z.strictObject({
  /** A libpq URI or key=value string; without it PG* variables say where. */
  url: z.string().min(1, 'empty; leave it out to use the PG* environment').optional(),
  repositories: repositoriesShape.optional(),
  encryption: encryptionShape.optional(),
  guard: guardShape.optional(),
  assertions: assertionsShape.optional(),
})

const streamShape = z.strictObject({
  segment_age: duration('100ms', '1h').prefault('5s'),
  segment_size: size('64KiB', '512MiB').prefault('8MiB'),
  heartbeat: duration('1s', '1h').prefault('60s'),
})

/** What to do about a change of the schema of which the stream does not tell: take a base, or say so and no more. */
export const unseenChangePolicies = ['backup', 'alert'] as const
export type UnseenChangePolicy = (typeof unseenChangePolicies)[number]

const schemaShape = z.strictObject({
  on_unseen_change: z.enum(unseenChangePolicies, `one of ${unseenChangePolicies.join(', ')}`).default('backup'),
})

const backupShape = z.strictObject({
  max_snapshot_age: duration('1s', '1d').prefault('15m'),
  /** Bytes of rows a second. */
  max_rate: size('64KiB', '100GB').optional(),
  yield_after: duration('100ms', '1h').prefault('1s'),
})

const configShape = z.strictObject({
  version: z.literal(1, 'this walback reads version 1'),
  repositories: repositoriesShape.optional(),
  encryption: encryptionShape.optional(),
  sources: z
    .record(
      z.string(),
      sourceShape.nullable().transform((source) => source ?? {}),
    )
    .default({}),
  stream: streamShape.prefault({}),
  schema: schemaShape.prefault({}),
  backup: backupShape.prefault({}),
  retention: retentionShape.prefault({}),
  /** How often the agent brings the other repositories up to the first. */
  copy_every: duration('1s', '30d').prefault('5m'),
  verify: verifyShape.prefault({}),
  compact: compactShape.prefault({}),
  assertions: assertionsShape.default([]),
})

export type Config = z.infer<typeof configShape> & { readonly file: string | undefined }

/** Parses the text of a configuration; errors name the file, the line and the column. */
export function parseConfig(text: string, file: string, env: Env): Config {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false })
  const fail = (message: string, offset: number | undefined, hint?: string): never => {
    const at = offset === undefined ? { line: 1, col: 1 } : lines.linePos(offset)
    throw new WalbackError('usage', `${file}:${at.line}:${at.col}: ${message}`, {
      hint:
        hint ??
        'keys: version, repositories, copy_every, encryption (key_file, passphrase, passphrase_file, fingerprint), sources (url, repositories, encryption, guard (max_slot_wal, on_limit), assertions (name, sql, expect)), stream (segment_age, segment_size, heartbeat), schema (on_unseen_change), backup (max_snapshot_age, max_rate, yield_after), retention (window, last, within, daily, weekly, monthly, yearly, mode, prune_every), verify (enabled, every, read_subset, max_rate, restore (every, target)), compact (every, memory, max_rate, on_schema_change), assertions',
      facts: { file, line: at.line, column: at.col },
    })
  }
  const broken = document.errors[0]
  if (broken)
    fail(
      `not YAML: ${broken.message}`,
      broken.pos[0],
      'check the indentation, and quote values with special characters',
    )
  if (!isMap(document.contents)) fail('a configuration is a map that begins with `version: 1`', 0)
  expandVariables(document, env, fail)
  const parsed = configShape.safeParse(document.toJS())
  if (!parsed.success) {
    const issue = parsed.error.issues[0]
    if (issue?.code === 'unrecognized_keys') refuseKey(document, issue.path, issue.keys[0] ?? '', fail)
    const place = issue?.path ?? []
    const message =
      issue?.code === 'invalid_type' && issue.input === undefined ? `${place.join('.')} is missing` : issue?.message
    fail(`${place.length > 0 ? `${place.join('.')}: ` : ''}${message}`, offsetOf(document, place))
  }
  const config = parsed.data as Config
  for (const name of Object.keys(config.sources)) {
    try {
      checkSourceName(name)
    } catch (error) {
      fail(
        messageOf(error),
        keyOffset(document, ['sources'], name),
        error instanceof WalbackError ? error.hint : undefined,
      )
    }
  }
  return { ...config, file }
}

type Fail = (message: string, offset: number | undefined, hint?: string) => never
type Path = readonly PropertyKey[]

const nodeAt = (document: Document, place: Path): unknown =>
  place.length === 0 ? document.contents : document.getIn(place, true)

/** Where a value starts, or its nearest ancestor that is there. */
function offsetOf(document: Document, place: Path): number | undefined {
  for (let length = place.length; length >= 0; length--) {
    const node = nodeAt(document, place.slice(0, length))
    if (typeof node === 'object' && node !== null && 'range' in node) return (node.range as [number] | undefined)?.[0]
  }
  return undefined
}

function keyOffset(document: Document, place: Path, key: string): number | undefined {
  const map = nodeAt(document, place)
  if (!isMap(map)) return offsetOf(document, place)
  const found = map.items.find((pair) => isScalar(pair.key) && String(pair.key.value) === key)?.key
  return isScalar(found) ? found.range?.[0] : offsetOf(document, place)
}

function refuseKey(document: Document, place: Path, key: string, fail: Fail): never {
  const sections = {
    encryption: encryptionShape,
    sources: sourceShape,
    stream: streamShape,
    schema: schemaShape,
    backup: backupShape,
    verify: verifyShape,
    compact: compactShape,
    retention: retentionShape,
    assertions: assertionShape,
  }
  const inSource = { guard: guardShape, encryption: encryptionShape, assertions: assertionShape }
  const inVerify = place[0] === 'verify' && place[1] === 'restore' ? rehearsalShape : undefined
  const shape =
    inVerify ??
    inSource[place[2] as keyof typeof inSource] ??
    sections[place[0] as keyof typeof sections] ??
    configShape
  const known = Object.keys(shape.shape)
  const meant = nearest(key, known)
  const where = place.length === 0 ? '' : ` in ${place.join('.')}`
  return fail(
    `unknown key ${JSON.stringify(key)}${where}`,
    keyOffset(document, place, key),
    meant === undefined ? `known keys here: ${known.join(', ')}` : `did you mean ${meant}?`,
  )
}

/** `${VAR}` in values; after parsing, so that no value can change the structure. `$${VAR}` stands for itself. */
function expandVariables(document: Document, env: Env, fail: Fail): void {
  visit(document, {
    Scalar(key, node) {
      if (key === 'key' || typeof node.value !== 'string') return
      node.value = node.value.replace(/(\$?)\$\{([^}]*)\}/g, (whole, escape: string, name: string) => {
        if (escape === '$') return whole.slice(1)
        const value = env[name]
        if (value !== undefined) return value
        return fail(
          `the environment variable ${name} is not set`,
          node.range?.[0],
          `export ${name}, or write $\${${name}} for the text itself`,
        )
      })
    },
  })
}

/** Where a configuration is looked for when no flag names one, first found first. */
export function configPlaces(env: Env, cwd: string): string[] {
  const home = env['XDG_CONFIG_HOME'] || (env['HOME'] ? path.join(env['HOME'], '.config') : undefined)
  return [
    path.join(cwd, 'walback.yaml'),
    ...(home === undefined ? [] : [path.join(home, 'walback', 'walback.yaml')]),
    '/etc/walback/walback.yaml',
  ]
}

/** Reads the configuration: the named one, which must be there, or the first of the usual places, or none. */
export async function loadConfig(options: {
  readonly file?: string | undefined
  readonly env: Env
  readonly cwd: string
  /** The named file is about to be written, so it may be absent. */
  readonly mayBeNew?: boolean
}): Promise<Config | undefined> {
  const { env, cwd } = options
  const named = options.file ?? (env['WALBACK_CONFIG'] || undefined)
  for (const place of named === undefined ? configPlaces(env, cwd) : [path.resolve(cwd, named)]) {
    const text = await readIfThere(place, named === undefined || options.mayBeNew === true)
    if (text !== undefined) return parseConfig(text, place, env)
  }
  return undefined
}

export async function readIfThere(file: string, mayBeAbsent: boolean): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    if (mayBeAbsent && ['ENOENT', 'ENOTDIR'].includes(codeOf(error) ?? '')) return undefined
    throw new WalbackError('usage', `cannot read the configuration ${file}: ${messageOf(error)}`, {
      cause: error,
      hint: 'check -c or WALBACK_CONFIG, and the rights on the file',
    })
  }
}

export interface StreamSettings {
  readonly segmentBytes: number
  readonly segmentAge_ms: number
  readonly heartbeat_ms: number
}

export const streamSettings = (config: Config | undefined): StreamSettings => {
  const { segment_age, segment_size, heartbeat } = config?.stream ?? streamShape.parse({})
  return { segmentBytes: segment_size, segmentAge_ms: segment_age, heartbeat_ms: heartbeat }
}

export interface GuardSettings {
  readonly maxSlotWal_bytes: number
  readonly onLimit: SlotLimitPolicy
}

const guardSettings = (given: z.infer<typeof guardShape> | undefined): GuardSettings => {
  const { max_slot_wal, on_limit } = given ?? guardShape.parse({})
  return { maxSlotWal_bytes: max_slot_wal, onLimit: on_limit }
}

/** How base backups hold back, as `takeBase` takes it. */
export interface BackupSettings {
  readonly maxSnapshotAge_ms: number
  readonly yieldAfter_ms: number
  readonly maxRate: number | undefined
}

const backupSettings = (config: Config | undefined): BackupSettings => {
  const { max_snapshot_age, yield_after, max_rate } = config?.backup ?? backupShape.parse({})
  return { maxSnapshotAge_ms: max_snapshot_age, yieldAfter_ms: yield_after, maxRate: max_rate }
}

/** What must hold in a source's restored databases: its own list, or else what is said for all. */
export const assertionsOf = (config: Config | undefined, source: string): readonly Assertion[] =>
  config?.sources[source]?.assertions ?? config?.assertions ?? []

/** What the command line says of where things are. */
export interface Flags {
  readonly source?: string | undefined
  readonly db?: string | undefined
  readonly repo?: string | undefined
  readonly keyFile?: string | undefined
}

/** What flags, environment and configuration come to; what nobody said is undefined. */
export interface Effective {
  /** Named by a flag, or the configuration's only one. */
  readonly source: string | undefined
  /** What the database suggests as a name, where a flag or the environment names a database. */
  readonly suggested: string | undefined
  /** Every name that the configuration has. */
  readonly configured: readonly string[]
  readonly conninfo: Conninfo | undefined
  /** The connection string as it was given; undefined when PG* variables say where. */
  readonly url: string | undefined
  /** The first is the one that is written to. Undefined where nobody said. */
  readonly repositories: readonly RepositoryPlace[] | undefined
  readonly copyEvery_ms: number
  readonly encryption: EncryptionSettings
  readonly stream: StreamSettings
  readonly backup: BackupSettings
  readonly onUnseenChange: UnseenChangePolicy
  readonly guard: GuardSettings
  readonly retention: RetentionSettings
  /** Undefined: never. */
  readonly verify: VerifySettings | undefined
  /** Undefined: never. */
  readonly rehearsal: RehearsalSettings | undefined
  /** Undefined: never. */
  readonly compaction: CompactSettings | undefined
}

/** Flags over environment over configuration. A flag for both database and repository leaves the configuration's sources aside. */
export function resolveSettings(flags: Flags, config: Config | undefined, env: Env): Effective {
  const db = flags.db ?? (env['WALBACK_DB'] || undefined)
  const repo = flags.repo ?? (env['WALBACK_REPO'] || undefined)
  const configured = Object.keys(config?.sources ?? {})
  const standsAlone = db !== undefined && repo !== undefined
  const source =
    flags.source !== undefined
      ? checkSourceName(flags.source)
      : !standsAlone && configured.length === 1
        ? configured[0]
        : undefined
  const entry = source === undefined ? undefined : config?.sources[source]
  const knownOnlyElsewhere =
    flags.source !== undefined && entry === undefined && configured.length > 0 && db === undefined && repo === undefined
  if (knownOnlyElsewhere) {
    throw new WalbackError('usage', `the configuration ${config?.file} has no source ${flags.source}`, {
      hint: `it has ${configured.join(', ')}`,
    })
  }
  const url = db ?? entry?.url
  const inFile = placesIn([entry, config], config?.file)
  const repositories = repo === undefined ? inFile : [{ name: undefined, url: repo, mode: 'required' as const }]
  const isConfigured = repo === undefined || inFile?.some((place) => place.url === repo) === true
  const own = entry?.encryption ?? config?.encryption
  const ofFile = own && withFilesFrom(path.dirname(config?.file ?? ''), own)
  const conninfo =
    url !== undefined || entry !== undefined || namesDatabase(env) ? resolveConninfo(url ?? '', env) : undefined
  return {
    source,
    suggested: conninfo === undefined ? undefined : suggestSourceName(conninfo.database),
    configured,
    conninfo,
    url,
    repositories,
    copyEvery_ms: config?.copy_every ?? configShape.shape.copy_every.parse(undefined),
    // What a configuration says of a key is said of its own repositories.
    encryption: encryptionSettings(flags.keyFile, env, isConfigured ? ofFile : undefined),
    stream: streamSettings(config),
    backup: backupSettings(config),
    onUnseenChange: config?.schema.on_unseen_change ?? 'backup',
    guard: guardSettings(entry?.guard),
    retention: retentionSettings(config?.retention),
    verify: verifySettings(config?.verify),
    rehearsal: rehearsalSettings(config?.verify),
    compaction: compactSettings(config?.compact),
  }
}

const namesDatabase = (env: Env): boolean =>
  ['PGHOST', 'PGHOSTADDR', 'PGPORT', 'PGDATABASE', 'PGSERVICE', 'PGUSER'].some((name) => env[name])
