/** Random histories of DDL and DML over several sessions, with transactions, savepoints that are rolled back, and every wrapper. */
import type pg from 'pg'
import type { Random } from '../support/random.ts'
import { commands, type Things } from './commands.ts'

const thingsSql = `
  select (select coalesce(json_agg(json_build_object('name', c.oid::regclass::text, 'bare', quote_ident(c.relname), 'kind', c.relkind, 'partition', c.relispartition,
      'columns', (select coalesce(json_agg(json_build_object('name', quote_ident(a.attname), 'type', format_type(a.atttypid, null), 'generated', a.attgenerated <> '' or a.attidentity = 'a') order by attnum), '[]')
                  from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
      'constraints', (select coalesce(json_agg(quote_ident(conname) order by conname), '[]') from pg_constraint where conrelid = c.oid),
      'keyed', exists (select from pg_index where indrelid = c.oid and indisunique and indpred is null and indexprs is null)) order by c.oid), '[]')
    from pg_class c where c.relkind in ('r', 'p') and c.relnamespace in (select oid from pg_namespace where nspname in ('public', 'other', 'Third "schema"'))) as tables,
   (select coalesce(json_agg(c.oid::regclass::text order by c.oid), '[]') from pg_class c where relkind = 'i' and oid >= 16384 and relnamespace in (select oid from pg_namespace where nspname in ('public', 'other', 'Third "schema"')) and not relispartition) as indexes,
   (select coalesce(json_agg(c.oid::regclass::text order by c.oid), '[]') from pg_class c where relkind = 'v' and relnamespace = 'public'::regnamespace) as views,
   (select coalesce(json_agg(c.oid::regclass::text order by c.oid), '[]') from pg_class c where relkind = 'm') as matviews,
   (select coalesce(json_agg(c.oid::regclass::text order by c.oid), '[]') from pg_class c where relkind = 'S' and relnamespace = 'public'::regnamespace) as sequences,
   (select coalesce(json_agg(json_build_object('name', t.oid::regtype::text, 'labels', (select json_agg(enumlabel order by enumsortorder) from pg_enum where enumtypid = t.oid)) order by t.oid), '[]') from pg_type t where typtype = 'e') as enums,
   (select coalesce(json_agg(t.oid::regtype::text order by t.oid), '[]') from pg_type t where typtype = 'd' and typnamespace = 'public'::regnamespace) as domains,
   (select coalesce(json_agg(p.oid::regprocedure::text order by p.oid), '[]') from pg_proc p where pronamespace = 'public'::regnamespace) as functions,
   (select coalesce(json_agg(json_build_object('name', quote_ident(tgname), 'table', tgrelid::regclass::text) order by t.oid), '[]') from pg_trigger t where not tgisinternal and tgparentid = 0) as triggers,
   (select coalesce(json_agg(json_build_object('name', quote_ident(polname), 'table', polrelid::regclass::text) order by oid), '[]') from pg_policy) as policies`

/** How a command may reach the server. Each keeps what the command means. */
const wrappers: readonly ((sql: string, random: Random) => string)[] = [
  (sql) => sql,
  (sql) => sql,
  (sql) => `  /* a comment; create table not_this (a int) */ ${sql} -- and after`,
  (sql) => `select 1; ${sql}; select 'two'`,
  (sql) => `do $w$ begin ${sql}; end $w$`,
  (sql) => `do $w$ begin execute $x$${sql}$x$; end $w$`,
  (sql) => `do $w$ begin begin ${sql}; exception when others then raise; end; end $w$`,
  (sql) =>
    `create or replace function public.nested() returns void language plpgsql as $w$ begin execute $x$${sql}$x$; end $w$; select public.nested()`,
  (sql) =>
    `create or replace function public.in_sql() returns void language sql as $w$ ${sql} $w$; select public.in_sql()`,
  (sql) =>
    `create or replace function public.definer() returns void language plpgsql security definer as $w$ begin execute $x$${sql}$x$; end $w$; set local role app; select public.definer(); reset role`,
  (sql) => `set local session_replication_role = replica; ${sql}; set local session_replication_role = origin`,
  (sql) => `set local search_path = other, public; ${sql}; set local search_path = public`,
  (sql) =>
    `set local datestyle = 'German, DMY'; set local timezone = 'Asia/Kathmandu'; ${sql}; reset datestyle; reset timezone`,
]

