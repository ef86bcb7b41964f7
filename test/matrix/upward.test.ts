import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { edgeTables } from '../fidelity/edges.ts'
import { extensionTypes, ownTypes } from '../fidelity/own-types.ts'
import { archiveCases, type Case } from '../fidelity/round.ts'
import { computedKeys, firing, identities, partitions, references, statements, toasts } from '../fidelity/tables.ts'
import { once, Subject } from '../restore/round-trip.ts'
import { everyKindOfObject, hostileNames } from '../restore/schemas.ts'
import { majors, packageOf } from '../support/majors.ts'

const roles = `create role alice; create role bob; create role "O'Brien ""x"" é"; create role carol`

/** The objects of every kind, line by line, since a new value of an enum can be used only after its transaction. */
const objects = (major: number): Case => ({
  schema: [...hostileNames.split(/\n(?= {2}\S)/), ...everyKindOfObject(major).split(/\n(?= {2}\S)/)],
  later: [`update app.person set note = 'later' where id = 1; insert into app.person (id, name) values (77, 'new')`],
})

describe.each(majors)('what was archived from %i', (source) => {
  const rows = [edgeTables(source), ownTypes, extensionTypes, identities, computedKeys, toasts, references]
  const subjects: Subject[] = []
  let server: EmbeddedServer
  beforeAll(async () => {
    server = await startEmbedded({ package: packageOf(source), settings: { fsync: 'off' } })
    await once(server.url(), roles)
    for (const cases of [[...rows, partitions, statements(source), firing], [objects(source)]]) {
      const subject = await Subject.start(server)
      subjects.push(subject)
      await archiveCases(subject, cases)
    }
  })
  afterAll(async () => {
    for (const subject of subjects) await subject[Symbol.asyncDispose]()
    await server?.[Symbol.asyncDispose]()
  })

  it.each(majors.filter((major) => major >= source))('is restored on %i', async (major) => {
    await using target = await startEmbedded({ package: packageOf(major), settings: { fsync: 'off' } })
    await once(target.url(), roles)
    for (const subject of subjects) {
      const reports = await subject.compare({ on: target, sizes: [undefined], flags: wordedAnew(source, major) })
      expect(reports.flatMap((report) => report.warnings)).toEqual([])
    }
  })
})

/** What a version brought that the fingerprint tells otherwise from then on. */
const news: readonly { readonly since: number; readonly what: string }[] = [
  // Copies of a partitioned table's triggers are told as triggers.
  { since: 15, what: '^trigger app.dated_' },
  // Views name a column's table only where there are several.
  { since: 16, what: '^view ' },
  // Partitions have the identity of their table, NOT NULL of a domain is a constraint, and MAINTAIN is a right.
  { since: 17, what: '^column parts.list_|^constraint own.milder.milder_not_null|^acl ' },
  // The copies of a foreign key to a partitioned table are numbered in another way, and NOT NULL of tables are constraints.
  { since: 18, what: '^constraint refs.part.part_up_|^constraint own.milder.milder_not_null' },
]

function wordedAnew(source: number, target: number): string[] {
  const between = news.filter(({ since }) => source < since && since <= target).map(({ what }) => what)
  // The fingerprint lists the tables of a publication in any order.
  return ['^publication (theirs|in_schema|filtered)$', ...between].flatMap((what) => ['--ignore-object', what])
}
