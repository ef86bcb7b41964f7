import path from 'node:path'
import { createInterface } from 'node:readline/promises'
import { type Config, type Effective, type Env, loadConfig, resolveSettings } from '../src/config.ts'
import {
  type Access,
  type Conninfo,
  formatTime,
  formatTimeIn,
  localZone,
  type Micros,
  openStorage,
  parseTime,
  type RecoveryTarget,
  Repository,
  type RepositoryPlace,
  readAccess,
  type Storage,
  WalbackError,
  withFilesFrom,
} from '../src/index.ts'
import { shellWord } from './format.ts'
import type { Output } from './output.ts'
import { askPassphrase } from './passphrase.ts'

/** The flags that every command has. */
export interface CommonFlags {
  readonly config?: string
  readonly source?: string
  readonly db?: string
  readonly repo?: string
  readonly keyFile?: string
  readonly json?: boolean
  readonly quiet?: boolean
  readonly verbose?: boolean
  readonly yes?: boolean
  /** False: nothing is asked, as where there is no terminal. */
  readonly input?: boolean
  readonly color?: boolean
  readonly tz?: string
}

/** What the process is to a command; given, so that nothing below reads globals. */
export interface World {
  readonly env: Env
  readonly cwd: string
  readonly signal: AbortSignal
  readonly stdin: NodeJS.ReadableStream & { readonly isTTY?: boolean }
  readonly stdout: NodeJS.WriteStream
  readonly stderr: NodeJS.WriteStream
}

export interface OpenedSource {
  readonly repository: Repository
  readonly source: string
}

/** One run of a command: its flags, and what they come to. */
export class Context {
  readonly flags: CommonFlags
  readonly world: World
  readonly out: Output
  private typed: string | undefined
  private known: { readonly config: Config | undefined; readonly settings: Effective } | undefined

  constructor(flags: CommonFlags, world: World, out: Output) {
    this.flags = flags
    this.world = world
    this.out = out
  }

  get signal(): AbortSignal {
    return this.world.signal
  }

  /** Whether there is a person to ask. */
  get isInteractive(): boolean {
    return Boolean(this.world.stdin.isTTY && this.world.stderr.isTTY) && !this.out.json && this.flags.input !== false
  }

  /** Reads the configuration once; with both --db and --repo and no -c none is needed, and none is read. */
  async load(
    options: { readonly mayBeNew?: boolean } = {},
  ): Promise<{ readonly config: Config | undefined; readonly settings: Effective }> {
    if (this.known === undefined) {
      const { flags, world } = this
      const { env, cwd } = world
      const needsNone =
        flags.db !== undefined && flags.repo !== undefined && flags.config === undefined && !env['WALBACK_CONFIG']
      const config = needsNone
        ? undefined
        : await loadConfig({ file: flags.config, env, cwd, mayBeNew: options.mayBeNew ?? false })
      this.known = { config, settings: resolveSettings(flags, config, env) }
    }
    return this.known
  }

  async settings(): Promise<Effective> {
    return (await this.load()).settings
  }

  async requireConninfo(): Promise<Conninfo> {
    const settings = await this.settings()
    if (settings.conninfo) return settings.conninfo
    throw new WalbackError('usage', 'which database?', {
      hint:
        settings.configured.length > 1
          ? `give --source, one of ${settings.configured.join(', ')}`
          : 'give --db postgres://user@host/database, or WALBACK_DB, PG* variables, or a walback.yaml',
    })
  }

  /** The one that is written to. */
  async requireRepositoryUrl(): Promise<string> {
    return (await this.requirePlaces())[0].url
  }

  /** All that are configured, in their order. */
  async requirePlaces(): Promise<readonly [RepositoryPlace, ...RepositoryPlace[]]> {
    const settings = await this.settings()
    const [first, ...others] =
      settings.repositories?.map((place) => ({ ...place, url: this.repositoryAt(place.url) })) ?? []
    if (first !== undefined) return [first, ...others]
    throw new WalbackError('usage', 'which repository?', {
      hint:
        settings.configured.length > 1 && settings.source === undefined
          ? `give --source, one of ${settings.configured.join(', ')}`
          : 'give --repo file:///var/backups/app, or WALBACK_REPO, or a walback.yaml',
    })
  }

  /** A time, or `latest`, as the target of a restore. */
  readMoment(text: string): RecoveryTarget {
    const time = text.trim()
    return time === 'latest' ? { kind: 'latest' } : { kind: 'time', time: this.readTime(time) }
  }

  /** A plain path is meant from where the command was given. */
  repositoryAt(url: string): string {
    return url === '' || /^[a-z][a-z0-9+.-]+:/i.test(url) ? url : this.path(url)
  }

  /**
   * What opens the repository in a store: what was given; or, where that is nothing, a passphrase that is asked for, once,
   * if there is somebody to ask and it is one that a passphrase opens.
   */
  async access(storage: Storage): Promise<Access | undefined> {
    const { encryption } = await this.settings()
    const given = await readAccess(withFilesFrom(this.world.cwd, encryption))
    if (given?.credential !== undefined || !this.isInteractive) return given
    // What is wrong with the store is told by who opens it next.
    if (!(await Repository.takesPassphrase(storage).catch(() => false))) return given
    this.typed ??= await askPassphrase(this.world, `passphrase of the repository at ${storage.url}: `)
    return this.typed === '' ? given : { ...given, credential: { kind: 'passphrase', passphrase: this.typed } }
  }

