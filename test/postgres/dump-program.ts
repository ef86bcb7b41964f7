/** Dumps a schema with the built-in pg_dump, as a program of its own, so that it can be killed. Its argument is a URL. */
import { connect } from '../../src/postgres/connect.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { dumpSchema } from '../../src/postgres/schema-dump.ts'

const conninfo = resolveConninfo(process.argv[2] ?? '', {})
const leader = await connect(conninfo)
await leader.query('BEGIN ISOLATION LEVEL REPEATABLE READ')
const { rows } = await leader.query<{ snapshot: string; version: number }>(
  `SELECT pg_export_snapshot() AS snapshot, current_setting('server_version_num')::int AS version`,
)
const { snapshot, version: serverVersion } = rows[0] as { snapshot: string; version: number }
await dumpSchema(conninfo, { snapshot, serverVersion, excludeSchemas: [], lockTimeout_ms: 600_000, prefer: 'builtin' })
await leader.end()
