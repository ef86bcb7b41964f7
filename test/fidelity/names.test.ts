import { describe, expect, it } from 'vitest'
import { quoteIdent } from '../../src/model/identifier.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { once, Subject } from '../restore/round-trip.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { majors, packageOf } from '../support/majors.ts'
import { ourObjects } from '../support/walback.ts'
import { changesNamed, hostile, objectsNamed, schemasOfKinds } from './names.ts'

describe.each(majors)('names on %i', (major) => {
  it('that are hostile are kept, for objects of every kind, and for the database', async () => {
    await using subject = await Subject.start(packageOf(major))
    await subject.sql(schemasOfKinds())
    for (const [number, name] of hostile.entries()) await subject.sql(...objectsNamed(name, number))
    const archive = await subject.open()
    await archive.base()
    await subject.sql(...hostile.flatMap((name, number) => changesNamed(name, number)))
    // Filled when they are restored, so as they are then.
    await subject.sql(...hostile.map((name) => `refresh materialized view k_matview.${quoteIdent(name)}`))
    await archive.catchUp()
    const golden = await fingerprint(subject.url)
    for (const [number, database] of hostile.entries()) {
      if (number !== 3 && process.env.WALBACK_LONG === undefined) continue
      const report = await subject.restoreInto({ conninfo: resolveConninfo(subject.server.url(), {}), database })
      expect(report).toMatchObject({ database, warnings: [] })
      await once(subject.server.url(), `alter database ${quoteIdent(database)} rename to found`)
      expect(differences(golden, await fingerprint(subject.server.url('found')), ourObjects)).toEqual([])
      await once(subject.server.url(), 'drop database found')
    }
  })
})
