import { WalbackError } from '../base/errors.ts'
import { keyPrefix } from './s3-url.ts'

export type AzureLogin =
  | { readonly kind: 'connection string'; readonly text: string }
  | { readonly kind: 'key'; readonly endpoint: string; readonly account: string; readonly key: string }
  | { readonly kind: 'sas'; readonly endpoint: string; readonly token: string }

export interface AzureLocation {
  readonly container: string
  /** Empty, or ending in `/`. */
  readonly prefix: string
  readonly login: AzureLogin
  readonly url: string
}

type Env = Readonly<Record<string, string | undefined>>

export const azureExample = 'az://container/prefix?account=name'

/**
 * Reads `az://container/prefix?account=…&endpoint=…`. The login comes from the environment, under the names that the
 * `az` command uses: AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or
 * AZURE_STORAGE_SAS_TOKEN.
 */
export function parseAzureUrl(text: string, env: Env): AzureLocation {
  const refuse = (what: string, hint = `an Azure repository is ${azureExample}`): never => {
    throw new WalbackError('usage', `not a usable repository URL: ${what}`, { hint })
  }
  const parsed = URL.canParse(text) ? new URL(text) : refuse('it cannot be read as a URL')
  if (parsed.username || parsed.password) refuse('it holds a user name or password', loginHint)
  if (!/^[a-z0-9$][a-z0-9-]{1,61}[a-z0-9]$/.test(parsed.host))
    refuse(`${parsed.host || 'nothing'} is no container's name`)
  for (const [name] of parsed.searchParams) {
    if (name !== 'account' && name !== 'endpoint')
      refuse(`there is no parameter ${name}`, 'parameters: account, endpoint')
  }
  const prefix = keyPrefix(parsed.pathname) ?? refuse('its path may have letters, digits, `.`, `_` and `-` only')
  const given = (name: string): string | undefined => parsed.searchParams.get(name) || undefined
  const account = given('account') ?? (env['AZURE_STORAGE_ACCOUNT'] || undefined)
  const path = prefix === '' ? '' : `/${prefix.slice(0, -1)}`
  const query = ['account', 'endpoint'].flatMap((name) => (given(name) ? [`${name}=${given(name)}`] : [])).join('&')
  return {
    container: parsed.host,
    prefix,
    login: loginFor(account, given('endpoint'), env, refuse),
    url: `az://${parsed.host}${path}${query === '' ? '' : `?${query}`}`,
  }
}

const loginHint =
  'set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN'

function loginFor(
  account: string | undefined,
  given: string | undefined,
  env: Env,
  refuse: (what: string, hint?: string) => never,
): AzureLogin {
  const text = env['AZURE_STORAGE_CONNECTION_STRING']
  if (text) return { kind: 'connection string', text }
  if (account === undefined) return refuse('which account?', loginHint)
  const endpoint = given?.replace(/\/$/, '') ?? `https://${account}.blob.core.windows.net`
  if (!/^https?:\/\/[^@?]+$/.test(endpoint)) return refuse('its endpoint is not http(s)://host[:port][/path]')
  const [key, token] = [env['AZURE_STORAGE_KEY'], env['AZURE_STORAGE_SAS_TOKEN']]
  if (key) return { kind: 'key', endpoint, account, key }
  return token ? { kind: 'sas', endpoint, token } : refuse(`no login for the account ${account}`, loginHint)
}
