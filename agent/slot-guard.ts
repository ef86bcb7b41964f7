import type pg from 'pg'
import type { Logger } from 'pino'
import type { GuardSettings } from '../src/config.ts'
import {
  type Conninfo,
  connect,
  type EventKind,
  type Finding,
  measures,
  messageOf,
  mib,
  readSlotReading,
  readSourceFacts,
  releaseSlot,
  SlotGrowth,
  sleep,
  slotLimit_bytes,
  slotPressure,
} from '../src/index.ts'
import type { Events } from './events.ts'

export interface SlotGuardOptions {
  readonly conninfo: Conninfo
  readonly source: string
  readonly slot: string
  readonly guard: GuardSettings
  readonly events: Events
  readonly log: Logger
  readonly signal: AbortSignal
  /** How long between looks; ten seconds if not given. */
  readonly interval_ms?: number | undefined
}

/**
 * Watches what the slot keeps of the server's log, over a connection of its own: it matters most while the stream is
 * broken. Where policy says so, it drops a slot that keeps too much.
 */
export class SlotGuard {
  private readonly options: SlotGuardOptions
  private readonly stop = new AbortController()
  private readonly growth = new SlotGrowth()
  /** What was told of, with how many looks in a row have not found it. */
  private readonly told = new Map<string, { readonly kind: EventKind; readonly subject: string; absent: number }>()
  private client: pg.Client | undefined
  private releasing = new AbortController()
  private working: Promise<void> = Promise.resolve()
  private isBlind = false

  constructor(options: SlotGuardOptions) {
    this.options = options
    options.signal.addEventListener('abort', () => this.stop.abort(), { once: true })
  }

  begin(): void {
    this.working = this.work()
  }

  /** Fires when the slot is to be let go of: capture ends then, and `released` says when the slot is gone. */
  get release(): AbortSignal {
    return this.releasing.signal
  }

  /** Why the slot was dropped; undefined until it was. */
  get reason(): string | undefined {
    const { aborted, reason } = this.releasing.signal
    return aborted ? String(reason) : undefined
  }

  /** There is a new slot, or nothing was dropped after all. */
  rearm(): void {
    this.releasing = new AbortController()
    this.growth.forget()
  }

  async close(): Promise<void> {
    this.stop.abort()
    await this.working
    await this.client?.end().catch(() => undefined)
  }

  private async work(): Promise<void> {
    const { log, source, interval_ms = usualInterval_ms } = this.options
    const { signal } = this.stop
    while (!signal.aborted) {
      try {
        await this.inTime(this.look())
        this.isBlind = false
      } catch (error) {
        this.drop()
        if (!signal.aborted && !this.isBlind)
          log.warn({ source }, `the slot cannot be watched while the server cannot be asked: ${messageOf(error)}`)
        this.isBlind = true
      }
      await sleep(interval_ms, signal).catch(() => undefined)
    }
  }

  /** A connection that is dead without a word would end the watch. */
  private async inTime(look: Promise<void>): Promise<void> {
    const over = new AbortController()
    const late = sleep(patience_ms, over.signal).then(
      () => Promise.reject(new Error('no answer')),
      () => undefined,
    )
    look.catch(() => undefined)
    try {
      await Promise.race([look, late])
    } finally {
      over.abort()
    }
  }

  private drop(): void {
    void this.client?.end().catch(() => undefined)
    this.client = undefined
  }

  private async look(): Promise<void> {
    const { slot: name, guard, log, source } = this.options
    this.client ??= await this.open()
    const client = this.client
    const limits = { server_bytes: slotLimit_bytes(await readSourceFacts(client)), guard_bytes: guard.maxSlotWal_bytes }
    const reading = await readSlotReading(client, name)
    // A slot that is gone or lost is a gap, which capture finds.
    if (reading === undefined || reading.slot.walStatus === 'lost') {
      this.growth.forget()
      this.tell([])
      return
    }
    const { retained_bytes } = reading.slot
    this.growth.offer(retained_bytes, performance.now())
    const growth_bytes_s = this.growth.bytes_s
    const facts = measures(reading, growth_bytes_s)
    log.debug({ source, slot: name, ...facts }, 'slot watched')
    this.tell(slotPressure(reading, limits, growth_bytes_s), facts)
    if (guard.onLimit === 'release' && retained_bytes > guard.maxSlotWal_bytes && this.isHopeless(growth_bytes_s))
      await this.letGo(client, retained_bytes)
  }

  /** A slot that is over its limit and catching up, as after a night without an agent, is let catch up. */
  private isHopeless(growth_bytes_s: number | undefined): boolean {
    return growth_bytes_s !== undefined && growth_bytes_s >= 0
  }

  private async letGo(client: pg.Client, retained_bytes: number): Promise<void> {
    const { slot, guard, events, source } = this.options
    const reason =
      `the replication slot ${slot} kept ${mib(retained_bytes)} of log, past the ${mib(guard.maxSlotWal_bytes)} of ` +
      `guard.max_slot_wal, and was dropped to save the server's disk (${new Date().toISOString()})`
    if (!this.releasing.signal.aborted) this.releasing.abort(reason)
    if (await releaseSlot(client, slot, { courtesy_ms, signal: this.stop.signal })) {
      this.growth.forget()
      events.clear('slot-release', { subject: slot, message: `${slot} could be dropped` })
      events.once('slot-released', {
        severity: 'error',
        message: `SLOT RELEASED: ${reason}. Nothing is captured until it is calm again; what is archived stays restorable`,
        facts: { slot, retained_bytes, limit_bytes: guard.maxSlotWal_bytes },
      })
    } else if (!this.stop.signal.aborted) {
      events.raise('slot-release', {
        severity: 'error',
        subject: slot,
        message: `the replication slot ${slot} of ${source} is past its limit and cannot be dropped: who uses it does not end`,
      })
    }
  }

  private tell(findings: readonly Finding[], facts: Readonly<Record<string, unknown>> = {}): void {
    const { events, slot } = this.options
    for (const known of this.told.values()) known.absent++
    for (const { code, level, object, why, hint } of findings) {
      const [kind, subject] = [code as EventKind, object ?? slot]
      this.told.set(`${kind} ${subject}`, { kind, subject, absent: 0 })
      const severity = level === 'error' ? 'error' : 'warning'
      events.raise(kind, { severity, subject, message: `${subject}: ${why}`, facts: { ...facts, hint } })
    }
    for (const [key, { kind, subject, absent }] of this.told) {
      // What comes and goes around a threshold is told once.
      if (absent < looksToClear) continue
      this.told.delete(key)
      events.clear(kind, { subject, message: `${subject}: ${kind} is over`, facts })
    }
  }

  private async open(): Promise<pg.Client> {
    const settings = { search_path: '', idle_session_timeout: '0', statement_timeout: '30s' }
    const client = await connect(this.options.conninfo, {
      application: 'walback guard',
      settings,
      signal: this.stop.signal,
    })
    client.on('error', () => {
      if (this.client === client) this.client = undefined
    })
    return client
  }
}

const usualInterval_ms = 10_000
const patience_ms = 90_000
/** What has been received is stored meanwhile, if the store takes it. */
const courtesy_ms = 5000
const looksToClear = 6
