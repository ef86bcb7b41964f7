import { describe, expect, it } from 'vitest'
import { Subject } from '../restore/round-trip.ts'
import { majors, packageOf } from '../support/majors.ts'
import { edgeTables } from './edges.ts'
import { extensionTypes, ownTypes } from './own-types.ts'
import { round } from './round.ts'
import { edges, withoutInput } from './values.ts'

/** Every type of the system's that a column can be of, and is not an array. */
const columnTypes = `
  select typname as name from pg_type t
  where typnamespace = 'pg_catalog'::regnamespace and typtype in ('b', 'r', 'm') and typcategory <> 'A' order by 1`

describe.each(majors)('types on %i', (major) => {
  it("come back from base and stream: the system's, those made in SQL, those of extensions", async () => {
    await using subject = await Subject.start(packageOf(major))
    const { rows } = await subject.client.query<{ name: string }>(columnTypes)
    // A new type of a new version is to be thought of in values.ts.
    expect(rows.map(({ name }) => name)).toEqual([...Object.keys(edges(major)), ...withoutInput].sort())
    const reports = await round(subject, [edgeTables(major), ownTypes, extensionTypes])
    expect(reports.flatMap((report) => report.warnings)).toEqual([])
  })
})
