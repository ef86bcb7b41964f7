/** The whole demo, step by step: what it shows goes through `show`, what it finds out is returned. */
import { mkdir } from 'node:fs/promises'
import path from 'node:path'
import type { Env } from '../../src/config.ts'
import { type EmbeddedServer, type Lsn, parseLsn, sleep, startEmbedded, WalbackError } from '../../src/index.ts'
import { count, plural } from '../format.ts'
import { type Accident, deleteWithoutWhere } from './accident.ts'
import { startAgent } from './agent.ts'
import { type Visitor, visit } from './client.ts'
import { type Place, type Ran, walback } from './own-command.ts'
import { type Aftermath, type Comparison, compare, comparisonTable, examineAftermath } from './proof.ts'
import { grantsSql, rolesSql, shopRoles, shopSql, shopTables } from './shop.ts'
import { readTables } from './state.ts'
import { type Step, Steps } from './steps.ts'
import { Traffic } from './traffic.ts'

const clients = 4
const trafficBefore_ms = 2500
const trafficAfter_ms = 1500
const liveName = 'shop'
const restoredName = 'shop_before'

export interface DemoOptions {
  readonly env: Env
  readonly signal: AbortSignal
  readonly show: Show
  /** Called when all is done and all still runs, but for the traffic; what runs goes when it returns, as it should on abort. */
  readonly whileUp: (findings: Findings, signal: AbortSignal) => Promise<void>
}

/** Where a reader sees what happens. */
export interface Show {
  heading(text: string): void
  text(text: string): void
}

export interface Findings {
  readonly postgres: string
  readonly folder: string
  readonly liveUrl: string
  readonly restoredUrl: string
  readonly accident: Accident
  /** Where the transaction ends, as `walback log` says. */
  readonly lsn: Lsn
  readonly commands: readonly Ran[]
  readonly comparison: Comparison
  readonly aftermath: Aftermath
  readonly transactions: number
  readonly steps: readonly Step[]
}

/** Runs it all. It throws when a step fails, or when what is restored is not what there was. */
export async function runDemo(options: DemoOptions): Promise<Findings> {
  const breakdown = new AbortController()
  const signal = AbortSignal.any([options.signal, breakdown.signal])
  const steps = new Steps(signal, options.show.heading)
  await using server = await steps.take('server', 'A server', () => startServer(options.show, signal))
  const stage = new Stage({ ...options, signal }, server, (error) => breakdown.abort(error))
  const postgres = await steps.take('shop', 'A shop', () => stage.open())
  await using traffic = stage.trade()
  await steps.take('init', 'Protect it', () => stage.run('init', '--db', stage.url(liveName), '--repo', 'backups'))
  await steps.take('backup', '', () => stage.run('backup', '--full'))
  await using agent = await steps.take('agent', '', () => stage.capture())
  await steps.take('traffic', '', () => stage.watch(traffic))
  const after = await steps.take('delete', 'Forget the WHERE', () => stage.forgetWhere(traffic))
  await steps.take('archive', '', () => agent.reach(after.end, signal))
  const { xid, lsn } = await steps.take('log', 'Which transaction was it?', () => stage.find(after.accident))
  await steps.take('restore', 'The shop as it was just before', () =>
    stage.run('restore', '--before-tx', xid, '--into', restoredName, '--yes'),
  )
  const comparison = await steps.take('proof', 'Is it the same?', () => stage.prove(after.accident))
  await traffic.stop()
  const aftermath = await steps.take('aftermath', 'And the live shop?', () =>
    stage.look(traffic.orders.slice(after.ordersBefore)),
  )
  const findings: Findings = {
    postgres,
    folder: stage.folder,
    liveUrl: stage.url(liveName),
    restoredUrl: stage.url(restoredName),
    accident: after.accident,
    lsn,
    commands: stage.commands,
    comparison,
    aftermath,
    transactions: traffic.committed,
    steps: steps.taken,
  }
  await options.whileUp(findings, signal)
  if (breakdown.signal.aborted) throw breakdown.signal.reason
  return findings
}

async function startServer(show: Show, signal: AbortSignal): Promise<EmbeddedServer> {
  const server = await startEmbedded({ signal, settings: { max_slot_wal_keep_size: '4GB' } })
  show.text(`PostgreSQL ${server.major}, from npm, for this demo alone: 127.0.0.1:${server.port}`)
  return server
}

interface Delete {
  readonly accident: Accident
  /** How many orders had been confirmed when the tables were held. */
  readonly ordersBefore: number
  /** A position of the log after the commit. */
  readonly end: Lsn
}

/** Output as it stays on a terminal, where progress is one line for each phase, written over. */
const settled = (output: string): string =>
  output.replace(/^((?:schema|replay|rows|indexes|proof|stream) +)\S.*\n(?=\1\S)/gm, '')

/** The place of the action, and what can be done there. */
class Stage {
  readonly commands: Ran[] = []
  /** Within the server's own folder, which is removed with it however this process ends. */
  readonly folder: string
  private readonly server: EmbeddedServer
  private readonly show: Show
  private readonly place: Place
  private readonly fail: (error: unknown) => void

