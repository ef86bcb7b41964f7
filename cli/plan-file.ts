import { readFile, writeFile } from 'node:fs/promises'
import { z } from 'zod'
import {
  formatLsn,
  mergeModes,
  messageOf,
  parseLsn,
  type RecoveryTarget,
  type RestorePlan,
  WalbackError,
} from '../src/index.ts'
import type { Context } from './context.ts'

const patterns = z.array(z.string()).readonly().exactOptional()

/** What a command line said, but for the target. A map of roles is a list of pairs. */
const flagsShape = z.strictObject({
  base: z.string().exactOptional(),
  into: z.string().exactOptional(),
  intoUrl: z.string().exactOptional(),
  sqlOut: z.string().exactOptional(),
  dataOnly: z.boolean().exactOptional(),
  inPlace: z.boolean().exactOptional(),
  as: z.string().exactOptional(),
  merge: z.enum(mergeModes).exactOptional(),
  jobs: z.int().positive(),
  table: patterns,
  schema: patterns,
  excludeTable: patterns,
  excludeSchema: patterns,
  schemaOnly: z.boolean().exactOptional(),
  createRoles: z.boolean().exactOptional(),
  mapRole: z.array(z.tuple([z.string(), z.string()])).exactOptional(),
  owner: z.boolean().exactOptional(),
  privileges: z.boolean().exactOptional(),
})
export type PlannedFlags = Omit<z.infer<typeof flagsShape>, 'mapRole'> & {
  readonly mapRole?: ReadonlyMap<string, string>
}

/** What a restore gives, whatever it is read from: the same must come out of it when it is carried out. */
const outcomeShape = z.object({
  timeline: z.string(),
  /** Transactions that end at or before this are kept. */
  cut: z.string(),
  reached: z.string(),
  last_kept: z.string().nullable(),
  transactions: z.int(),
  tables: z.int(),
  not_restored: z.array(z.string()),
})

const fileShape = z.object({
  walback: z.literal('restore plan'),
  version: z.literal(1),
  source: z.string(),
  flags: flagsShape,
  outcome: outcomeShape,
})

function outcomeOf({ timeline, base, cut, reached, lastKept, transactions, selected, notRestored }: RestorePlan) {
  return {
    timeline: timeline.id,
    cut: formatLsn(cut),
    reached: formatLsn(reached),
    // Of what the base itself is the state of, each way to the same position tells another last transaction.
    last_kept: transactions === 0 ? null : (lastKept?.xid ?? null),
    transactions,
    tables: selected?.tables.size ?? base.tables.length,
    not_restored: [...notRestored],
  } satisfies z.infer<typeof outcomeShape>
}

export interface ReviewedPlan {
  readonly flags: PlannedFlags
  /** The position at which the reviewed plan cut, whatever named it. */
  readonly target: RecoveryTarget
  /** Throws unless the plan made now gives what was reviewed. */
  check(source: string, plan: RestorePlan): void
}

/** A plan in such a form that another process can plan the same again, and knows whether it is the same. */
export function planContent(plan: RestorePlan, flags: PlannedFlags): z.infer<typeof fileShape> {
  const { mapRole, ...rest } = flags
  const known = Object.fromEntries(Object.entries(rest).filter(([name]) => name in flagsShape.shape))
  return {
    walback: 'restore plan',
    version: 1,
    source: plan.source,
    flags: flagsShape.parse({ ...known, ...(mapRole ? { mapRole: [...mapRole] } : {}) }),
    outcome: outcomeOf(plan),
  }
}

/** Writes a plan for somebody to review, and to be carried out as it is. It may have a URL in it: only its owner reads it. */
export async function writePlanFile(
  context: Context,
  file: string,
  plan: RestorePlan,
  flags: PlannedFlags,
): Promise<string> {
  const content = planContent(plan, flags)
  const path = context.path(file)
  try {
    await writeFile(path, `${JSON.stringify(content, undefined, 2)}\n`, { mode: 0o600, flag: 'wx' })
  } catch (error) {
    throw new WalbackError('usage', `cannot write the plan to ${path}: ${messageOf(error)}`, {
      cause: error,
      hint: 'name a file that is not there yet, in a folder that is',
    })
  }
  return path
}

export async function readPlanFile(context: Context, file: string): Promise<ReviewedPlan> {
  const path = context.path(file)
  return reviewed(path, parsed(path, await readJson(path)))
}

/** The same of what an interrupted restore has noted (`planContent`). */
export const notedPlan = (noted: unknown): ReviewedPlan =>
  reviewed('the interrupted restore', parsed('what the interrupted restore has noted', noted))

function reviewed(path: string, { flags, outcome, source }: z.infer<typeof fileShape>): ReviewedPlan {
  const { mapRole, ...rest } = flags
  return {
    flags: { ...rest, ...(mapRole ? { mapRole: new Map(mapRole) } : {}) },
    target: { kind: 'lsn', lsn: parseLsn(outcome.cut) },
    check: (now, plan) => {
      const found = { source: now, ...outcomeOf(plan) }
      const reviewed: Record<string, unknown> = { source, ...outcome }
      const different = Object.entries(found).filter(
        ([name, value]) => JSON.stringify(value) !== JSON.stringify(reviewed[name]),
      )
      if (different.length === 0) return
      const [name = '', value] = different[0] ?? []
      throw new WalbackError(
        'refused',
        `the plan of ${path} would not give what it gave: ${name} was ${JSON.stringify(reviewed[name])}, and is ${JSON.stringify(value)}`,
        { hint: 'the archive has changed since, or --source is another; make the plan anew with --plan-file' },
      )
    },
  }
}

async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'))
  } catch (error) {
    throw new WalbackError('usage', `cannot read the plan ${path}: ${messageOf(error)}`, {
      cause: error,
      hint: 'make one with `walback restore … --plan-file FILE`',
    })
  }
}

function parsed(path: string, json: unknown): z.infer<typeof fileShape> {
  const content = fileShape.safeParse(json)
  if (content.success) return content.data
  throw new WalbackError('usage', `${path} is not a plan of this walback: ${z.prettifyError(content.error)}`, {
    hint: 'make one with `walback restore … --plan-file FILE`',
  })
}
