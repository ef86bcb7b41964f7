import { describe, expect, it } from 'vitest'
import { typeSchema, typeValues } from '../support/type-values.ts'
import { packages, Subject } from './round-trip.ts'

describe.each([14, 18] as const)('types on %i', (major) => {
  it('come back as they were, from the base and from the stream', async () => {
    await using subject = await Subject.start(packages[major])
    await subject.sql(typeSchema)
    const missing: string[] = []
    const all = Object.entries(typeValues(major)).map(([type, texts], n) => ({
      type,
      texts,
      table: `odd.t${n}`,
      bag: `odd.b${n}`,
    }))
    const kinds: typeof all = []
    for (const kind of all) {
      const { type, texts, table, bag } = kind
      try {
        await subject.sql(
          `create table ${table} (id int primary key, v ${type}, w ${type});
           create table ${bag} (v ${type}); alter table ${bag} replica identity full`,
        )
      } catch (error) {
        missing.push(`${type}: ${(error as Error).message}`)
        continue
      }
      kinds.push(kind)
      for (const [n, text] of texts.entries()) {
        try {
          await subject.client.query(`insert into ${table} values ($1, $2, null)`, [n, text])
          await subject.client.query(`insert into ${bag} values ($1), ($1)`, [text])
        } catch (error) {
          missing.push(`${type} ${JSON.stringify(text)}: ${(error as Error).message}`)
        }
      }
    }
    if (process.env.WALBACK_SHOW) console.log(missing)
    const archive = await subject.open()
    const base = await archive.base()
    expect(base.tables.length).toBeGreaterThan(150)
    for (const { table, bag } of kinds) {
      await subject.sql(
        `insert into ${table} select id + 1000, w, v from ${table}; insert into ${table} select id + 2000, v, v from ${table} where id < 1000;
         update ${table} set w = v where id % 2 = 0; delete from ${table} where id % 5 = 3;
         insert into ${bag} select v from ${bag} where ctid::text::point <@ box '(0,0),(0,3)';
         delete from ${bag} where ctid = (select min(ctid) from ${bag}); update ${bag} set v = null where ctid = (select max(ctid) from ${bag})`,
      )
    }
    await subject.note('changes')
    await archive.catchUp()
    await subject.compare()
  })
})
