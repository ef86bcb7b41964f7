/** Tables of a column for each of the system's types, with the values at their edges, alone and in arrays. */
import { quoteLiteral } from '../../src/model/identifier.ts'
import type { Case } from './round.ts'
import { edges, withoutInput } from './values.ts'

const referred = `
  create schema fid; create table fid."Refer ""to"" it" (n int); create type fid.mood as enum ('sad', 'ok');
  create function fid."f n"(int) returns int language sql immutable as 'select $1';
  create function fid.plus(int, int) returns int language sql immutable as 'select $1 + $2';
  create operator fid.+! (leftarg = int, rightarg = int, function = fid.plus);
  create text search configuration fid."con fig" (copy = simple);`

const tables = ['one', 'many'] as const

/** `one.id` counts values up, -1 is NULL throughout; `many` has arrays of them: flat, nested, empty, from -1 on. */
export function edgeTables(major: number): Case {
  const values = Object.entries(edges(major))
  const names = values.map(([type]) => `"${type}"`).join(', ')
  const each = (expression: (column: string) => string): string =>
    values.map(([type]) => expression(`"${type}"`)).join(', ')
  const count = Math.max(...values.map(([, texts]) => texts.length))
  const row = (n: number): string =>
    values.map(([, texts]) => quoteLiteral(texts[n % texts.length] as string)).join(', ')
  const next = `from fid.one a join fid.one b on b.id = (a.id + 1) % ${count} where a.id >= 0`
  const take = (table: string, id: number, from: number): string =>
    `update fid.${table} set (${names}) = (select ${names} from fid.${table} where id = ${from}) where id = ${id}`
  return {
    schema: [
      referred,
      ...tables.flatMap((table) => {
        const suffix = table === 'many' ? '[]' : ''
        const columns = values.map(([type]) => `"${type}" pg_catalog."${type}"${suffix}`)
        const empty = withoutInput.map((type) => `"${type}" pg_catalog."${type}"`)
        return [
          `create table fid.${table} (id int primary key, ${[...columns, ...empty].join(', ')})`,
          `create table fid.${table}_bag (like fid.${table})`,
        ]
      }),
      ...Array.from({ length: count }, (_, n) => `insert into fid.one (id, ${names}) values (${n}, ${row(n)})`),
      `insert into fid.one (id) values (-1)`,
      `insert into fid.many (id, ${names}) select a.id, ${each((c) => `array[a.${c}, null, b.${c}]`)} ${next}`,
      `insert into fid.many (id, ${names}) select 100 + a.id, ${each((c) => `array[array[a.${c}, null], array[null, b.${c}]]`)} ${next}`,
      `insert into fid.many (id, ${names}) values (-1, ${each(() => `'{}'`)})`,
      `update fid.many set ${each((c) => `${c}[-1] = ${c}[3]`)} where id in (0, 3)`,
      ...tables.map((t) => `insert into fid.${t}_bag select t.* from fid.${t} t, generate_series(1, 2)`),
    ],
    across: tables.map((t) => take(t, 0, 1)),
    during: tables.map(
      (t) => `insert into fid.${t} (id, ${names}) select id + 1000, ${names} from fid.${t} where id < 3`,
    ),
    later: tables.flatMap((t) => [
      `${take(t, 2, 1)}; ${take(t, 1, 2)}; update fid.${t} set id = -id where id = 4; delete from fid.${t} where id = 5`,
      `delete from fid.${t}_bag where ctid in (select min(ctid) from fid.${t}_bag group by id having id % 2 = 0)`,
      `update fid.${t}_bag set id = id + 5000 where ctid in (select min(ctid) from fid.${t}_bag group by id)`,
    ]),
    last: tables.map(
      (t) =>
        `${take(t, 3, -1)}; delete from fid.${t} where id > 1000; insert into fid.${t}_bag select * from fid.${t}; delete from fid.${t}_bag where id = 3`,
    ),
  }
}
