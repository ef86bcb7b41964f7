/** Kinds of transaction whose course is the point: savepoints, exceptions, ends other than a plain commit, truncation. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Kind, Session } from './load.ts'
import { smallChange } from './nasty-kinds.ts'

const savepoints: Kind[] = [
  {
    name: 'savepoints',
    weight: 5,
    run: (session) =>
      session.transaction(async () => {
        const depth = session.random.int(1, 5)
        for (let level = 0; level < depth; level++) {
          await session.sql(`savepoint s${level}`)
          await smallChange(session)
          if (session.random.chance(0.4)) await session.sql(`rollback to s${level}`)
          else if (session.random.chance(0.5)) await session.sql(`release s${level}`)
          await smallChange(session)
        }
        // An outer rollback takes released and unreleased inner levels with it; it may itself be released by now.
        if (session.random.chance(0.3)) {
          await session.sql('savepoint outer_level')
          await smallChange(session)
          await session.sql('savepoint inner_level')
          await smallChange(session)
          await session.sql('release inner_level')
          await session.sql('rollback to outer_level')
        }
      }),
  },
  {
    name: 'exceptions',
    weight: 4,
    run: (session) =>
      session.transaction(async () => {
        await session.sql(`do $$
          begin
            for n in 1..${session.random.int(1, 10)} loop
              begin
                insert into nasty.log (line) values ('kept or not ' || n);
                insert into nasty.log_two (line) values ('kept or not ' || n);
                if n % 2 = 0 then perform 1 / 0; end if;
              exception when division_by_zero then
                insert into nasty.log (line) values ('caught ' || n);
              end;
            end loop;
          end $$`)
      }),
  },
  {
    // PostgreSQL keeps 64 subtransactions per backend in shared memory and overflows beyond (PGPROC_MAX_CACHED_SUBXIDS).
    name: 'subtransaction overflow',
    weight: 1,
    run: (session) =>
      session.transaction(async () => {
        const count = session.random.int(70, 130)
        await session.sql(`do $$
          begin
            for n in 1..${count} loop
              begin
                insert into nasty.log (line) values ('sub ' || n);
                update nasty.account set balance = balance + 1 where id = 1 + n % 7;
                if n % 11 = 0 then raise exception 'undo'; end if;
              exception when raise_exception then null;
              end;
            end loop;
          end $$`)
      }),
  },
]

const lasting: Kind = {
  name: 'long',
  weight: 1.5,
  run: (session) =>
    session.transaction(
      async () => {
        await session.sql('insert into nasty.log (line) values ($1)', ['long, early'])
        await smallChange(session)
        await delay(session.random.int(300, 3000))
        await smallChange(session)
        await session.sql('insert into nasty.log_two (line) values ($1)', ['long, late'])
      },
      { with: session.random.chance(0.8) ? 'commit' : 'rollback' },
    ),
}

const endings: Kind[] = [
  {
    name: 'rolled back',
    weight: 4,
    run: (session) =>
      session.transaction(
        async () => {
          await smallChange(session)
          await session.sql(`insert into nasty.bulk (filler) select 'undone' from generate_series(1, 100)`)
          await session.sql(`select nextval('nasty.free_sequence')`)
        },
        { with: 'rollback' },
      ),
  },
  {
    name: 'asynchronous',
    weight: 4,
    run: (session) =>
      session.transaction(async () => {
        await session.sql('set local synchronous_commit = off')
        await smallChange(session)
      }),
  },
  { name: 'back to back', weight: 5, run: backToBack },
]

/** Two sessions that commit at the same moment, so that the order of their commit records is the server's choice. */
async function backToBack(session: Session): Promise<void> {
  const other = await session.second()
  await session.sql('begin')
  await other.sql('begin')
  await session.sql(`insert into nasty.log (line) values ('first')`)
  await other.sql(`insert into nasty.log (line) values ('second')`)
  await smallChange(session)
  await smallChange(other)
  const [mine] = await session.sql('select pg_current_xact_id()::text as xid')
  const [others] = await other.sql('select pg_current_xact_id()::text as xid')
  await Promise.all([session.sql('commit'), other.sql('commit')])
  if (session.random.chance(0.5)) await session.sample(String(session.random.pick([mine, others])?.xid))
}

const truncations: Kind = {
  name: 'truncate',
  weight: 1.2,
  run: (session) =>
    session.transaction(
      async () => {
        const { random } = session
        // All other clients queue behind a waiting truncate.
        await session.sql(`set local lock_timeout = '300ms'`)
        await session.sql(`insert into nasty.log (line) values ('before truncate')`)
        await session.sql(
          random.pick([
            'truncate nasty.log',
            'truncate nasty.log, nasty.log_two restart identity',
            'truncate nasty.bulk, nasty.log_two',
            'truncate nasty.log_two restart identity',
            'truncate nasty.duplicate',
            'truncate nasty.ledger cascade',
            'truncate nasty.part_north',
            'truncate nasty.document restart identity',
          ]),
        )
        await session.sql(`insert into nasty.log_two (line) values ('after truncate')`)
      },
      { with: session.random.chance(0.8) ? 'commit' : 'rollback' },
    ),
}

/** Two-phase commit; only for servers with max_prepared_transactions above zero. */
const twoPhase: Kind = {
  name: 'two-phase',
  weight: 4,
  run: async (session) => {
    const { random } = session
    const name = `${session.label}-${random.int(1, 1e9)}`
    await session.sql('begin')
    await smallChange(session)
    if (random.chance(0.5)) {
      await session.sql('savepoint s')
      await smallChange(session)
      if (random.chance(0.5)) await session.sql('rollback to s')
    }
    await session.sql(`insert into nasty.log_two (line) values ('two-phase')`)
    const [open] = await session.sql('select pg_current_xact_id()::text as xid')
    await session.sql(`prepare transaction '${name}'`)
    if (random.chance(0.5)) await delay(random.int(0, 800))
    const commit = random.chance(0.75)
    await session.sql(`${commit ? 'commit' : 'rollback'} prepared '${name}'`)
    if (commit && random.chance(0.5)) await session.sample(String(open?.xid))
  },
}

/** Ends what this client had prepared when its connection or the server broke. */
export async function endPrepared(session: Session): Promise<void> {
  const like = `${session.label}-%`
  const left = await session.sql(
    'select gid from pg_prepared_xacts where gid like $1 and database = current_database() order by gid',
    [like],
  )
  for (const { gid } of left) {
    await session.sql(`${session.random.chance(0.5) ? 'commit' : 'rollback'} prepared '${String(gid)}'`)
  }
}

export const endingKinds = (preparing: boolean): readonly Kind[] => [
  ...savepoints,
  lasting,
  ...endings,
  truncations,
  ...(preparing ? [twoPhase] : []),
]
