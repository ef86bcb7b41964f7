import pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { waitFor } from '../../src/base/abort.ts'
import { everything } from '../../src/model/selection.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type LiveUse, restoreIntoLive } from '../../src/restore/live.ts'
import { planRestore } from '../../src/restore/plan.ts'
import { selectTables } from '../../src/restore/selected.ts'
import { planRollback, restoreInPlace, rollBack } from '../../src/swap/in-place.ts'
import { differences, type Fingerprint, fingerprint } from '../support/fingerprint.ts'
import { ourObjects } from '../support/walback.ts'
import { once, packages, Subject } from './round-trip.ts'

type Query = (
  this: pg.Client & { readonly processID: number; readonly database: string },
  ...given: unknown[]
) => unknown

/** Ends the session of the n-th query (from 0) that `isMeant` picks, just before it is sent; counts them all. */
function endAt(
  url: string,
  n: number,
  isMeant: (sql: string, database: string) => boolean,
): { readonly count: () => number } {
  const original = pg.Client.prototype.query as unknown as Query
  let seen = 0
  const replaced: Query = function (...given) {
    const [first] = given
    // A stream of rows has to be taken at once; failure.test.ts ends those.
    if (typeof first === 'object' && first !== null && 'submit' in first) return original.apply(this, given)
    const sql = typeof first === 'string' ? first : ((first as { text?: string } | undefined)?.text ?? '')
    if (!isMeant(sql, this.database) || seen++ !== n) return original.apply(this, given)
    const end = async (): Promise<void> => {
      const killer = new pg.Client({ connectionString: url, application_name: 'killer' })
      await killer.connect()
      await original.call(killer as never, 'select pg_terminate_backend($1)', [this.processID])
      await killer.end()
    }
    return end().then(() => original.apply(this, given))
  }
  vi.spyOn(pg.Client.prototype, 'query').mockImplementation(replaced as never)
  return { count: () => seen }
}

const every = process.env.WALBACK_LONG ? 1 : 2

describe('a session that is lost at any step', () => {
  let subject: Subject
  beforeAll(async () => {
    subject = await Subject.start(packages[18])
  })
  afterAll(() => subject?.[Symbol.asyncDispose]())
  afterEach(() => void vi.restoreAllMocks())

  const prepared = async (): Promise<{ at: Subject; before: Fingerprint }> => {
    const at = await Subject.start(subject.server)
    await at.sql(
      'create table customers (id int primary key, name text)',
      'create table orders (id int primary key, customer int references customers on delete cascade, total numeric)',
      `insert into customers select n, 'c' || n from generate_series(1, 20) n`,
      'insert into orders select n, n % 20 + 1, n from generate_series(1, 100) n',
    )
    const archive = await at.open()
    await archive.base()
    await at.note('good')
    await at.sql('delete from orders where id > 50', 'update customers set name = null where id = 7')
    await archive.catchUp()
    return { at, before: await fingerprint(at.url) }
  }
  const ours = async (): Promise<unknown[]> =>
    once(subject.server.url(), `select datname from pg_database where datname like 'walback%'`)

  it.each([
    { name: 'a new table', use: { as: 'orders_before' }, tables: ['orders'] },
    { name: 'a merge', use: { merge: 'replace' }, tables: ['orders', 'customers'] },
  ] as const)('of $name leaves the live database as it was, or all of it is done', async ({ use, tables }) => {
    const { at, before } = await prepared()
    const { repository, source } = at.opened
    const put = async (): Promise<unknown> => {
      const whole = await planRestore(repository, source, at.moments[0]?.target ?? { kind: 'latest' })
      const plan = await selectTables(repository, whole, { ...everything, tables })
      return restoreIntoLive(repository, plan, resolveConninfo(at.url, {}), use as LiveUse, { jobs: 1 })
    }
    const name = new URL(at.url).pathname.slice(1)
    let steps = 0
    for (let n = 0; ; n += every) {
      const { count } = endAt(at.server.url(), n, (_, database) => database === name)
      const outcome = await put().catch((error: unknown) => error)
      vi.restoreAllMocks()
      if (count() <= n) break
      steps++
      expect({ n, outcome }).toMatchObject({ outcome: { message: expect.any(String), code: expect.any(String) } })
      expect(await ours()).toEqual([])
      expect({ n, found: differences(before, await fingerprint(at.url), ourObjects) }).toEqual({ n, found: [] })
    }
    expect(steps).toBeGreaterThan(2)
    await at[Symbol.asyncDispose]()
  })

  it('of a swap just after its commit is no hindrance: capture begins anew', async () => {
    const { at } = await prepared()
    const { repository, source, conninfo } = at.opened
    const plan = await planRestore(repository, source, at.moments[0]?.target ?? { kind: 'latest' })
    let isSwapping = false
    const original = pg.Client.prototype.query as unknown as Query
    const replaced: Query = function (...given) {
      const answer = original.apply(this, given)
      if (!isSwapping || given[0] !== 'COMMIT') return answer
      return (answer as Promise<unknown>).then(() => {
        this.end().catch(() => undefined)
        throw new Error('Connection terminated unexpectedly')
      })
    }
    vi.spyOn(pg.Client.prototype, 'query').mockImplementation(replaced as never)
    const { swapped } = await restoreInPlace(repository, plan, conninfo, {
      jobs: 1,
      onStep: (step) => {
        isSwapping = step === 'swapping'
      },
    })
    vi.restoreAllMocks()
    expect(swapped.timeline.parent).toMatchObject({ timeline: '00000001' })
    const good = at.moments[0]?.golden ?? expect.fail()
    expect(differences(good, await fingerprint(at.url), ourObjects)).toEqual([])
    await at[Symbol.asyncDispose]()
  })

  it('of a swap leaves the old database in use, or the new one in its place, and it goes on from there', async () => {
    let steps = 0
    for (let n = 0; ; n += every * 10) {
      const { at, before } = await prepared()
      const { repository, source, conninfo } = at.opened
      const plan = await planRestore(repository, source, at.moments[0]?.target ?? { kind: 'latest' })
      let isSwapping = false
      const { count } = endAt(at.server.url(), n, () => isSwapping)
      const outcome: unknown = await restoreInPlace(repository, plan, conninfo, {
        jobs: 1,
        onStep: () => {
          isSwapping = true
        },
      }).catch((error: unknown) => error)
      vi.restoreAllMocks()
      if (count() <= n) break
      steps++
      // Whoever looks next finds one of the two, open.
      const found = await waitFor(() => fingerprint(at.url).catch(() => undefined), {
        timeout_ms: 20_000,
        interval_ms: 100,
      })
      const good = at.moments[0]?.golden ?? before
      const isOld = differences(before, found ?? before, ourObjects).length === 0
      const isNew = differences(good, found ?? before, ourObjects).length === 0
      expect({ n, outcome, isOld, isNew, found: found !== undefined }).toMatchObject({ isOld: !isNew, found: true })
      if (outcome instanceof Error && isOld) {
        const { restored } = (outcome as { facts?: { restored?: string } }).facts ?? {}
        expect({ n, restored }).toEqual({ n, restored: expect.any(String) })
        const back = await planRollback({ conninfo, to: restored })
        await rollBack(back, { conninfo, repository, source })
        expect(differences(good, await fingerprint(at.url), ourObjects)).toEqual([])
      }
      await at[Symbol.asyncDispose]()
    }
    expect(steps).toBeGreaterThan(2)
  })
})
