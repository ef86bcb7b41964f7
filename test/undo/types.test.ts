import { describe, expect, it } from 'vitest'
import { packages, Subject } from '../restore/round-trip.ts'
import { oneOrBoth } from '../support/majors.ts'
import { typeSchema, typeValues } from '../support/type-values.ts'
import { rowsOf, transaction, undo } from './stage.ts'

/** On 14 old rows come whole; on 18 with their keys, and are found in the base. */
describe.each(oneOrBoth(18))('values of every type on %i', (major) => {
  it('come back, with a key and without, and go again', async () => {
    await using subject = await Subject.start(packages[major])
    await subject.sql(typeSchema)
    const tables: string[] = []
    for (const [n, [type, texts]] of Object.entries(typeValues(major)).entries()) {
      const [keyed, bag] = [`odd.t${n}`, `odd.b${n}`]
      try {
        await subject.sql(
          `create table ${keyed} (id int primary key, v ${type}, w ${type}); create table ${bag} (v ${type});
           alter table ${bag} replica identity full; ${major === 14 ? `alter table ${keyed} replica identity full` : ''}`,
        )
      } catch {
        // Not every version has every type.
        continue
      }
      tables.push(keyed, bag)
      for (const [id, text] of texts.entries()) {
        try {
          await subject.client.query(`insert into ${keyed} values ($1, $2, null)`, [id, text])
          await subject.client.query(`insert into ${bag} values ($1), ($1)`, [text])
        } catch {
          // Nor every value.
        }
      }
    }
    expect(tables.length).toBeGreaterThan(150)
    const archive = await subject.open()
    if (major === 18) await archive.base()
    const before = await rowsOf(subject, ...tables)
    const xid = await transaction(
      subject,
      ...tables.map((table) =>
        table.startsWith('odd.t')
          ? `insert into ${table} select id + 1000, w, v from ${table}; update ${table} set w = v, v = null where id % 2 = 0;
             delete from ${table} where id % 3 = 1`
          : `insert into ${table} select v from ${table} where ctid < '(0,3)'; delete from ${table} where ctid = (select min(ctid) from ${table});
             update ${table} set v = null where ctid = (select max(ctid) from ${table})`,
      ),
    )
    const after = await rowsOf(subject, ...tables)
    expect(Object.keys(after).filter((table) => String(after[table]) !== String(before[table])).length).toBeGreaterThan(
      150,
    )
    const report = await undo(subject, [xid])
    expect(await rowsOf(subject, ...tables)).toEqual(before)
    await undo(subject, [String(report.xid)])
    expect(await rowsOf(subject, ...tables)).toEqual(after)
  })
})
