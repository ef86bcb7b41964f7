import type { BaseManifest } from '../repository/base.ts'
import type { DiskNeed } from './disk-need.ts'
import { notEmptyHint } from './empty-database.ts'
import type { RolePlan } from './role-plan.ts'
import type { TargetFacts } from './target-facts.ts'

/**
 * What is found of a target: `fails` is what a restore would fail at, `may-fail` what it fails at unless the server is
 * another than it says, `differs` what would be otherwise afterwards.
 */
export interface TargetFinding {
  readonly level: 'fails' | 'may-fail' | 'differs'
  readonly code:
    | 'standby'
    | 'no-createdb'
    | 'no-createrole'
    | 'not-empty'
    | 'older-major'
    | 'newer-major'
    | 'extension-missing'
    | 'extension-rights'
    | 'extension-version'
    | 'locale-missing'
    | 'locale-provider'
    | 'encoding'
    | 'collation'
    | 'tablespace-missing'
    | 'disk'
  readonly message: string
  readonly hint: string
}

export interface CheckedTarget {
  readonly facts: TargetFacts
  readonly roles: RolePlan
  /** Whether a database is made, and not one used that is there. */
  readonly isNew: boolean
  /** The extensions that the schema makes. */
  readonly extensions: ReadonlySet<string>
  /** Those that were made after the base: the stream makes them, and may have dropped them again. */
  readonly laterExtensions: ReadonlySet<string>
  readonly need: DiskNeed
  /** What a database that is there and is not empty holds. */
  readonly contents: string | undefined
}

/** Compares a base with the server that it is to be restored on. Pure. */
export function checkTarget(base: BaseManifest, target: CheckedTarget): TargetFinding[] {
  const found = [
    ...checkRights(target),
    ...checkVersion(base, target),
    ...checkExtensions(base, target),
    ...checkDatabase(base, target),
    ...checkRoom(base, target),
  ]
  const order = ['fails', 'may-fail', 'differs']
  return found.sort((a, b) => order.indexOf(a.level) - order.indexOf(b.level))
}

const finding = (
  level: TargetFinding['level'],
  code: TargetFinding['code'],
  message: string,
  hint: string,
): TargetFinding => ({ level, code, message, hint })

function* checkRights({ facts, roles, isNew, contents }: CheckedTarget): Generator<TargetFinding> {
  if (facts.isStandby)
    yield finding('fails', 'standby', 'the server is a standby, and takes no writes', 'name its primary')
  if (isNew && !facts.mayCreateDatabase)
    yield finding(
      'fails',
      'no-createdb',
      `role ${facts.restorer} may not make databases`,
      'give it CREATEDB, or have an empty database made and name that with --into-url',
    )
  if (roles.create.size > 0 && !facts.mayCreateRole)
    yield finding(
      'fails',
      'no-createrole',
      `role ${facts.restorer} may not make roles`,
      'restore as a role with CREATEROLE, or without --create-roles',
    )
  if (contents !== undefined) yield finding('fails', 'not-empty', contents, notEmptyHint)
}

function* checkVersion(base: BaseManifest, { facts }: CheckedTarget): Generator<TargetFinding> {
  const [from, to] = [majorOf(base.serverVersion), majorOf(facts.serverVersion)]
  if (to < from)
    yield finding(
      'may-fail',
      'older-major',
      `the server is PostgreSQL ${to}, and the source was ${from}: what only ${from} knows makes it fail`,
      `restore on PostgreSQL ${from} or later`,
    )
  if (to > from)
    yield finding(
      'differs',
      'newer-major',
      `the server is PostgreSQL ${to}, and the source was ${from}`,
      'read what its release notes say of incompatibilities',
    )
}

export const majorOf = (version: number): number => Math.floor(version / 10_000)

function* checkExtensions(
  base: BaseManifest,
  { facts, extensions, laterExtensions }: CheckedTarget,
): Generator<TargetFinding> {
  const available = facts.extensions
  if (available === undefined) return
  const recorded = new Map(base.extensions?.map(({ name, version }) => [name, version]))
  for (const name of [...extensions, ...laterExtensions]) {
    const there = available.get(name)
    const version = recorded.get(name)
    if (there === undefined)
      yield finding(
        extensions.has(name) ? 'fails' : 'may-fail',
        'extension-missing',
        `the server does not have extension ${name}${version === undefined ? '' : ` (${version} in the source)`}`,
        'install it on the server: extensions are files there, and come as packages of the system',
      )
    else if (there.needsSuperuser && !facts.isSuperuser)
      yield finding(
        'may-fail',
        'extension-rights',
        `only a superuser can make extension ${name}, unless the server's provider lets others`,
        'restore as a superuser',
      )
    if (there !== undefined && version !== undefined && there.version !== version)
      yield finding(
        'differs',
        'extension-version',
        `extension ${name} will be ${there.version}, and was ${version}`,
        'read what has changed in it',
      )
  }
}

function* checkDatabase(base: BaseManifest, { facts, isNew }: CheckedTarget): Generator<TargetFinding> {
  const { encoding, collate, provider, locale } = base.database
  if (!isNew && facts.database !== undefined) {
    if (facts.database.encoding !== encoding)
      yield finding(
        facts.database.encoding === 'UTF8' && encoding !== 'SQL_ASCII' ? 'differs' : 'may-fail',
        'encoding',
        `the database has encoding ${facts.database.encoding}, and the source ${encoding}: text is converted, and what cannot be fails the restore`,
        'let a new database be made: it gets the encoding of the source',
      )
    if (facts.database.collate !== collate)
      yield finding(
        'differs',
        'collation',
        `the database sorts as ${facts.database.collate}, and the source as ${collate}`,
        'let a new database be made: it sorts as the source',
      )
    return
  }
  if (facts.localeRefusal !== undefined)
    yield finding(
      'fails',
      'locale-missing',
      `the server does not have the locale of the source, ${collate}: ${facts.localeRefusal}`,
      'install the locale on the server, or make an empty database with another one and name it with --into-url',
    )
  const name = provider === 'i' ? 'ICU' : 'built-in'
  const least = provider === 'i' ? 150_000 : provider === 'b' ? 170_000 : 0
  if (facts.serverVersion < least)
    yield finding(
      'differs',
      'locale-provider',
      `the source sorts by the ${name} locale ${locale ?? ''}, which databases can from PostgreSQL ${majorOf(least)} on: here by the C library's ${collate}`,
      `restore on PostgreSQL ${majorOf(least)} or later`,
    )
  else if (provider === 'i' && !facts.hasIcu)
    yield finding(
      'fails',
      'locale-provider',
      'the server was built without ICU, by which the source sorts',
      'restore on one that has it',
    )
}

function* checkRoom(base: BaseManifest, { facts, need }: CheckedTarget): Generator<TargetFinding> {
  const lacking = (base.notCarried?.tablespaces ?? []).filter((name) => !facts.tablespaces.has(name))
  if (lacking.length > 0)
    yield finding(
      'differs',
      'tablespace-missing',
      `the server does not have tablespaces ${lacking.join(', ')}: what was in them goes where everything else does`,
      'make them first',
    )
  const { free } = facts
  if (free.bytes !== undefined && free.bytes < need.tables_bytes + need.indexes_bytes)
    yield finding(
      'may-fail',
      'disk',
      `${free.path} has less free than what is restored takes, as far as that is known`,
      'make room; a restore that finds the disk full removes what it had made',
    )
}
