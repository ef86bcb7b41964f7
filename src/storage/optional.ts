import { codeOf, messageOf, WalbackError } from '../base/errors.ts'

/** Loads a package that only some repositories need, and that is installed by whoever has one of them. */
export async function loadOptional<T>(name: string, range: string, scheme: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load()
  } catch (error) {
    if (codeOf(error) !== 'ERR_MODULE_NOT_FOUND' || !messageOf(error).includes(name)) throw error
    throw new WalbackError('usage', `a repository at ${scheme} needs the package ${name}, which is not installed`, {
      cause: error,
      hint: `npm install '${name}@${range}' beside walback (with -g, if that is how walback was installed)`,
    })
  }
}
