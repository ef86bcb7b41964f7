import type { Command } from 'commander'
import {
  formatLsn,
  openStage,
  type Past,
  type Repository,
  type RestorePlan,
  resolveConninfo,
  type Stage,
  type StageOptions,
} from '../src/index.ts'
import type { Context } from './context.ts'
import { duration, plural, printable } from './format.ts'
import { parseJobs } from './options.ts'
import { Progress, restoreProgress } from './progress.ts'

/** What a command line says of where the past is brought back. */
export interface StageFlags {
  readonly on?: string
  readonly jobs: number
}

export const addOnFlag = (command: Command): Command =>
  command.option(
    '--on <url>',
    'a server to use instead of a throwaway one: a temporary database is made there, and dropped',
  )

export const addStageFlags = (command: Command): Command =>
  addOnFlag(command).option('--jobs <n>', 'connections that load and check tables side by side', parseJobs, 4)

/** Opens where plans are brought back. The caller owns it: `await using`. */
export async function stageFor(context: Context, plans: readonly RestorePlan[], { on }: StageFlags): Promise<Stage> {
  return await openStage(plans, stageOptions(context, on))
}

export function stageOptions({ out, world, signal }: Context, on: string | undefined): StageOptions {
  return {
    on: on === undefined ? undefined : resolveConninfo(on, world.env),
    onWarning: (warning) => out.warn(printable(warning)),
    signal,
  }
}

/** Brings a source back, showing how far it is. */
export async function bringBack(
  context: Context,
  stage: Stage,
  repository: Repository,
  plan: RestorePlan,
  { jobs }: StageFlags,
): Promise<Past> {
  const { out, signal } = context
  using progress = new Progress(out)
  const past = await stage.bringBack(repository, plan, { jobs, onProgress: restoreProgress(out, progress), signal })
  progress[Symbol.dispose]()
  const { report, notes } = past
  for (const warning of report.warnings) out.warn(printable(warning))
  for (const note of notes) out.say(printable(note))
  out.say(
    `${plan.source} as of ${formatLsn(plan.reached)}: ${plural(report.tables, 'table')}, ${plural(report.rows, 'row')}, brought back in ${duration(report.duration_ms)} on ${printable(stage.server)}`,
  )
  return past
}
