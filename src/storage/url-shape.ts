import { z } from 'zod'

const mapShape = z.strictObject({
  url: z.string().min(1, 'empty'),
  region: z.string().optional(),
  endpoint: z.string().optional(),
  path_style: z.boolean().optional(),
  account: z.string().optional(),
  key_file: z.string().optional(),
  known_hosts: z.string().optional(),
  fingerprint: z.string().optional(),
})

/** A repository in a configuration: its URL, or a map of `url` and what would else be the URL's parameters. */
export const repositoryUrlShape: z.ZodType<string> = z.unknown().transform((given, context): string => {
  if (typeof given === 'string' && given !== '') return given
  const parsed = mapShape.safeParse(given)
  if (parsed.success) {
    const { url, ...parameters } = parsed.data
    const query = Object.entries(parameters).flatMap(([name, value]) =>
      value === undefined ? [] : `${name}=${encodeURIComponent(value)}`,
    )
    return query.length === 0 ? url : `${url}${url.includes('?') ? '&' : '?'}${query.join('&')}`
  }
  const [issue] = parsed.error.issues
  const message =
    given === ''
      ? 'empty'
      : issue?.code === 'unrecognized_keys'
        ? `unknown key ${JSON.stringify(issue.keys[0])}; known here: ${Object.keys(mapShape.shape).join(', ')}`
        : 'a URL, a path, or a map with url'
  context.addIssue({ code: 'custom', message })
  return ''
})
