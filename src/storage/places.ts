import path from 'node:path'
import { z } from 'zod'
import { repositoryUrlShape } from './url-shape.ts'

/** `required`: what is confirmed to the server is stored there. `best_effort`: a copy, which follows. */
export const placeModes = ['required', 'best_effort'] as const
export type PlaceMode = (typeof placeModes)[number]

/** One of the repositories of a source. */
export interface RepositoryPlace {
  /** For people; undefined where none was given. */
  readonly name: string | undefined
  readonly url: string
  readonly mode: PlaceMode
}

const ownShape = z.object({
  name: z.string().min(1, 'empty').optional(),
  mode: z.enum(placeModes, `one of ${placeModes.join(', ')}`).optional(),
})
type Place = z.infer<typeof ownShape> & { readonly url: string }

/** An element of `repositories`: a URL, or a map of `url`, what would else be the URL's parameters, `name` and `mode`. */
const placeShape: z.ZodType<Place> = z.unknown().transform((given, context): Place => {
  const { name, mode, ...rest } = typeof given === 'object' && given !== null ? (given as Record<string, unknown>) : {}
  const own = ownShape.safeParse({ name, mode })
  const url = repositoryUrlShape.safeParse(typeof given === 'string' ? given : rest)
  for (const issue of [...(own.error?.issues ?? []), ...(url.error?.issues ?? [])])
    context.addIssue({ code: 'custom', message: issue.message, path: [...issue.path] })
  return own.success && url.success ? { ...own.data, url: url.data } : { url: '' }
})

/**
 * `repositories`: the first is the one that capture writes to; the others are copies of it, and what is confirmed is
 * durable in those of them too that are required.
 */
export const repositoriesShape = z
  .array(placeShape)
  .min(1, 'empty; leave it out')
  .superRefine((places, context) => {
    const wrong = (index: number, message: string): void => context.addIssue({ code: 'custom', message, path: [index] })
    const [first] = places
    if (first?.mode === 'best_effort')
      wrong(0, 'the first repository is the one that capture writes to, so it is required')
    for (const [index, { name, url }] of places.entries()) {
      if (places.findIndex((other) => other.url === url) < index) wrong(index, `${url} is there twice`)
      if (name !== undefined && places.findIndex((other) => other.name === name) < index)
        wrong(index, `the name ${name} is there twice`)
    }
  })
  .transform((places) =>
    places.map(
      ({ name, url, mode }, index): RepositoryPlace => ({
        name,
        url,
        mode: mode ?? (index === 0 ? 'required' : 'best_effort'),
      }),
    ),
  )

/** The places of the first that names any: a source, then all. Plain paths are meant from where the file is. */
export const placesIn = (
  levels: readonly ({ readonly repositories?: readonly RepositoryPlace[] | undefined } | undefined)[],
  file: string | undefined,
): readonly RepositoryPlace[] | undefined =>
  levels
    .find((level) => level?.repositories !== undefined)
    ?.repositories?.map((place) => ({ ...place, url: resolveFolder(place.url, file) }))

function resolveFolder(url: string, file: string | undefined): string {
  if (file === undefined || /^[a-z][a-z0-9+.-]+:/i.test(url)) return url
  return path.resolve(path.dirname(file), url)
}
