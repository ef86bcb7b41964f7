/** Connection service files: named sets of parameters in INI form (PostgreSQL manual, "The Connection Service File"). */
import { WalbackError } from '../base/errors.ts'
import { isParameter, type Parameter, parametersHint, type Settings } from './conninfo-parameters.ts'

export interface ServiceLookup {
  readonly name: string
  /** In the order in which libpq reads them: the user's, then the system's. The first with the service wins. */
  readonly files: readonly string[]
  /** The text of a file, or undefined when there is none. */
  readonly readFile: (path: string) => string | undefined
}

export function settingsOfService({ name, files, readFile }: ServiceLookup): Settings {
  for (const file of files) {
    const text = readFile(file)
    const settings = text === undefined ? undefined : parseService(text, name, file)
    if (settings) return settings
  }
  throw new WalbackError('usage', `definition of service ${JSON.stringify(name)} not found`, {
    hint: `looked in ${files.join(' and ')}`,
  })
}

function parseService(text: string, name: string, file: string): Settings | undefined {
  let settings: Map<Parameter, string> | undefined
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.trim()
    if (line === '' || line.startsWith('#')) continue
    if (line.startsWith('[')) {
      if (settings) return settings
      if (line === `[${name}]`) settings = new Map()
      continue
    }
    if (!settings) continue

    const broken = (problem: string, hint: string): WalbackError =>
      new WalbackError('usage', `${file} line ${index + 1}: ${problem}`, { hint })
    if (line.startsWith('ldap://'))
      throw broken('services from LDAP are not supported', 'write the parameters into the file')
    const equals = line.indexOf('=')
    if (equals < 0) throw broken('not of the form name=value', parametersHint)
    const parameter = line.slice(0, equals)
    if (!isParameter(parameter)) throw broken('unknown parameter', parametersHint)
    if (parameter === 'service')
      throw broken('a service cannot refer to another service', 'repeat the parameters of the other')
    // The first of two wins, as in libpq.
    if (!settings.has(parameter)) settings.set(parameter, line.slice(equals + 1))
  }
  return settings
}
