import pino from 'pino'
import { describe, expect, it } from 'vitest'
import { Events } from '../../agent/events.ts'
import { StoreWatch } from '../../agent/store-watch.ts'
import { sleep, waitFor } from '../../src/base/abort.ts'
import type { WalbackEvent } from '../../src/model/event.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'
import { StallingStorage } from '../support/faults.ts'

function collected(): { readonly events: Events; readonly told: WalbackEvent[]; readonly lines: string[] } {
  const told: WalbackEvent[] = []
  const lines: string[] = []
  const log = pino({ base: null }, { write: (line: string) => void lines.push(line) })
  return { events: new Events('app', log, (event) => told.push(event)), told, lines }
}

const brief = (told: readonly WalbackEvent[]): string[] =>
  told.map(({ kind, state, severity, subject }) => [kind, state, severity, ...(subject ? [subject] : [])].join(' '))

describe('events', () => {
  it('are told when something begins, becomes worse and is over, and not in between', () => {
    const { events, told, lines } = collected()
    const message = 'm'
    events.clear('gap', { message })
    events.raise('slot-retention', { severity: 'warning', subject: 'a', message })
    events.raise('slot-retention', { severity: 'warning', subject: 'a', message })
    events.raise('slot-retention', { severity: 'warning', subject: 'b', message })
    events.raise('slot-retention', { severity: 'error', subject: 'a', message, facts: { bytes: 7 } })
    events.raise('slot-retention', { severity: 'warning', subject: 'a', message })
    events.clear('slot-retention', { subject: 'a', message })
    events.clear('slot-retention', { subject: 'a', message })
    events.once('timeline-begun', { severity: 'warning', message })
    expect(brief(told)).toEqual([
      'slot-retention raised warning a',
      'slot-retention raised warning b',
      'slot-retention raised error a',
      'slot-retention cleared info a',
      'timeline-begun once warning',
    ])
    expect(lines).toHaveLength(told.length)
    expect(JSON.parse(lines[2] ?? '')).toMatchObject({
      level: 50,
      source: 'app',
      event: 'slot-retention',
      state: 'raised',
      subject: 'a',
      bytes: 7,
    })
  })

  it('outlast a listener that fails', () => {
    const events = new Events('app', pino({ level: 'silent' }), () => {
      throw new Error('the mail server is away')
    })
    expect(() => events.once('gap', { severity: 'error', message: 'm' })).not.toThrow()
  })
})

describe('a store that is watched', () => {
  const patience = { alarm_ms: 300, calm_ms: 300 }
  const settle = async (probe: () => boolean): Promise<void> => {
    const found = await waitFor(async () => probe() || undefined, { timeout_ms: 20_000, interval_ms: 10 })
    expect(found).toBe(true)
  }

  it('is in trouble while it works only now and then, and well again after a while', async () => {
    const { events, told } = collected()
    const store = new StallingStorage(new MemoryStorage())
    using watch = new StoreWatch(store, events, patience)
    const put = (): Promise<unknown> => watch.put('a', Buffer.from('x')).catch(() => undefined)
    for (let n = 0; told.length === 0; n++) {
      store.mode = n % 2 === 0 ? 'fail' : 'well'
      await put()
      await sleep(20)
    }
    store.release()
    await settle(() => {
      void put()
      return told.length === 2
    })
    expect(brief(told)).toEqual(['store-failing raised error', 'store-failing cleared info'])
    expect(told[0]?.message).toContain('the store is away')
  })

  it('is in trouble when it does not answer, and says for what', async () => {
    const { events, told } = collected()
    const store = new StallingStorage(new MemoryStorage())
    using watch = new StoreWatch(store, events, patience)
    store.mode = 'hang'
    const put = watch.put('segments/1', Buffer.from('x'))
    await settle(() => told.length === 1)
    expect(told[0]?.message).toContain('no answer')
    expect(told[0]?.message).toContain('segments/1')
    store.release()
    await put
    await watch.put('segments/2', Buffer.from('x'))
    await settle(() => told.length === 2)
    expect(brief(told).at(-1)).toBe('store-failing cleared info')
  })

  it('is not in trouble for a failure that passes, nor for a large object that takes its time', async () => {
    const { events, told } = collected()
    const store = new StallingStorage(new MemoryStorage())
    using watch = new StoreWatch(store, events, patience)
    store.mode = 'fail'
    await expect(watch.put('a', Buffer.from('x'))).rejects.toMatchObject({ code: 'storage' })
    store.release()
    async function* slow(): AsyncGenerator<Buffer> {
      for (let n = 0; n < 20; n++) {
        await sleep(50)
        yield Buffer.from('chunk')
      }
    }
    await watch.put('large', slow())
    expect(await watch.size('large')).toBe(100)
    expect(told).toEqual([])
  })
})
