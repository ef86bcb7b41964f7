/** A process of its own that starts a private server, says where, and waits to be killed. */
import { startEmbedded } from '../../src/postgres/embedded.ts'

const server = await startEmbedded({ isPrivate: true, settings: { fsync: 'off' } })
process.stdout.write(`${JSON.stringify({ folder: server.socketDirectory, data: server.dataDirectory })}\n`)
setInterval(() => undefined, 60_000)
