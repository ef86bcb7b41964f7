/** Does what a round of the fault loop has drawn, to an agent, its server, its store and the network between them. */
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'
import { sleep, waitFor } from '../../src/base/abort.ts'
import { WalbackError } from '../../src/base/errors.ts'
import type { EmbeddedServer } from '../../src/postgres/embedded.ts'
import { type AgentProcess, startAgent } from '../support/agent-process.ts'
import { compiled } from '../support/compiled.ts'
import type { StoreFaults } from '../support/flaky.ts'
import type { TestArchive } from '../support/walback.ts'
import type { CuttingProxy, Way } from './cutting-proxy.ts'
import { sql } from './proof.ts'
import type { AgentEnd, Injection, Round } from './round.ts'

const cwd = fileURLToPath(new URL('../..', import.meta.url))

/** What an agent may end with by itself: what has the slot is somebody else, or the store failed at the very start. */
const passing: readonly (number | string | undefined)[] = [11, 31]
/** A signal that comes before the program listens ends it as the system does. */
const afterStop: readonly (number | string)[] = [0, 11, 31, 'SIGTERM']
/** What a base may end with: done, with warnings, killed, overtaken, or without a server, a slot or a store. */
const afterBase: readonly (number | string)[] = [0, 1, 3, 11, 30, 31, 'SIGKILL']
/** A capture beside the agent finds the slot taken, or the server gone. */
const afterCapture = ['locked', 'database']

interface Players {
  readonly server: EmbeddedServer
  readonly archive: TestArchive
  readonly proxy: CuttingProxy
}

export class Injector implements AsyncDisposable {
  /** What came of it, for the log. */
  readonly said: string[] = []
  private readonly players: Players
  private readonly agents: AgentProcess[] = []
  private readonly beside: Promise<void>[] = []
  private readonly deadBelow: Record<Way, number> = { 'to client': 0, 'to server': 0 }
  private agent: AgentProcess | undefined

  constructor(players: Players) {
    this.players = players
    players.proxy.swallows = (way, _purpose, connection) => connection < this.deadBelow[way]
  }

  async begin({ store }: Round): Promise<void> {
    this.agent = this.start(store)
    await isUp(this.agent)
  }

  /** Waits until the agent has stored something since the last injection, or the time is up. */
  async stored(timeout_ms: number): Promise<boolean> {
    const known = this.agent
    const before = countStored(known)
    const isBack = async (): Promise<true | undefined> => {
      this.replaceIfGone()
      return countStored(this.agent) > (this.agent === known ? before : 0) || undefined
    }
    return (await waitFor(isBack, { timeout_ms, interval_ms: 20 })) === true
  }

  async inject(injection: Injection): Promise<void> {
    this.replaceIfGone()
    const { proxy, archive } = this.players
    switch (injection.kind) {
      case 'network cut':
        return proxy.cutAll()
      case 'network half open':
        this.deadBelow[injection.way] = proxy.connected
        return
      case 'network slow':
        return this.runBeside(this.slowNetwork(injection.delay_ms, injection.for_ms))
      case 'agent':
        await this.endAgent(this.agent, injection.by)
        this.agent = this.start(injection.store)
        return
      case 'server':
        return this.restartServer(injection.by, injection.down_ms)
      case 'terminate':
        return this.terminate(injection.what)
      case 'store hangs':
        return this.runBeside(this.hangStore(injection.for_ms))
      case 'incremental':
        return this.runBeside(
          archive.catchUp().then(
            () => void this.said.push('incremental done'),
            (error: unknown) => {
              if (!(error instanceof WalbackError) || !afterCapture.includes(error.code)) throw error
              this.said.push(`incremental ${error.code}`)
            },
          ),
        )
      case 'second agent':
        return this.runBeside(this.secondAgent(injection.for_ms, injection.by))
      case 'base':
        return this.runBeside(this.takeBase(injection.killed_ms))
    }
  }

  /** Ends everything that was begun, and leaves the server running and the network sound. */
  async end(round: Round): Promise<void> {
    if (round.recovers) await this.recovered()
    await this.endAgent(this.agent, round.end)
    await Promise.all(this.beside)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { proxy, server } = this.players
    for (const agent of this.agents) await agent[Symbol.asyncDispose]()
    proxy.swallows = undefined
    proxy.delay_ms = 0
    proxy.cutAll()
    await Promise.allSettled(this.beside)
    await server.start()
  }

  private start(storeFaults: StoreFaults | undefined): AgentProcess {
    const { archive, proxy } = this.players
    const stream = { segmentBytes: 128 << 10, segmentAge_ms: 100, heartbeat_ms: 1000, controlPatience_ms: 10_000 }
    const place = { url: proxy.url, repository: archive.folder, source: archive.source }
    const agent = startAgent({ ...place, ...stream, ...(storeFaults ? { storeFaults } : {}) })
    this.agents.push(agent)
    return agent
  }