  constructor(options: DemoOptions, server: EmbeddedServer, fail: (error: unknown) => void) {
    this.server = server
    this.show = options.show
    this.fail = fail
    this.folder = path.join(server.socketDirectory, 'demo')
    this.place = { folder: this.folder, env: options.env, signal: options.signal }
  }

  url(database: string): string {
    return this.server.url(database)
  }

  /** Makes the shop; returns the server's version. */
  async open(): Promise<string> {
    await mkdir(this.folder)
    const version = await visit(this.visitor('postgres'), async (client) => {
      await client.query(rolesSql)
      await client.query(`CREATE DATABASE ${liveName}`)
      const { rows } = await client.query<{ version: string }>(`SELECT current_setting('server_version') AS version`)
      return rows[0]?.version ?? ''
    })
    const tables = await visit(this.visitor(liveName), async (client) => {
      await client.query(shopSql)
      await client.query(grantsSql)
      return readTables(client)
    })
    this.show.text(
      `database ${liveName}: ${tables.map(({ table, rows }) => `${table} ${count(rows)}`).join(', ')} rows; a view, a trigger, an enum;\naudit_log has no key. ${clients} connections buy, pay, move house and change their minds from here to the end.`,
    )
    return version
  }

  trade(): Traffic {
    const visitor = { ...this.visitor(liveName, shopRoles.application), application: 'shop' }
    return new Traffic(visitor, clients, this.fail)
  }

  /** Runs a command as a user would, and shows it with what it says. */
  async run(...words: string[]): Promise<string> {
    const ran = await walback(words, this.place)
    this.commands.push(ran)
    this.show.text(`$ ${ran.command}\n${settled(ran.output).replace(/^(?=.)/gm, '  ')}`)
    return ran.output
  }

  async capture(): ReturnType<typeof startAgent> {
    const agent = await startAgent(this.folder, this.fail)
    this.show.text('$ walback agent     # captures every commit from here on (for the demo, within its own process)')
    return agent
  }

  async watch(traffic: Traffic): Promise<void> {
    const before = traffic.committed
    await sleep(trafficBefore_ms, this.place.signal)
    this.show.text(
      `meanwhile the shop has done ${plural(traffic.committed, 'transaction')}, ${Math.round(((traffic.committed - before) * 1000) / trafficBefore_ms)} a second`,
    )
  }

  async forgetWhere(traffic: Traffic): Promise<Delete> {
    let ordersBefore = 0
    const visitor = { ...this.visitor(liveName, shopRoles.cleanup), application: 'nightly cleanup' }
    const accident = await deleteWithoutWhere(visitor, () => {
      ordersBefore = traffic.orders.length
    })
    const end = await visit(this.visitor(liveName), async (client) => {
      const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn')
      return parseLsn(rows[0]?.lsn ?? '')
    })
    this.show.text(
      `${shopRoles.cleanup}=> DELETE FROM order_items;\nDELETE ${accident.rows}\n(For the proof below it first held the ${shopTables.length} tables for a moment and noted what was in them.)\nThe shop goes on, and so the rest of the day must not be lost either.`,
    )
    await sleep(trafficAfter_ms, this.place.signal)
    return { accident, ordersBefore, end }
  }

  /** Takes what the log shows, and insists that it is the transaction that did it. */
  async find({ xid }: Accident): Promise<{ readonly xid: string; readonly lsn: Lsn }> {
    const output = await this.run('log', '--op', 'delete', '--rows', '>100')
    const found = [...output.matchAll(/^\d{4}-\S+ \S+ +tx:(\d+) +(\S+)/gm)]
    const [, shown = '', lsn = ''] = found[0] ?? []
    if (found.length === 1 && shown === xid) return { xid, lsn: parseLsn(lsn) }
    throw new WalbackError(
      'failed',
      `the log shows ${found.map((one) => one[1]).join(', ') || 'nothing'}, and it was transaction ${xid}`,
    )
  }

  async prove({ before }: Accident): Promise<Comparison> {
    const comparison = await compare(before, this.visitor(liveName), this.visitor(restoredName))
    this.show.text(comparisonTable(comparison))
    if (!comparison.equal) throw new WalbackError('failed', 'what was restored is not what there was')
    this.show.text(
      `Equal, row by row, to what was there just before the delete; and ${comparison.definitions} definitions (columns, constraints,\nindexes, view, function, trigger, rights) equal to the live ones.`,
    )
    return comparison
  }

  async look(orders: readonly number[]): Promise<Aftermath> {
    const aftermath = await examineAftermath(orders, this.visitor(liveName), this.visitor(restoredName))
    const { confirmed, in_live, in_restored, items } = aftermath
    this.show.text(
      `${plural(confirmed, 'order')} were confirmed after the delete: ${count(in_live)} are in ${liveName}, with ${plural(items, 'item')}; ${count(in_restored)} are in ${restoredName}.\nNothing was stopped, and nothing that came later was touched.`,
    )
    if (in_live === confirmed && in_restored === 0) return aftermath
    throw new WalbackError('failed', 'the live database and the restored one do not share the orders as they should')
  }

  private visitor(database: string, role?: string): Visitor {
    const url = this.url(database)
    return { url, application: 'walback demo', signal: this.place.signal, ...(role === undefined ? {} : { role }) }
  }
}
