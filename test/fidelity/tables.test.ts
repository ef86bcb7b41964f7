import { describe, expect, it } from 'vitest'
import { Subject } from '../restore/round-trip.ts'
import { majors, packageOf } from '../support/majors.ts'
import { round } from './round.ts'
import { computedKeys, firing, identities, partitions, references, statements, toasts } from './tables.ts'

describe.each(majors)('tables on %i', (major) => {
  it('of every kind have the rows that they had', async () => {
    await using subject = await Subject.start(packageOf(major))
    subject.also.push(
      `select what, count(*)::int from fires.fired group by 1 order by 1`,
      `select evtname, evtenabled from pg_event_trigger where evtname !~ 'walback' order by 1`,
      `select * from ident.parent order by 1, 2, tableoid::regclass::text`,
    )
    const reports = await round(subject, [
      identities,
      computedKeys,
      toasts,
      references,
      partitions,
      statements(major),
      firing,
    ])
    expect(reports.flatMap((report) => report.warnings)).toEqual([])
  })
})