  /** An agent that ended by itself is started again, as whatever supervises it would. */
  private replaceIfGone(): void {
    if (this.agent?.ended === undefined) return
    expect(passing).toContain(this.agent.ended)
    this.said.push(`agent ended with ${this.agent.ended}`)
    this.agent = this.start(undefined)
  }

  private runBeside(work: Promise<void>): void {
    work.catch(() => undefined)
    this.beside.push(work)
  }

  private async endAgent(agent: AgentProcess | undefined, by: AgentEnd): Promise<void> {
    if (agent === undefined) return
    if (by === 'kill') return agent.kill()
    const ended = await Promise.race([agent.stop(), sleep(100_000).then(() => 'never')])
    expect(afterStop, lastLines(agent)).toContain(ended)
  }

  private async restartServer(by: 'kill' | 'fast' | 'immediate', down_ms: number): Promise<void> {
    const { server } = this.players
    const begun = performance.now()
    if (by === 'kill') await server.kill()
    else {
      const stopped = server.stop(by).then(() => true)
      expect(await Promise.race([stopped, sleep(60_000).then(() => false)]), `${by} stop ends`).toBe(true)
    }
    if (by === 'fast') this.said.push(`fast stop ${Math.round(performance.now() - begun)} ms`)
    await sleep(down_ms)
    await server.start()
  }

  private async terminate(what: 'walsender' | 'control'): Promise<void> {
    const which = what === 'walsender' ? `backend_type = 'walsender'` : `application_name = 'walback control'`
    await sql(
      this.players.server.url(),
      `select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and ${which}`,
    )
  }

  private async slowNetwork(delay_ms: number, for_ms: number): Promise<void> {
    const { proxy } = this.players
    proxy.delay_ms = delay_ms
    await sleep(for_ms)
    proxy.delay_ms = 0
  }

  /** SIGUSR2 to an agent that does not listen yet would end it. */
  private async hangStore(for_ms: number): Promise<void> {
    const agent = this.agent
    if (agent === undefined || agent.lines.length === 0) return void this.said.push('nobody to hang')
    agent.signal('SIGUSR2')
    await sleep(for_ms)
    agent.signal('SIGUSR2')
  }

  private async secondAgent(for_ms: number, by: AgentEnd): Promise<void> {
    const agent = this.start(undefined)
    await isUp(agent)
    await sleep(for_ms)
    if (agent.ended === undefined) await this.endAgent(agent, by)
    else expect(passing, lastLines(agent)).toContain(agent.ended)
    this.said.push(`second agent ${agent.ended}`)
  }

  private async takeBase(killed_ms: number): Promise<void> {
    const { archive, proxy } = this.players
    const place = ['--db', proxy.url, '--repo', archive.folder, '--source', archive.source]
    const child = spawn(process.execPath, [compiled('cli/main.ts'), 'backup', '--full', ...place], { cwd })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk))
    let hasBegun = false
    child.stderr.once('data', () => {
      hasBegun = true
    })
    const gone = new Promise<number | string>((resolve) =>
      child.on('close', (code, signal) => resolve(code ?? signal ?? 'unknown')),
    )
    await Promise.race([gone, waitFor(async () => hasBegun || undefined, { timeout_ms: 30_000, interval_ms: 20 })])
    await Promise.race([gone, sleep(killed_ms)])
    child.kill('SIGKILL')
    const ended = await gone
    expect(afterBase, output).toContain(ended)
    this.said.push(`base ${ended}`)
  }

  /** Once the store is sound, the agent stores again what comes now, without anybody's help. */
  private async recovered(): Promise<void> {
    this.replaceIfGone()
    if (this.agent) await isUp(this.agent)
    this.agent?.signal('SIGHUP')
    const begun = performance.now()
    const back = await this.stored(150_000)
    expect(back, this.agent && lastLines(this.agent)).toBe(true)
    this.said.push(`recovered in ${Math.round(performance.now() - begun)} ms`)
  }
}

const countStored = (agent: AgentProcess | undefined): number =>
  agent?.lines.filter(({ msg }) => msg === 'segment stored').length ?? 0

/** It has said something, so that signals are heard, or has ended. */
const isUp = (agent: AgentProcess): Promise<true | undefined> =>
  waitFor(async () => agent.lines.length > 0 || agent.ended !== undefined || undefined, {
    timeout_ms: 60_000,
    interval_ms: 20,
  })

const lastLines = (agent: AgentProcess): string =>
  agent.lines
    .slice(-20)
    .map((line) => JSON.stringify(line))
    .join('\n')
