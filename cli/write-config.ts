/** The configuration that `init` writes. */
import { link, mkdir, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { Document } from 'yaml'
import { type Env, parseConfig, readIfThere } from '../src/config.ts'
import { codeOf, type EncryptionSettings, messageOf, openStorage, placesIn, WalbackError } from '../src/index.ts'

/** The inverse of expansion. */
const literal = (text: string): string => text.replaceAll('${', () => '$${')

export interface NewConfig {
  readonly source: string
  /** Undefined: PG* variables say where. */
  readonly url: string | undefined
  readonly repositoryUrl: string
  /** Without a passphrase: that stays where it was. */
  readonly encryption?: EncryptionSettings | undefined
}

export type ConfigWriting =
  | { readonly kind: 'written'; readonly file: string }
  | { readonly kind: 'same'; readonly file: string }
  /** Another file is there; `add` is what it lacks. */
  | { readonly kind: 'different'; readonly file: string; readonly add: string }

/** Writes a configuration for one source, readable by its owner only since the URL may hold a password. Never overwrites. */
export async function writeConfig(file: string, content: NewConfig, env: Env): Promise<ConfigWriting> {
  const entry = content.url === undefined ? {} : { url: literal(content.url) }
  const whole = new Document({
    version: 1,
    repositories: [literal(content.repositoryUrl)],
    ...(content.encryption === undefined ? {} : { encryption: content.encryption }),
    sources: { [content.source]: entry },
  })
  const text = whole.toString({ lineWidth: 0 })
  const existing = await readIfThere(file, true)
  if (existing !== undefined) return compare(file, existing, content, env)
  await mkdir(path.dirname(file), { recursive: true })
  const temporary = `${file}.new-${process.pid}`
  try {
    await writeFile(temporary, text, { mode: 0o600, flag: 'wx' })
    await link(temporary, file)
    return { kind: 'written', file }
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return compare(file, (await readIfThere(file, true)) ?? '', content, env)
    throw new WalbackError('failed', `cannot write ${file}: ${messageOf(error)}`, {
      cause: error,
      hint: 'give another place with -c, or --no-config',
    })
  } finally {
    await rm(temporary, { force: true })
  }
}

function compare(file: string, existing: string, content: NewConfig, env: Env): ConfigWriting {
  const config = parseConfig(existing, file, env)
  const entry = config.sources[content.source]
  const repository = placesIn([entry, config], file)?.[0]?.url
  const isSameStore =
    repository !== undefined && openStorage(repository, env).url === openStorage(content.repositoryUrl, env).url
  if (entry !== undefined && entry.url === content.url && isSameStore) return { kind: 'same', file }
  const wanted = {
    ...(content.url === undefined ? {} : { url: literal(content.url) }),
    repositories: [literal(content.repositoryUrl)],
    ...(content.encryption === undefined ? {} : { encryption: content.encryption }),
  }
  const add = new Document({ sources: { [content.source]: wanted } }).toString({ lineWidth: 0 })
  return { kind: 'different', file, add }
}
