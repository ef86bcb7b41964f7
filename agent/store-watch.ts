import { type GetOptions, type PutOptions, type Storage, type StoredObject, WalbackError } from '../src/index.ts'
import type { Events } from './events.ts'

interface Options {
  readonly signal?: AbortSignal | undefined
}

interface Call {
  readonly what: string
  /** Since when the store owes the next thing: an answer, or a sign that it took a chunk. */
  since: number
}

/** After how long trouble is told of, and after how long without any it is over. */
export interface StorePatience {
  readonly alarm_ms: number
  readonly calm_ms: number
}

/**
 * A store, watched: what it fails at, and what it does not answer. A failure that passes is the business of whoever
 * tries again; trouble that lasts is told, and so is its end. A store that works now and then is in trouble all the while.
 */
export class StoreWatch implements Storage, Disposable {
  readonly url: string
  private readonly inner: Storage
  private readonly events: Events
  private readonly patience: StorePatience
  private readonly subject: string | null
  private readonly timer: NodeJS.Timeout
  /** The calls that are not answered yet. */
  private readonly open = new Set<Call>()
  private troubleSince: number | undefined
  private lastTrouble: { readonly at: number; readonly what: string } | undefined
  private failures = 0
  private hasWorked = false

  constructor(inner: Storage, events: Events, patience: StorePatience = usualPatience, subject: string | null = null) {
    this.inner = inner
    this.url = inner.url
    this.events = events
    this.patience = patience
    this.subject = subject
    this.timer = setInterval(() => this.look(), Math.max(50, Math.min(patience.alarm_ms, patience.calm_ms) / 10))
    this.timer.unref()
  }

  [Symbol.dispose](): void {
    clearInterval(this.timer)
  }

  put(key: string, body: Buffer | AsyncIterable<Buffer>, options?: PutOptions): Promise<boolean> {
    return this.watched(`put ${key}`, (call) =>
      this.inner.put(key, Buffer.isBuffer(body) ? body : paced(body, call), options),
    )
  }

  async *get(key: string, options?: GetOptions): AsyncGenerator<Buffer> {
    // How long a reader takes over the chunks is not the store's doing.
    const chunks = this.inner.get(key, options)[Symbol.asyncIterator]()
    try {
      for (;;) {
        const next = await this.watched(`get ${key}`, () => chunks.next())
        if (next.done === true) return
        yield next.value
      }
    } finally {
      await chunks.return?.()
    }
  }

  size(key: string, options?: Options): Promise<number | undefined> {
    return this.watched(`size ${key}`, () => this.inner.size(key, options))
  }

  async *list(prefix: string, options?: Options): AsyncGenerator<StoredObject> {
    const objects = this.inner.list(prefix, options)[Symbol.asyncIterator]()
    try {
      for (;;) {
        const next = await this.watched(`list ${prefix}`, () => objects.next())
        if (next.done === true) return
        yield next.value
      }
    } finally {
      await objects.return?.()
    }
  }

  delete(key: string): Promise<void> {
    return this.watched(`delete ${key}`, () => this.inner.delete(key))
  }

  private async watched<T>(what: string, ask: (call: Call) => Promise<T>): Promise<T> {
    const entry: Call = { what, since: performance.now() }
    this.open.add(entry)
    try {
      const answer = await ask(entry)
      if (performance.now() - entry.since < this.patience.alarm_ms) this.hasWorked = true
      return answer
    } catch (error) {
      if (error instanceof WalbackError && error.code === 'storage') {
        this.failures++
        this.trouble(error.message)
      }
      throw error
    } finally {
      this.open.delete(entry)
    }
  }

  private trouble(what: string): void {
    const at = performance.now()
    this.troubleSince ??= at
    this.lastTrouble = { at, what }
    this.hasWorked = false
  }

  private look(): void {
    const now = performance.now()
    const { alarm_ms, calm_ms } = this.patience
    for (const { what, since } of this.open) {
      if (now - since < alarm_ms / 2) continue
      this.troubleSince = Math.min(this.troubleSince ?? since, since)
      this.trouble(`no answer since ${Math.round((now - since) / 1000)} s: ${what}`)
    }
    const { troubleSince, lastTrouble, subject } = this
    if (troubleSince === undefined || lastTrouble === undefined) return
    const lasted_s = Math.round((now - troubleSince) / 1000)
    const facts = { repository: this.url, failures: this.failures, lasted_s }
    if (this.hasWorked && now - lastTrouble.at >= calm_ms) {
      this.troubleSince = undefined
      this.failures = 0
      this.events.clear('store-failing', { subject, message: `the repository works again, after ${lasted_s} s`, facts })
    } else if (lastTrouble.at - troubleSince >= alarm_ms) {
      this.events.raise('store-failing', {
        severity: 'error',
        subject,
        message: `STORE FAILING for ${lasted_s} s: ${lastTrouble.what}. Nothing is lost while the server can keep its log`,
        facts,
      })
    }
  }
}

/** A large object takes as long as it takes, as long as it moves; and while its next chunk is still to come, nothing is owed. */
async function* paced(body: AsyncIterable<Buffer>, call: Call): AsyncGenerator<Buffer> {
  call.since = Number.POSITIVE_INFINITY
  for await (const chunk of body) {
    call.since = performance.now()
    yield chunk
    call.since = Number.POSITIVE_INFINITY
  }
  call.since = performance.now()
}

const usualPatience: StorePatience = { alarm_ms: 60_000, calm_ms: 60_000 }
