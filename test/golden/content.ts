/** A moment of a golden repository, and what the database held then. */
export interface GoldenTarget {
  readonly what: string
  readonly lsn: string
  readonly content: string
}

/** All rows of the golden tables, as one text. */
export const contentSql = `
  select concat_ws(E'\\n',
    (select string_agg(t::text, E'\\n' order by t::text) from orders t),
    (select string_agg(t::text, E'\\n' order by t::text) from lines t),
    (select count(*) || ' ' || md5(string_agg(line, ' ' order by line)) from log)) as content`
