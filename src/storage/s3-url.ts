import { WalbackError } from '../base/errors.ts'

/** Where a repository on S3, or on what speaks its protocol, is. */
export interface S3Location {
  readonly bucket: string
  /** Empty, or ending in `/`. */
  readonly prefix: string
  readonly region: string | undefined
  readonly endpoint: string | undefined
  /** The bucket's name in the path and not in the host's name. */
  readonly pathStyle: boolean
  /** The URL again, in one spelling. */
  readonly url: string
}

export const s3Example = 's3://bucket/prefix?region=eu-central-1&endpoint=https://minio.example.com:9000'

type Env = Readonly<Record<string, string | undefined>>

/**
 * Reads `s3://bucket/prefix?region=…&endpoint=…&path_style=…`. What the URL leaves out comes from the environment
 * (`AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_REGION`) and then from the SDK's own files. A custom endpoint means
 * path style: few of them have a name for every bucket.
 */
export function parseS3Url(text: string, env: Env): S3Location {
  const refuse = (what: string, hint = `an S3 repository is ${s3Example}`): never => {
    throw new WalbackError('usage', `not a usable repository URL: ${what}`, { hint })
  }
  const parsed = URL.canParse(text) ? new URL(text) : refuse('it cannot be read as a URL')
  if (parsed.username || parsed.password) {
    refuse(
      'it holds a user name or password',
      'give keys as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile (AWS_PROFILE) or an instance role: a URL is shown and logged',
    )
  }
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(parsed.host)) refuse(`${parsed.host || 'nothing'} is no bucket's name`)
  for (const [name] of parsed.searchParams) {
    if (!parameters.includes(name)) refuse(`there is no parameter ${name}`, `parameters: ${parameters.join(', ')}`)
  }
  const prefix = keyPrefix(parsed.pathname) ?? refuse('its path may have letters, digits, `.`, `_` and `-` only')
  const given = (name: string): string | undefined => parsed.searchParams.get(name) || undefined
  const endpoint = given('endpoint') ?? (env['AWS_ENDPOINT_URL_S3'] || env['AWS_ENDPOINT_URL'] || undefined)
  if (endpoint !== undefined && !/^https?:\/\/[^/@]+\/?$/.test(endpoint)) {
    refuse('its endpoint is not http(s)://host[:port]', 'such as endpoint=https://minio.example.com:9000')
  }
  const style = given('path_style')
  if (style !== undefined && style !== 'true' && style !== 'false') refuse('path_style is true or false')
  const region = given('region') ?? (env['AWS_REGION'] || env['AWS_DEFAULT_REGION'] || undefined)
  return {
    bucket: parsed.host,
    prefix,
    // What is not AWS has its own idea of regions, or none, but a signature names one.
    region: region ?? (endpoint === undefined ? undefined : 'us-east-1'),
    endpoint,
    pathStyle: style === undefined ? endpoint !== undefined : style === 'true',
    url: canonical(parsed.host, prefix, parsed.searchParams),
  }
}

const parameters = ['region', 'endpoint', 'path_style']

function canonical(bucket: string, prefix: string, given: URLSearchParams): string {
  const query = parameters.flatMap((name) => {
    const value = given.get(name)
    return value ? [`${name}=${encodeURIComponent(value).replaceAll('%3A', ':').replaceAll('%2F', '/')}`] : []
  })
  const path = prefix === '' ? '' : `/${prefix.slice(0, -1)}`
  return `s3://${bucket}${path}${query.length > 0 ? `?${query.join('&')}` : ''}`
}

/** A URL's path as the beginning of keys, of the characters that keys have; undefined where it has others. */
export function keyPrefix(pathname: string): string | undefined {
  const parts = pathname.split('/').filter(Boolean)
  if (parts.some((part) => !/^[\w.-]+$/.test(part) || part === '.' || part === '..')) return undefined
  return parts.map((part) => `${part}/`).join('')
}
