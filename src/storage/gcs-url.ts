import { WalbackError } from '../base/errors.ts'
import { keyPrefix } from './s3-url.ts'

export interface GcsLocation {
  readonly bucket: string
  /** Empty, or ending in `/`. */
  readonly prefix: string
  readonly endpoint: string | undefined
  readonly url: string
}

type Env = Readonly<Record<string, string | undefined>>

export const gcsExample = 'gs://bucket/prefix'

/** Reads `gs://bucket/prefix?endpoint=…`. STORAGE_EMULATOR_HOST stands in for the endpoint, as for Google's own tools. */
export function parseGcsUrl(text: string, env: Env): GcsLocation {
  const refuse = (what: string, hint = `a repository on Google Cloud Storage is ${gcsExample}`): never => {
    throw new WalbackError('usage', `not a usable repository URL: ${what}`, { hint })
  }
  const parsed = URL.canParse(text) ? new URL(text) : refuse('it cannot be read as a URL')
  if (parsed.username || parsed.password) {
    refuse(
      'it holds a user name or password',
      'give a key as GOOGLE_APPLICATION_CREDENTIALS, or run with a service account: a URL is shown and logged',
    )
  }
  if (!/^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$/.test(parsed.host))
    refuse(`${parsed.host || 'nothing'} is no bucket's name`)
  for (const [name] of parsed.searchParams) {
    if (name !== 'endpoint') refuse(`there is no parameter ${name}`, 'parameters: endpoint')
  }
  const prefix = keyPrefix(parsed.pathname) ?? refuse('its path may have letters, digits, `.`, `_` and `-` only')
  const given = parsed.searchParams.get('endpoint') || undefined
  const endpoint = given ?? (env['STORAGE_EMULATOR_HOST'] || undefined)
  if (endpoint !== undefined && !/^https?:\/\/[^/@?]+\/?$/.test(endpoint))
    refuse('its endpoint is not http(s)://host[:port]', 'such as endpoint=http://localhost:4443')
  const path = prefix === '' ? '' : `/${prefix.slice(0, -1)}`
  return {
    bucket: parsed.host,
    prefix,
    endpoint: endpoint?.replace(/\/$/, ''),
    url: `gs://${parsed.host}${path}${given === undefined ? '' : `?endpoint=${given}`}`,
  }
}
