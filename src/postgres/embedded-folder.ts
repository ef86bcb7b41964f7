import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { chown, lstat, mkdtemp, readdir, rename } from 'node:fs/promises'
import { createConnection, createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { codeOf } from '../base/errors.ts'
import { type Account, scratchRoot, serverAccount } from './embedded-account.ts'
import { cleanUpAfter } from './embedded-guard.ts'

/** The temporary folder of one server: its socket, its configuration and, unless it is to last, its data. */
export interface ServerFolder {
  readonly path: string
  /** Says no longer that somebody looks after it; who removes the folder calls this first. */
  letGo(): void
}

const prefix = 'walback-pg-'

/**
 * Makes the folder. As long as this process lives, a socket in it answers: that is how others tell a server in use from
 * what a killed process left, also where they cannot see this process, as in another container.
 */
export async function makeServerFolder(account: Account | undefined): Promise<ServerFolder> {
  const path = await mkdtemp(join(await scratchRoot(account), prefix))
  if (account) await chown(path, account.uid, account.gid)
  const socket = join(path, ownerName)
  const owner = await listenAt(socket)
  const letGo = (): void => {
    rmSync(socket, { force: true })
    owner.close()
  }
  return { path, letGo }
}

const ownerName = 'owner'

/** It gets its name once it answers: a socket that is there and does not answer says that its owner is dead. */
async function listenAt(path: string): Promise<Server> {
  const server = createServer((connection) => connection.destroy())
  server.listen(`${path}.new`)
  await once(server, 'listening')
  await rename(`${path}.new`, path)
  server.unref()
  return server
}

/**
 * Removes the folders of servers whose processes were killed together with the guards that should have removed them, and
 * stops what still runs there. Gives the folders.
 */
export async function removeLeftovers(): Promise<string[]> {
  const account = await serverAccount()
  const root = await scratchRoot(account)
  const ours = [process.getuid?.(), account?.uid]
  const removed: string[] = []
  for (const name of await readdir(root)) {
    if (!name.startsWith(prefix)) continue
    const folder = join(root, name)
    const entry = await lstat(folder).catch(() => undefined)
    if (!entry?.isDirectory() || !ours.includes(entry.uid)) continue
    if (!(await isAbandoned(join(folder, ownerName)))) continue
    await cleanUpAfter(join(folder, 'data'), [folder])
    removed.push(folder)
  }
  return removed
}

/** Whether the socket is there and nobody listens at it. One that is not there yet is being made. */
async function isAbandoned(path: string): Promise<boolean> {
  const connection = createConnection(path)
  try {
    await once(connection, 'connect')
    return false
  } catch (error) {
    return codeOf(error) === 'ECONNREFUSED'
  } finally {
    connection.destroy()
  }
}
