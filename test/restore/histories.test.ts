import { describe, expect, it } from 'vitest'
import { oneOrBoth } from '../support/majors.ts'
import { Random } from '../support/random.ts'
import { History, historySchema } from './histories.ts'
import { open, packages, Subject } from './round-trip.ts'

const isLong = process.env.WALBACK_LONG !== undefined
const runs = isLong ? 20 : 1
const steps = isLong ? 3000 : 1600

describe.each(oneOrBoth(18))('random histories on %i', (major) => {
  it('are restored to any commit, whatever the memory', { timeout: 3_600_000 }, async () => {
    for (let run = 0; run < runs; run++) {
      const seed = Number(process.env.WALBACK_SEED ?? major * 1000) + run
      await using subject = await Subject.start(packages[major])
      await subject.sql(historySchema(major))
      subject.also.push("select string_agg(concat_ws('|', extra, id, v), ',' order by id) as child from only h.child")
      const archive = await subject.open()
      const sessions = await Promise.all(Array.from({ length: 3 }, () => open(subject.url)))
      const history = new History(seed)
      const random = new Random(seed + 1)
      for (let n = 0; n < steps / 2; n++) await history.step(sessions)
      while (!history.isReadable) await history.step(sessions)
      await archive.base()
      // Transactions that were open at the base are among those to come.
      for (let n = 0; n < steps / 2; n++) {
        const committed = await history.step(sessions)
        if (committed && history.isReadable && random.chance(isLong ? 0.02 : 0.04))
          await subject.note(`seed ${seed}, step ${n}`)
      }
      await history.endAll()
      await subject.note(`seed ${seed}, end`)
      expect(history.counts.committed).toBeGreaterThan(steps / 20)
      if (process.env.WALBACK_SHOW) console.log(seed, history.counts, subject.moments.length)
      await archive.catchUp()
      // pg_dump's CREATE TABLE … INHERITS puts the parent's columns first.
      const flags = ['--ignore-object', '^column h.child.|"h"."child"']
      await subject.compare({ flags, sizes: [undefined, 1, random.int(2000, 60_000)] })
      await Promise.all(sessions.map((session) => session.end()))
    }
  })
})
