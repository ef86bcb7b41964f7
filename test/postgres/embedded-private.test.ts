import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { getPriority } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { connect } from '../../src/postgres/connect.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { removeLeftovers } from '../../src/postgres/embedded-folder.ts'

const postmasterOf = (data: string): number => Number.parseInt(readFileSync(join(data, 'postmaster.pid'), 'utf8'), 10)

/** State and parent of a process, from proc(5): "pid (name) state ppid …". */
function statOf(pid: number | string): [state: string, parent: number] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const [state = '', parent] = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return [state, Number(parent)]
  } catch {
    return undefined
  }
}

/** A zombie is dead, and stays for ever where nobody reaps. */
const isAlive = (pid: number): boolean => !['Z', undefined].includes(statOf(pid)?.[0])

it('a private server listens at its socket alone, takes nobody without its password, and steps back', async () => {
  await using server = await startEmbedded({ isPrivate: true, niceness: 19, settings: { fsync: 'off' } })
  const conninfo = resolveConninfo(server.url(), {})
  const client = await connect(conninfo)
  const { rows } = await client.query(
    `SELECT current_setting('listen_addresses') AS addresses, current_setting('password_encryption') AS password`,
  )
  expect(rows).toEqual([{ addresses: '', password: 'scram-sha-256' }])
  await client.end()
  for (const password of ['', 'another'])
    await expect(connect({ ...conninfo, password, passfile: undefined })).rejects.toMatchObject({ code: 'database' })
  const elsewhere = { ...conninfo, hosts: [{ host: '127.0.0.1', port: server.port }] }
  await expect(connect(elsewhere)).rejects.toMatchObject({ code: 'database' })
  expect(statSync(server.socketDirectory).mode & 0o077).toBe(0)
  expect(getPriority(postmasterOf(server.dataDirectory))).toBe(19)
})

const childrenOf = (parent: number): number[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && statOf(name)?.[1] === parent)
    .map(Number)

it.skipIf(process.platform !== 'linux')(
  'what is left of a server whose owner and guard were killed is found and removed, and what is in use is not',
  async () => {
    const program = fileURLToPath(new URL('embedded-left.ts', import.meta.url))
    const owner = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const [line] = await once(owner.stdout, 'data')
    const { folder, data } = JSON.parse(String(line)) as { folder: string; data: string }
    await using inUse = await startEmbedded({ isPrivate: true, settings: { fsync: 'off' } })
    expect(await removeLeftovers()).not.toContain(folder)
    const postmaster = postmasterOf(data)
    const guards = childrenOf(owner.pid ?? 0).filter((pid) => pid !== postmaster)
    expect(guards).not.toEqual([])
    owner.kill('SIGSTOP')
    for (const pid of guards) process.kill(pid, 'SIGKILL')
    owner.kill('SIGKILL')
    await once(owner, 'exit')
    expect([isAlive(postmaster), existsSync(folder)]).toEqual([true, true])
    const removed = await removeLeftovers()
    expect(removed).toContain(folder)
    expect(removed).not.toContain(inUse.socketDirectory)
    expect([isAlive(postmaster), existsSync(folder)]).toEqual([false, false])
    expect(existsSync(inUse.socketDirectory)).toBe(true)
  },
)
