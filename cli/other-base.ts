import { baseKind, type RestorePlan, WalbackError } from '../src/index.ts'

/** Damage that is met in a base of some tables ends a restore, and another base does without it: says so. */
export async function namingOthers<T>({ base }: RestorePlan, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (baseKind(base) === 'full' || !(error instanceof WalbackError) || error.code !== 'corrupt') throw error
    throw new WalbackError('corrupt', error.message, {
      cause: error,
      hint: `it is of base ${base.id}, which is of some tables only: name another with --base (\`walback list\` shows them)`,
      facts: error.facts,
    })
  }
}
