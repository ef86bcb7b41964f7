import { describe, expect, it } from 'vitest'
import { once, open, packages, Subject } from '../restore/round-trip.ts'
import { oneOrBoth } from '../support/majors.ts'
import { Random } from '../support/random.ts'
import { DdlHistory, ddlHistorySchema } from './histories.ts'

const isLong = process.env.WALBACK_LONG !== undefined
const runs = isLong ? Number(process.env.WALBACK_RUNS ?? 20) : 1
const steps = isLong ? 200 : 80
const noteChance = isLong ? 0.25 : 0.12

/** A restore fills materialized views from the tables as they are, so they are to be compared as just filled. */
async function refreshViews(subject: Subject): Promise<void> {
  const views = await once<{ name: string }>(
    subject.url,
    "select oid::regclass::text as name from pg_class where relkind = 'm' order by oid",
  )
  await subject.sql(...views.map(({ name }) => `refresh materialized view ${name}`))
}

/** Rights that say what their absence says come out of a dump as absent. */
const saysTheDefault = (difference: string): boolean =>
  /^\w+ objects acl .*: golden (?:(\w+)=arwdDxtm?\/\1|-), actual (?:(\w+)=arwdDxtm?\/\2|-)$/.test(difference)

describe.each(oneOrBoth(18))('random histories of schema and rows on %i', (major) => {
  it('are restored to any commit', { timeout: 3_600_000 }, async () => {
    for (let run = 0; run < runs; run++) {
      const seed = Number(process.env.WALBACK_SEED ?? major * 100) + run
      await using subject = await Subject.start(packages[major])
      await subject.sql(ddlHistorySchema)
      const archive = await subject.open()
      const clients = await Promise.all(Array.from({ length: 3 }, () => open(subject.url)))
      const random = new Random(seed)
      const history = new DdlHistory(random, clients)
      for (let n = 0; n < steps / 4; n++) await history.step()
      await history.endAll()
      await archive.base()
      for (let n = 0; n < steps; n++) {
        const isMoment = (await history.step()) && history.isReadable && random.chance(noteChance)
        if (!isMoment) continue
        await refreshViews(subject)
        await subject.note(`seed ${seed}, step ${n}`)
      }
      await history.endAll()
      await refreshViews(subject)
      await subject.note(`seed ${seed}, end`)
      await Promise.all(clients.map((client) => client.end()))
      await archive.catchUp()
      if (process.env.WALBACK_SHOW)
        console.log(seed, history.counts, subject.moments.length, `\n${history.script.join(';\n')}`)
      expect(history.counts.ddl).toBeGreaterThan(steps / 5)
      const reports = await subject.compare({ sizes: [undefined], isAllowed: saysTheDefault })
      // An object that another session has locked is not described, so as not to wait for it.
      const isLocked = (warning: string): boolean => /^not compared with the source: .*lock timeout/.test(warning)
      expect(reports.flatMap(({ warnings }) => warnings).filter((warning) => !isLocked(warning))).toEqual([])
    }
  })
})