  async openRepository(url?: string): Promise<Repository> {
    const storage = openStorage(url ?? (await this.requireRepositoryUrl()), this.world.env)
    return Repository.open(storage, await this.access(storage))
  }

  /** A repository and the one source in it that is meant: named, the database's, or the only one there. */
  async openSource(url?: string): Promise<OpenedSource> {
    const settings = await this.settings()
    const repository = await this.openRepository(url)
    const held = await repository.sources(this.signal)
    const { source, suggested } = settings
    if (source !== undefined) {
      if (held.includes(source)) return { repository, source }
      throw new WalbackError('no_repository', `the repository at ${repository.storage.url} holds no source ${source}`, {
        hint:
          held.length === 0
            ? 'set it up with `walback init`'
            : `it holds ${held.join(', ')}; or set this one up with \`walback init\``,
        facts: { sources: held },
      })
    }
    if (held.length === 1 && held[0] !== undefined) return { repository, source: held[0] }
    if (suggested !== undefined && held.includes(suggested)) return { repository, source: suggested }
    if (held.length === 0) {
      throw new WalbackError('no_repository', `the repository at ${repository.storage.url} holds no source yet`, {
        hint: 'set one up with `walback init`',
      })
    }
    throw new WalbackError('usage', 'which source?', {
      hint: `give --source, one of ${held.join(', ')}`,
      facts: { sources: held },
    })
  }

  /** Reads a time; without a zone it needs --tz, or a terminal, whose zone is then assumed and echoed. */
  readTime(text: string): Micros {
    const zone = this.flags.tz === undefined ? (this.isInteractive ? localZone() : undefined) : checkZone(this.flags.tz)
    const { time, assumedZone } = parseTime(text, { zone })
    if (assumedZone && zone !== undefined) this.out.say(`${text} is ${formatTime(time)} (${formatTimeIn(time, zone)})`)
    return time
  }

  /** A moment as the user's clocks show it, to be shown beside UTC; undefined where they show UTC. */
  local(time: Micros): string | undefined {
    const zone = this.flags.tz === undefined ? localZone() : checkZone(this.flags.tz)
    return ['UTC', 'Etc/UTC', 'GMT'].includes(zone) ? undefined : formatTimeIn(time, zone)
  }

  /** Asks before something moderate; off a terminal only --yes goes on. */
  async confirm(question: string, facts: Readonly<Record<string, unknown>> = {}): Promise<void> {
    if (this.flags.yes) return
    if (!this.isInteractive) {
      throw new WalbackError('refused', `${question.replace(/\?$/, '')}: not confirmed`, {
        hint:
          this.flags.input === false
            ? 'with --no-input nothing is asked: add --yes'
            : 'there is no terminal to ask on: add --yes',
        facts,
      })
    }
    if (/^y(es)?$/i.test(await this.ask(`${question} [y/N] `))) return
    throw new WalbackError('refused', 'nothing was done', { hint: 'answer y, or give --yes' })
  }

  /** Asks for a name to be typed before something severe; off a terminal only `--confirm NAME` goes on, and not --yes. */
  async confirmName(name: string, given: string | undefined, act: string): Promise<void> {
    const hint = `--confirm ${shellWord(name)} confirms it; --yes does not`
    if (given === name) return
    if (given !== undefined)
      throw new WalbackError('refused', `--confirm ${JSON.stringify(given)} is not the name of what it is about`, {
        hint,
      })
    if (!this.isInteractive) throw new WalbackError('refused', `${act}: not confirmed`, { hint })
    if ((await this.ask(`To ${act}, type its name: `)) !== name)
      throw new WalbackError('refused', 'nothing was done', { hint })
  }

  /** One line from the terminal, which itself edits it: an interrupt is then a signal, as everywhere else. */
  async ask(question: string): Promise<string> {
    const reader = createInterface({ input: this.world.stdin, output: this.world.stderr, terminal: false })
    try {
      const closed = new Promise<string>((settle) => reader.once('close', () => settle('')))
      return (await Promise.race([reader.question(question, { signal: this.signal }), closed])).trim()
    } finally {
      reader.close()
    }
  }

  /** The common flags of this run again, for a command to be typed next. */
  async sameFlags(): Promise<string> {
    const { config, source, repo, keyFile } = this.flags
    const given = { config, source, repo, 'key-file': keyFile }
    return Object.entries(given)
      .map(([name, value]) => (value === undefined ? '' : ` --${name} ${shellWord(value)}`))
      .join('')
  }

  path(file: string): string {
    return path.resolve(this.world.cwd, file)
  }
}

function checkZone(zone: string): string {
  try {
    new Intl.DateTimeFormat('en', { timeZone: zone })
    return zone
  } catch (error) {
    throw new WalbackError('usage', `not a time zone: ${JSON.stringify(zone)}`, {
      cause: error,
      hint: 'zones look like UTC, Europe/Berlin or America/New_York',
    })
  }
}
