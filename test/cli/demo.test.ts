import { chmod, readdir, readFile } from 'node:fs/promises'
import { expect, it } from 'vitest'
import { type Folder, finished, folder, start } from './walback.ts'

const processesOf = async (place: string): Promise<string[]> => {
  if (process.platform !== 'linux') return []
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && name !== String(process.pid))
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')))
  return lines.filter((line) => line.includes(place)).map((line) => line.replaceAll('\0', ' ').trim())
}

/** What the demo left in its temporary folder; `tsx` keeps a cache there, which is none of ours. */
const leftIn = async (place: Folder): Promise<string[]> =>
  (await readdir(place.path)).filter((name) => !name.startsWith('tsx-') && name !== 'node-compile-cache')

const demo = (place: Folder, ...args: string[]) =>
  start(['demo', ...args], { cwd: place.path, env: { TMPDIR: place.path } })

/** A temporary folder that the account of a server may enter too, where tests run as root. */
async function openFolder(): Promise<Folder> {
  const place = await folder()
  await chmod(place.path, 0o711)
  return place
}

it('loses rows, finds the transaction and brings them back, exactly; and leaves nothing behind', async () => {
  await using place = await openFolder()
  const { exit, stdout, stderr } = await finished(demo(place, '--json'))
  expect({ exit, stderr }).toEqual({ exit: 0, stderr: '' })

  const found = JSON.parse(stdout)
  expect(found).toMatchObject({
    schema_version: 1,
    equal: true,
    kept: null,
    delete: { xid: expect.stringMatching(/^\d+$/), lsn: expect.stringMatching(/^[0-9A-F]+\/[0-9A-F]+$/) },
    versions: { postgres: expect.stringMatching(/^18\./), node: process.versions.node },
  })
  expect(found.delete.rows).toBeGreaterThan(10_000)
  const tables: { table: string; rows: number; equal: boolean }[] = found.tables
  expect(tables.map(({ table }) => table)).toEqual(['products', 'customers', 'orders', 'audit_log', 'order_items'])
  expect(tables.every(({ equal, rows }) => equal && rows > 0)).toBe(true)
  expect(tables.at(-1)?.rows).toBe(found.delete.rows)
  // Work went on before, during and after: the comparison is none of a database at rest.
  expect(found.transactions).toBeGreaterThan(100)
  const { confirmed, in_live, in_restored } = found.orders_after_delete
  expect(confirmed).toBeGreaterThan(0)
  expect({ in_live, in_restored }).toEqual({ in_live: confirmed, in_restored: 0 })
  const commands: { command: string }[] = found.commands
  expect(commands.map(({ command }) => command.replace(/\S+:\/\/\S+/, 'URL'))).toEqual([
    'walback init --db URL --repo backups',
    'walback backup --full',
    "walback log --op delete --rows '>100'",
    `walback restore --before-tx ${found.delete.xid} --into shop_before --yes`,
  ])
  expect(found.steps.map(({ name }: { name: string }) => name)).toContain('proof')

  expect(await leftIn(place)).toEqual([])
  expect(await processesOf(place.path)).toEqual([])
})

it('can be interrupted, and then leaves nothing behind either', async () => {
  await using place = await openFolder()
  const child = demo(place)
  const done = finished(child)
  // The shop is open by then, and the command that sets it up runs.
  await new Promise<void>((settle) => {
    child.stdout?.on('data', (chunk) => String(chunk).includes('Protect it') && settle())
    child.on('close', () => settle())
  })
  child.kill('SIGINT')
  expect(await done).toMatchObject({ exit: 130, stderr: 'error: interrupted\n' })
  expect(await leftIn(place)).toEqual([])
  expect(await processesOf(place.path)).toEqual([])
})

it('stays up with --keep until it is told to go, and that is no failure', async () => {
  await using place = await openFolder()
  const child = demo(place, '--keep', '--json')
  const done = finished(child)
  const found = await new Promise<{ kept?: { config: string; live: string } }>((settle, fail) => {
    let text = ''
    child.stdout?.on('data', (chunk) => {
      text += chunk
      if (text.endsWith('\n')) settle(JSON.parse(text))
    })
    child.on('close', (exit) => fail(new Error(`ended with ${exit}`)))
  })
  const status = await finished(start(['status', '--json', '-c', found.kept?.config ?? ''], { cwd: place.path }))
  expect(JSON.parse(status.stdout)).toMatchObject({ protected: true, database: { slot: { active: true } } })
  child.kill('SIGINT')
  expect((await done).exit).toBe(0)
  expect(await leftIn(place)).toEqual([])
})
