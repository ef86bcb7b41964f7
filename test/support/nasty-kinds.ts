/** Kinds of transaction that are hard to follow from outside: each shows one thing in its rows alone. */
import type { Kind, Session } from './load.ts'
import { awkwardTypes, awkwardValues } from './nasty-tables.ts'

const toastedLength = 200_000

const anyOf = (table: string, key = 'id'): string => `(select ${key} from nasty.${table} order by random() limit 1)`

/** A kind whose statements are one committed transaction. */
const committed = (name: string, weight: number, body: (session: Session) => Promise<void>): Kind => ({
  name,
  weight,
  run: (session) => session.transaction(() => body(session)),
})

/** A few plain changes, as filling for kinds whose point is how the transaction ends. */
export async function smallChange(session: Session): Promise<void> {
  const { random } = session
  const id = random.int(1, 400)
  switch (random.int(0, 3)) {
    case 0:
      await session.sql(
        `insert into nasty.account values ($1, $2, 1) on conflict (id) do update set owner = excluded.owner,
           balance = nasty.account.balance + 1`,
        [id, random.text(8)],
      )
      return
    case 1:
      await session.sql('update nasty.account set balance = balance + 0.01 where id between $1 and $1 + 4', [id])
      return
    case 2:
      await session.sql('insert into nasty.log (line) values ($1), ($2)', [random.text(20), null])
      return
    default:
      await session.sql('delete from nasty.account where id = $1', [id])
  }
}

const rows: Kind[] = [
  committed('many rows', 4, async (session) => {
    const count = session.random.int(2, 60)
    await session.sql(`insert into nasty.log (line) select 'line ' || n from generate_series(1, $1::int) n`, [count])
    await session.sql(
      `insert into nasty.account select n, 'many', n from generate_series($1::int, $1::int + 20) n on conflict do nothing`,
      [session.random.int(1, 400)],
    )
  }),
  committed('small change', 6, smallChange),
  committed('same values', 2, async (session) => {
    await session.sql('update nasty.account set id = id, owner = owner where id between $1 and $1 + 9', [
      session.random.int(1, 400),
    ])
  }),
  committed('bulk', 0.3, async (session) => {
    await session.sql(`insert into nasty.bulk (filler) select repeat('x', 50) || n from generate_series(1, 6000) n`)
    if (session.random.chance(0.5)) await session.sql('delete from nasty.bulk where id % 3 = 0')
  }),
]

const keys: Kind[] = [
  committed('key swap', 5, async (session) => {
    const a = session.random.int(1, 399)
    const b = session.random.int(a + 1, 400)
    const away = -session.random.int(1, 2_000_000_000)
    const move = 'update nasty.account set id = $2 where id = $1'
    await session.sql(move, [a, away])
    await session.sql(move, [b, a])
    await session.sql(move, [away, b])
  }),
  committed('pair key', 4, async (session) => {
    const { random } = session
    const key = [random.int(0, 9), `k${random.int(0, 9)}`]
    await session.sql('update nasty.pair set n = n + 1 where k1 = $1 and k2 = $2', key)
    await session.sql(`update nasty.pair set k2 = k2 || '+' where k1 = $1 and k2 = $2`, key)
    await session.sql(`insert into nasty.pair values ('again', $1, $2) on conflict do nothing`, key)
    if (random.chance(0.3)) await session.sql(`delete from nasty.pair where k2 like '%++' and k1 = $1`, key.slice(0, 1))
  }),
  committed('index identity', 4, async (session) => {
    const { random } = session
    const code = `code ${random.int(1, 80)}`
    await session.sql(`update nasty.indexed set v = coalesce(v, '') || 'x' where code = $1`, [code])
    if (random.chance(0.4)) {
      await session.sql('update nasty.indexed set code = $2 where code = $1', [code, `code ${random.int(1, 80)}`])
    }
    if (random.chance(0.3)) await session.sql('delete from nasty.indexed where code = $1', [code])
    await session.sql('insert into nasty.indexed values ($1, $2, null) on conflict do nothing', [
      1,
      `code ${random.int(1, 80)}`,
    ])
  }),
  committed('duplicates', 5, async (session) => {
    const { random } = session
    const one = '(select ctid from nasty.duplicate where a = $1 limit 1)'
    const a = random.int(0, 4)
    await session.sql(`update nasty.duplicate set b = $2 where ctid = ${one}`, [
      a,
      random.pick(['twin', 'other', '', null]),
    ])
    await session.sql(`delete from nasty.duplicate where ctid = ${one}`, [a])
    const big = random.chance(0.2) ? random.text(20_000) : null
    await session.sql(`insert into nasty.duplicate values ($1, 'twin', '{"k": 1}', $2), ($1, 'twin', '{"k": 1}', $2)`, [
      a,
      big,
    ])
    if (random.chance(0.2))
      await session.sql(`delete from nasty.duplicate where a = $1 and b is distinct from 'twin'`, [a])
  }),
  committed('partition move', 5, async (session) => {
    const { random } = session
    const id = random.int(1, 250)
    const region = random.pick(['north', 'south', 'east', 'west'])
    await session.sql('update nasty.part set region = $2 where id = $1', [id, region])
    await session.sql(`update nasty.part set v = v || '.' where id = $1 and length(v) < 100`, [id])
    await session.sql('insert into nasty.part values ($1, $2, $3) on conflict do nothing', [
      random.int(1, 250),
      region,
      '',
    ])
    if (random.chance(0.3)) await session.sql('delete from nasty.part where id = $1', [random.int(1, 250)])
    if (random.chance(0.1)) await session.sql(`update nasty.part set id = 350 - id where region = 'south' and id < 120`)
  }),
]

