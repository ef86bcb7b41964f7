import { describe, expect, it } from 'vitest'
import { Subject } from '../restore/round-trip.ts'
import { majors, packageOf } from '../support/majors.ts'
import { archiveCases } from './round.ts'

const isLong = process.env.WALBACK_LONG !== undefined
/** MiB of one value. COPY and the change stream carry a row as text of less than 1 GiB: see docs/what-is-captured.md. */
const [text, bytes] = isLong ? [440, 400] : [64, 8]

describe.each(isLong ? majors : majors.slice(-1))('large values on %i', (major) => {
  it(`of ${text} MiB come back, from base and stream`, { timeout: 1_800_000 }, async () => {
    await using subject = await Subject.start(packageOf(major))
    const schema = [
      `create table large (id int primary key, small int, t text, b bytea); alter table large alter t set storage external, alter b set storage external; create table large_bag (n int, t text)`,
      // Written, two of nine bytes of text take two, and every one of bytea.
      `create function large_text(mib int) returns text language sql as $$ select repeat(E'\\\\abcdefg\\t', mib * 1024 * 1024 / 9) $$; create function large_bytes(mib int) returns bytea language sql as $$ select decode(repeat('005c0a', mib * 1024 * 1024 / 3), 'hex') $$`,
      `insert into large values (1, 0, large_text(${text}), null), (2, 0, 'x', 'x'); insert into large_bag select n, large_text(2) from generate_series(1, 2) n`,
    ]
    await archiveCases(subject, [
      {
        schema,
        across: [`update large set small = 1 where id = 1`],
        later: [
          `insert into large values (3, 0, null, large_bytes(${bytes}))`,
          `update large set small = 2 where id < 3; update large_bag set n = 9 where n = 1`,
        ],
        last: [
          `update large set id = 20 where id = 1; delete from large where id = 3; delete from large_bag where n = 2`,
        ],
      },
    ])
    if (!isLong) subject.moments.shift()
    // With so little memory it is merged at first, and then applied change by change.
    await subject.compare({ sizes: [2000] })
  })

  it.runIf(isLong)(
    'of 1 GiB and more are refused by name, as they cannot be read',
    { timeout: 1_800_000 },
    async () => {
      await using subject = await Subject.start(packageOf(major))
      const write = `with x as (select decode(repeat('00', 300 * 1024 * 1024), 'hex') as v) insert into huge select 1, v, v from x`
      await subject.sql(`create table huge (id int primary key, a bytea, b bytea)`, write)
      const archive = await subject.open()
      await expect(archive.base()).rejects.toThrow('table public.huge cannot be read')
      await subject.sql('truncate huge', write)
      await expect(archive.catchUp()).rejects.toMatchObject({
        message: expect.stringContaining('the change stream cannot go on'),
        hint: expect.stringContaining('1 GiB'),
      })
    },
  )
})
