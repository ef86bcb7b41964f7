import { quoteIdent, quoteLiteral } from '../model/identifier.ts'

/** `SET name = value` for ALTER DATABASE and ALTER ROLE, of a setting as the catalogs have it (`name=value`). */
export function settingSql(setting: string): string {
  const [parameter = '', ...value] = setting.split('=')
  return `SET ${quoteIdent(parameter)} = ${settingValue(parameter, value.join('='))}`
}

/** Settings that are lists of quoted names (GUC_LIST_QUOTE); all others are one constant. */
const listSettings = new Set([
  'search_path',
  'session_preload_libraries',
  'shared_preload_libraries',
  'local_preload_libraries',
  'temp_tablespaces',
  'unix_socket_directories',
])

/** As pg_dump writes it: each name of a list as a constant of its own, since an empty one cannot be an identifier. */
function settingValue(name: string, value: string): string {
  if (!listSettings.has(name.toLowerCase())) return quoteLiteral(value)
  const items = [...value.matchAll(/"((?:[^"]|"")*)"|[^,\s]+/g)]
  return items.map(([item, quoted]) => quoteLiteral(quoted?.replaceAll('""', '"') ?? item)).join(', ') || `''`
}

/** The role that a setting makes a session be: `role=app_owner`. */
export function roleOfSetting(setting: string): string | undefined {
  const role = /^role=(.*)$/is.exec(setting)?.[1]
  return role === undefined || role === 'none' ? undefined : role
}

/** The setting with another role in it, where it names one. */
export function settingFor(setting: string, nameFor: (role: string) => string | undefined): string {
  const role = roleOfSetting(setting)
  return role === undefined ? setting : `role=${nameFor(role) ?? role}`
}
