/** Real commands of DDL as event triggers see them, for tests of which statement they were. */
import pg from 'pg'
import { ddlCommand, ddlDropped } from '../../src/model/ddl-message.ts'
import type { CommandInput } from '../../src/postgres/ddl-statement.ts'
import type { EmbeddedServer } from '../../src/postgres/embedded.ts'

/** Triggers that say the same as capture's, each command with its texts in one message, and nothing but that. */
const triggers = `
create function lab.dropped() returns event_trigger language plpgsql security definer as $lab$
begin
  perform set_config('lab.dropped', coalesce((
    select jsonb_agg(jsonb_build_object('class', classid::regclass::text, 'oid', objid::bigint, 'sub', objsubid, 'type', object_type,
        'schema', schema_name, 'name', object_name, 'identity', object_identity, 'address', null, 'original', original, 'cascaded', normal))
      from pg_event_trigger_dropped_objects() where not is_temporary and (original or normal))::text, ''), true);
end $lab$;
create function lab.ended() returns event_trigger language plpgsql security definer set lc_messages = 'C' as $lab$
declare
  frames text;
  objects jsonb;
  dropped jsonb := coalesce(nullif(current_setting('lab.dropped', true), ''), '[]')::jsonb;
begin
  if current_setting('lab.quiet', true) = 'on' then return; end if;
  get diagnostics frames = pg_context;
  frames := case when position(e'\\n' in frames) = 0 then '' else substr(frames, position(e'\\n' in frames) + 1) end;
  perform set_config('lab.dropped', '', true);
  select coalesce(jsonb_agg(jsonb_build_object('class', coalesce(classid::regclass::text, ''), 'oid', coalesce(objid::bigint, 0),
      'sub', coalesce(objsubid, 0), 'tag', command_tag, 'type', object_type, 'schema', schema_name, 'identity', object_identity,
      'address', null, 'extension', in_extension, 'state', (select jsonb_build_object('version', extversion) from pg_extension
        where classid = 'pg_extension'::regclass and oid = objid)) order by ordinality), '[]')
    into objects from pg_event_trigger_ddl_commands() with ordinality where schema_name is distinct from 'pg_temp';
  if objects = '[]' and dropped = '[]' and tg_tag <> 'DROP OWNED' then return; end if;
  perform pg_logical_emit_message(true, 'lab', jsonb_build_object('v', 1, 'kind', 'ddl', 'tag', tg_tag,
    'query', case when frames = '' then current_query() else '' end, 'context', frames,
    'functions', case when frames like 'SQL function "%' then (
        select coalesce(jsonb_agg(jsonb_build_object('schema', n.nspname, 'name', p.proname, 'source', p.prosrc)), '[]')
          from pg_proc p join pg_namespace n on n.oid = p.pronamespace
          where prolang = (select oid from pg_language where lanname = 'sql')
            and starts_with(frames, 'SQL function "' || proname || '" statement ')) else '[]' end,
    'role', current_user, 'session', session_user, 'time', now(), 'rewritten', '[]'::jsonb, 'unknownRows', '[]'::jsonb,
    'settings', jsonb_build_object('standard_conforming_strings', current_setting('standard_conforming_strings')),
    'objects', objects, 'dropped', dropped)::text);
end $lab$;
create event trigger lab_dropped on sql_drop execute function lab.dropped();
create event trigger lab_ended on ddl_command_end execute function lab.ended();`

const noted = ddlCommand.extend({ dropped: ddlDropped.shape.objects })

/** A database that says what its DDL does; its server, which is not its own, outlives it. */
export class Lab implements AsyncDisposable {
  readonly client: pg.Client

  private constructor(client: pg.Client) {
    this.client = client
  }

  /** Makes the database that each lab of the server begins as. */
  static async prepare(server: EmbeddedServer, preparation: string): Promise<void> {
    await withClient(server.url(), (client) => client.query('create database lab_template'))
    await withClient(server.url(), (client) => client.query('create schema imp; create table imp.far (a int, b text)'))
    await withClient(server.url('lab_template'), (client) => client.query(preparation + triggers))
  }

  static async open(server: EmbeddedServer, name: string): Promise<Lab> {
    await withClient(server.url(), (client) => client.query(`create database ${name} template lab_template`))
    const client = new pg.Client({ connectionString: server.url(name) })
    await client.connect()
    await client.query(`select pg_create_logical_replication_slot('${name}', 'test_decoding')`)
    return new Lab(client)
  }

  /** Runs what no event is wanted of. */
  async quietly(sql: string): Promise<void> {
    await this.client.query(`set lab.quiet = 'on'`)
    await this.client.query(sql)
    await this.client.query(`set lab.quiet = ''`)
  }

  /** Ends a group of commands, those since the mark before. */
  async mark(): Promise<void> {
    await this.client.query(`select pg_logical_emit_message(true, 'mark', '')`)
  }

  /** The commands of each group, in commit order, as a reader of the stream has them. */
  async commands(): Promise<CommandInput[][]> {
    const { rows } = await this.client.query<{ data: string }>(
      `select data from pg_logical_slot_get_changes(current_database(), null, null) where data like 'message:%'`,
    )
    const groups: CommandInput[][] = [[]]
    for (const { data } of rows) {
      if (data.includes('prefix: mark,')) groups.push([])
      else groups.at(-1)?.push(noted.parse(JSON.parse(data.slice(data.indexOf('content:') + 'content:'.length))))
    }
    return groups.slice(0, -1)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.query('reset role')
    // A slot that is left would keep the server's log.
    await this.client.query('select pg_drop_replication_slot(current_database())')
    await this.client.end()
  }
}

async function withClient(url: string, use: (client: pg.Client) => Promise<unknown>): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await use(client)
  } finally {
    await client.end()
  }
}