const values: Kind[] = [
  committed('toast insert', 2, async (session) => {
    const body = session.random.text(toastedLength)
    await session.sql('insert into nasty.document (title, body, spare) values ($1, $2, $3)', [
      'new',
      body,
      body.slice(0, 9000),
    ])
  }),
  committed('toast untouched', 6, async (session) => {
    await session.sql(`update nasty.document set version = version + 1 where id = ${anyOf('document')}`)
    if (session.random.chance(0.3)) {
      await session.sql(`update nasty.document set spare = null, title = 'short' where id = ${anyOf('document')}`)
    }
  }),
  committed('toast changed', 2, async (session) => {
    const body = session.random.pick([session.random.text(toastedLength), '', null])
    await session.sql(`update nasty.document set body = $1 where id = ${anyOf('document')}`, [body])
    await session.sql('delete from nasty.document where id < (select max(id) - 40 from nasty.document)')
  }),
  committed('awkward insert', 6, async (session) => {
    const names = Object.keys(awkwardValues)
    const casts = names.map((name, index) => `$${index + 1}::text::${awkwardTypes[name]}`)
    const chosen = names.map((name) => session.random.pick(awkwardValues[name] ?? []))
    await session.sql(`insert into nasty.awkward (${names.join(', ')}) values (${casts.join(', ')})`, chosen)
  }),
  committed('awkward change', 4, async (session) => {
    const name = session.random.pick(Object.keys(awkwardValues))
    const value = session.random.pick(awkwardValues[name] ?? [])
    const id = anyOf('awkward')
    await session.sql(`update nasty.awkward set ${name} = $1::text::${awkwardTypes[name]} where id = ${id}`, [value])
    await session.sql('delete from nasty.awkward where id < (select max(id) - 500 from nasty.awkward)')
  }),
  committed('computed', 3, async (session) => {
    await session.sql('insert into nasty.computed (n) values ($1), (null)', [session.random.int(-100, 100)])
    await session.sql(`update nasty.computed set n = n + 1 where id = ${anyOf('computed')}`)
    if (session.random.chance(0.2)) await session.sql(`delete from nasty.computed where id = ${anyOf('computed')}`)
  }),
  committed('odd names', 2, async (session) => {
    const table = '"Odd ""schema"."Table é.x"'
    const value = [session.random.int(1, 50), session.random.pick(awkwardValues.t ?? [])]
    await session.sql(
      `insert into ${table} values ($1, $2, array[$2, null, '"']) on conflict ("Key ""a""") do update set "select" = $2`,
      value,
    )
    await session.sql(`delete from ${table} where "Key ""a""" = $1`, [session.random.int(1, 50)])
  }),
]

const consequences: Kind[] = [
  committed('trigger', 4, async (session) => {
    const id = session.random.int(1, 50)
    await session.sql(`insert into nasty.audited values ($1, 'a') on conflict (id) do update set v = $2`, [
      id,
      session.random.text(5),
    ])
    await session.sql('delete from nasty.audited where id = $1', [session.random.int(1, 50)])
  }),
  committed('cascade', 4, async (session) => {
    const { random } = session
    const id = random.int(1, 30)
    // The line comes before what it refers to: the constraint is deferred.
    await session.sql('insert into nasty.ledger_line (ledger, amount) values ($1, 1.5), ($1, -2)', [id])
    await session.sql(`insert into nasty.ledger values ($1, 'l') on conflict do nothing`, [id])
    if (random.chance(0.4)) await session.sql('delete from nasty.ledger where id = $1', [random.int(1, 30)])
    if (random.chance(0.3))
      await session.sql('update nasty.ledger set id = id + 100 where id = $1', [random.int(1, 30)])
    if (random.chance(0.1)) await session.sql('delete from nasty.ledger where id > 30')
  }),
  committed('sequence only', 3, async (session) => {
    await session.sql(`select nextval('nasty.free_sequence'), nextval('nasty.falling_sequence')`)
  }),
  committed('nothing', 1, async () => {}),
]

export const rowKinds: readonly Kind[] = [...rows, ...keys, ...values, ...consequences]
