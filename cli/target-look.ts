import {
  type Conninfo,
  type LookOptions,
  lookAtTarget as look,
  messageOf,
  type Repository,
  type RestorePlan,
  type TargetFinding,
  type TargetLook,
  WalbackError,
} from '../src/index.ts'
import type { Context } from './context.ts'
import { bytes, printable } from './format.ts'
import { rolesInWords, rolesJson } from './roles.ts'

/** What was found of a target, or why it could not be looked at; a plan can be made without it. */
export type Looked = TargetLook | string

export async function lookAtTarget(
  { signal }: Context,
  repository: Repository,
  plan: RestorePlan,
  destination: { readonly conninfo: Conninfo; readonly database: string },
  options: LookOptions,
): Promise<Looked> {
  const { conninfo } = destination
  const patient = { ...conninfo, connectTimeout_s: conninfo.connectTimeout_s || lookTimeout_s }
  try {
    return await look(repository, plan, { ...destination, conninfo: patient }, { ...options, signal })
  } catch (error) {
    if (error instanceof WalbackError && error.code === 'database') return messageOf(error)
    throw error
  }
}

const lookTimeout_s = 10

/** The lines of a plan about its target, each under its name. */
export function lookInWords(looked: Looked | undefined): (readonly [name: string, line: string])[] {
  if (looked === undefined) return []
  if (typeof looked === 'string') return [['server', `not looked at: ${printable(looked)}`]]
  const { facts, roles, findings } = looked
  const of = (level: TargetFinding['level']) => findings.filter((finding) => finding.level === level)
  const lines = (name: string, all: readonly string[]) => all.map((line) => [name, line] as const)
  return [
    ['server', `PostgreSQL ${facts.serverVersionText}, as role ${printable(facts.restorer)}`],
    ['disk', diskInWords(looked)],
    ...lines('roles', rolesInWords(roles)),
    ...lines('FAILS', of('fails').flatMap(withHint)),
    ...lines('may fail', of('may-fail').flatMap(withHint)),
    ...lines(
      'differs',
      of('differs').map(({ message }) => printable(message)),
    ),
  ]
}

const withHint = ({ message, hint }: TargetFinding): string[] => [printable(message), `(${printable(hint)})`]

function diskInWords({ need, facts }: TargetLook): string {
  const { tables_bytes, indexes_bytes, from } = need
  const basis = from === 'source' ? 'as they were on the source' : 'made up from the rows, since the base does not say'
  const free =
    facts.free.bytes === undefined
      ? `how much is free is not known: ${facts.free.why}`
      : `${bytes(facts.free.bytes)} are free in ${facts.free.path}`
  return printable(
    `about ${bytes(tables_bytes + indexes_bytes)} (tables ${bytes(tables_bytes)}, indexes ${bytes(indexes_bytes)}, ${basis}), and the server's log; ${free}`,
  )
}

export function lookJson(looked: Looked | undefined): Record<string, unknown> {
  if (looked === undefined) return { roles: null, server: null }
  if (typeof looked === 'string') {
    const nothing = { looked_at: false, why: looked }
    return { roles: nothing, server: nothing }
  }
  const { facts, need, findings, roles } = looked
  const { free } = facts
  return {
    roles: rolesJson(roles),
    server: {
      looked_at: true,
      version: facts.serverVersionText,
      role: facts.restorer,
      disk: {
        needed: { tables_bytes: need.tables_bytes, indexes_bytes: need.indexes_bytes, from: need.from },
        free_bytes: free.bytes ?? null,
        path: free.bytes === undefined ? null : free.path,
        why_unknown: free.bytes === undefined ? free.why : null,
      },
      findings: findings.map(({ level, code, message, hint }) => ({ level, code, message, hint })),
    },
  }
}

/** Refuses what would fail, before anything is touched. */
export function refuseFailing(looked: Looked | undefined): void {
  if (looked === undefined || typeof looked === 'string') return
  const fails = looked.findings.filter(({ level }) => level === 'fails')
  const [first] = fails
  if (first === undefined) return
  throw new WalbackError(
    first.code === 'not-empty' ? 'refused' : 'prerequisite',
    fails.map(({ message }) => message).join('\n'),
    {
      hint: fails.map(({ hint }) => hint).join('\n'),
      facts: { findings: fails.map(({ code, message }) => ({ code, message })) },
    },
  )
}