/** One session of the history and what it is in the middle of. */
interface Session {
  readonly client: pg.Client
  isOpen: boolean
  /** In its open transaction: it may hold locks that nobody can read past. */
  hasDdl: boolean
  did: string[]
}

export class DdlHistory {
  readonly counts = { committed: 0, ddl: 0, rows: 0, failed: 0 }
  /** What was committed, for whoever looks for the cause of a difference. */
  readonly script: string[] = []
  private readonly random: Random
  private readonly sessions: readonly Session[]
  private made = 0

  constructor(random: Random, clients: readonly pg.Client[]) {
    this.random = random
    this.sessions = clients.map((client) => ({ client, isOpen: false, hasDdl: false, did: [] }))
  }

  /** Does something in some session; true when that committed. */
  async step(): Promise<boolean> {
    const { random } = this
    const session = random.pick(this.sessions)
    if (!session.isOpen) {
      await session.client.query('begin')
      await session.client.query(`set local lock_timeout = '150ms'`)
      session.isOpen = true
      session.hasDdl = false
      session.did = []
    }
    const times = random.int(1, 3)
    for (let n = 0; n < times; n++) await this.act(session)
    if (random.chance(0.4)) return false
    return this.end(session, random.chance(0.85))
  }

  /** Whether every table can be read now. */
  get isReadable(): boolean {
    return !this.sessions.some(({ isOpen, hasDdl }) => isOpen && hasDdl)
  }

  async endAll(): Promise<void> {
    for (const session of this.sessions) if (session.isOpen) await this.end(session, true)
  }

  private async end(session: Session, commits: boolean): Promise<boolean> {
    session.isOpen = false
    try {
      await session.client.query(commits ? 'commit' : 'rollback')
    } catch {
      return false
    }
    if (!commits) return false
    this.counts.committed++
    this.script.push(...session.did, '-- commit')
    return session.did.length > 0
  }

  private async act(session: Session): Promise<void> {
    const { random } = this
    const things = (await session.client.query<Things>(thingsSql)).rows[0] as Things
    const isDdl = random.chance(0.55)
    const list = isDdl ? commands.ddl : commands.rows
    const made = random.pick(list)(things, random, () => `n${++this.made}`)
    if (made === undefined) return
    const sql = isDdl ? random.pick(wrappers)(made, random) : made
    // A twin that is rolled back has the same text as what stays, or almost.
    const isTwin = isDdl && random.chance(0.1)
    session.hasDdl ||= isDdl || /^truncate/.test(made)
    await session.client.query('savepoint s')
    try {
      if (isTwin) {
        const twin = made.replaceAll(/\bint\b/g, 'text')
        await session.client.query(`savepoint t; ${twin}; rollback to savepoint t; ${made}`)
      } else await session.client.query(sql)
      if (random.chance(0.1)) {
        await session.client.query('rollback to savepoint s')
        return
      }
      await session.client.query('release savepoint s')
      session.did.push(isTwin ? `${made} -- after a twin` : sql)
      this.counts[isDdl ? 'ddl' : 'rows']++
    } catch (error) {
      this.counts.failed++
      if (process.env.WALBACK_SHOW === 'errors') console.log((error as Error).message, '<-', sql)
      await session.client.query('rollback to savepoint s')
    }
  }
}

export const ddlHistorySchema = `
  create role app; grant create, usage on schema public to app; create schema other authorization app; create schema "Third ""schema""";
  grant all on all tables in schema public to app; grant app to current_user;
  create type mood as enum ('sad', 'ok', 'happy'); create domain positive as int check (value > 0);
  create table seed_keyed (id int primary key, t text, m mood default 'ok', at timestamptz default now()); insert into seed_keyed (id, t) select n, 'seed ' || n from generate_series(1, 20) n;
  create table seed_bag (a int, b text); insert into seed_bag select n % 3, 'b' from generate_series(1, 10) n;
  create table seed_parted (id int, k int, v text) partition by range (k); create table seed_p1 partition of seed_parted for values from (0) to (10); create table seed_rest partition of seed_parted default;
  insert into seed_parted select n, n, 'p' from generate_series(1, 20) n;
  create function tag_row() returns trigger language plpgsql as $f$ begin return new; end $f$;
  create view seed_view as select id, t from seed_keyed; create materialized view seed_mat as select count(*) as n from seed_bag`
