import { messageOf } from '../base/errors.ts'
import {
  type DdlCommand,
  type DdlMessage,
  type DroppedObject,
  isLost,
  type ObjectAddress,
  type ObjectState,
  type TouchedObject,
} from '../model/ddl-message.ts'
import { qualified } from '../model/identifier.ts'
import { copyIn } from '../postgres/copy.ts'
import {
  type CommandInput,
  candidates,
  type DdlStatement,
  isBarrier,
  rewriteForReplay,
  StatementCursor,
} from '../postgres/ddl-statement.ts'
import { LineEncoder } from './copy-text.ts'
import { withoutUnprovenChecks } from './deferred-checks.ts'
import { dropRights } from './drop-owned.ts'
import { repairSql, sameState } from './repair.ts'
import { ReplayNotes } from './replay-notes.ts'
import type { ReplayRoles } from './replay-roles.ts'
import { type Found, isStatementError, type ReplaySession } from './replay-session.ts'
import { copyInSql } from './rows.ts'
import { quietly, type TargetTables } from './target-tables.ts'
import { type Wanted, wantedObjects, wholeRelation } from './wanted-objects.ts'

/** A command with its texts in place of their ids, and with what it dropped. */
type ResolvedCommand = DdlCommand & CommandInput & { readonly dropped: readonly DroppedObject[] }

interface Hooks {
  readonly roles: ReplayRoles
  /** Applies the pending changes of rows. */
  readonly flush: () => Promise<void>
  /** Pending changes of the rows of a relation are of no interest any more. */
  readonly forget: (source: number) => void
  readonly versions: { readonly source: number; readonly target: number }
  readonly signal?: AbortSignal | undefined
}

/**
 * Replays changes of the schema, each as the event triggers told it: the statement that ran is found in its text, run
 * with its settings as its role, and what it touched is compared with what the source's catalog said of it afterwards.
 * A statement that does not give that is not the one, or is mended from that state. What cannot be mended is told.
 */
export class DdlReplay {
  private readonly session: ReplaySession
  private readonly tables: TargetTables
  private readonly hooks: Hooks
  private readonly cursor = new StatementCursor()
  private readonly encoder = new LineEncoder()
  private readonly texts = new Map<string, string>()
  private dropped: DroppedObject[] = []
  /** What the tables of the command under way were on the target before it, by their ids on the source. */
  private before: ReadonlyMap<number, ObjectState> = new Map()
  /** Objects of extension scripts, which are there once the extension's own command has been replayed. */
  private ofExtensions: TouchedObject[] = []
  /** Views that hold rows on the source, by their ids there. */
  private readonly populated = new Map<number, boolean>()
  private readonly notes = new ReplayNotes()

  constructor(session: ReplaySession, tables: TargetTables, hooks: Hooks) {
    this.session = session
    this.tables = tables
    this.hooks = hooks
  }

  async take(message: DdlMessage): Promise<void> {
    if (message.kind === 'ddl-text') this.texts.set(message.id, message.text)
    else if (message.kind === 'ddl-dropped') this.dropped.push(...message.objects)
    else if (message.kind === 'ddl-failed') this.tellFailed(message)
    else if (message.kind === 'ddl-rows') await this.replaceRows(message)
    else await this.command(message)
  }

  /** The end of a transaction of the source. */
  async commit(): Promise<void> {
    this.texts.clear()
    this.dropped = []
    await this.session.commit()
  }

  /** What the target lacks in the end, by name. */
  warnings(): readonly string[] {
    return this.notes.all()
  }

  /** Materialized views that commands of the stream filled or emptied, by their ids on the target. */
  populatedViews(): { readonly target: string; readonly populated: boolean }[] {
    return [...this.populated].flatMap(([source, populated]) => {
      const target = this.tables.target(source)
      return target === undefined ? [] : [{ target, populated }]
    })
  }

  private async command(command: DdlCommand): Promise<void> {
    const dropped = this.dropped
    this.dropped = []
    if (command.objects.length > 0 && command.objects.every((object) => object.extension)) {
      this.ofExtensions.push(...command.objects)
      return
    }
    const resolved: ResolvedCommand = {
      ...command,
      query: this.texts.get(command.query) ?? '',
      context: this.texts.get(command.context) ?? '',
      dropped,
    }
    await this.session.begin()
    await this.hooks.roles.begin(resolved)
    if (isBarrier(resolved)) await this.hooks.flush()
    await this.replay(resolved)
    await this.register(resolved)
    for (const oid of command.unknownRows) this.tellUnknownRows(resolved, oid)
  }

  /** Runs the statement that gives the recorded state, or mends what the nearest gives. */
  private async replay(command: ResolvedCommand): Promise<void> {
    const statements = await candidates(command, this.cursor)
    this.before = await this.statesBefore(command)
    const failures: { readonly error: unknown; readonly text: string }[] = []
    const last = statements.length - 1
    for (const [place, statement] of statements.entries()) {
      const replay = rewriteForReplay(statement, command)
      if (replay.kind === 'skip') {
        if (replay.report) this.notes.add(`left out (${replay.why}): ${firstLine(statement.text)}`, command.objects)
        return this.use(command, statement)
      }
      if (replay.kind === 'state') {
        this.use(command, statement)
        await this.mend(command, `${command.tag} is made from its result`)
        if (command.tag === 'DROP OWNED') await this.dropRights(command, statement)
        return
      }
      if (replay.alone !== undefined && (await this.runAlone(command, replay.alone)))
        return this.use(command, statement)
      const outcome = await this.tryStatement(command, replay.text, place === last)
      if (outcome === 'done') return this.use(command, statement)
      if (outcome !== 'differs') failures.push({ ...outcome, text: replay.text })
    }
    // None gives just that state: the one that comes nearest is the first that runs.
    for (const statement of statements.length > 1 ? statements : []) {
      const replay = rewriteForReplay(statement, command)
      if (replay.kind !== 'run' || (await this.tryStatement(command, replay.text, true)) !== 'done') continue
      return this.use(command, statement)
    }
    const [failure] = failures
    await this.mend(command, failure === undefined ? 'its text is not in the stream' : messageOf(failure.error))
    // No state tells what a GRANT gave.
    if (failure === undefined || command.objects.some(({ state }) => state !== null) || command.dropped.length > 0)
      return
    if (isOfLargeObject(failure.error)) this.notes.add(largeObjectsLeft)
    else if (!this.hooks.roles.isRefusedRight(failure.text, failure.error))
      this.notes.add(`${command.tag} was not replayed (${messageOf(failure.error)}): ${firstLine(failure.text)}`)
  }

  private async runAlone(command: ResolvedCommand, text: string): Promise<boolean> {
    const { roles } = this.hooks
    const { text: sql, count } = await roles.translate(text, command)
    if (sql === undefined || !(await this.session.runAlone(sql, command.settings, roles.runner(command)))) return false
    count()
    await this.mend(command, undefined)
    return true
  }

  private async dropRights(command: ResolvedCommand, { text }: DdlStatement): Promise<void> {
    const { roles } = this.hooks
    const failures = await dropRights(this.session, roles.dropped(text, command), roles.runner(command))
    for (const failure of failures) this.notes.add(`${command.tag} was not replayed exactly: ${failure}`)
  }

  private use(command: ResolvedCommand, statement: DdlStatement): void {
    this.cursor.use(command, statement)
  }

  /**
   * `done`; `differs`, and undone, when the state that it gives is another one and `isLast` is false; or why it failed.
   * What only concerns roles that are not there is left out, and done.
   */
  private async tryStatement(
    command: ResolvedCommand,
    text: string,
    isLast: boolean,
  ): Promise<'done' | 'differs' | { readonly error: unknown }> {
    const role = this.hooks.roles.runner(command)
    const { text: sql, count } = await this.hooks.roles.translate(text, command)
    const differs = new Error('differs')
    const run = async (as: string | undefined): Promise<void> =>
      this.session.attempt(async () => {
        if (sql !== undefined) await this.session.runAs(sql, command.settings, as)
        if (!isLast && (await this.differences(command)).length > 0) throw differs
      })
    try {
      try {
        await run(role)
      } catch (error) {
        // What its role may do, and what it was a member of, may be otherwise here.
        if (role === undefined || error === differs || !isStatementError(error)) throw error
        await run(undefined)
      }
    } catch (error) {
      if (error === differs) return 'differs'
      if (!isStatementError(error)) throw error
      return { error }
    }
    count()
    if (isLast) await this.mend(command, undefined)
    else this.notes.settle(command.objects)
    return 'done'
  }

  /** Makes what the command touched be what the source had after it. */
  private async mend(command: ResolvedCommand, why: string | undefined): Promise<void> {
    // What goes can depend on one another.
    const rounds = command.tag === 'DROP OWNED' ? 10 : 2
    // What no state shows: rows, and values of rows.
    const lost = new Set<string>()
    for (let round = 1; ; round++) {
      const different = await this.differences(command)
      if (different.length === 0) {
        // What rows have lost, no later state shows to be there again.
        if (lost.size > 0) this.notes.add([...lost].join('; '), command.objects, 'until dropped')
        else this.notes.settle(command.objects)
        return
      }
      const unresolved: string[] = []
      for (const { object, found } of different) {
        const before = this.before.get(object.oid)
        const repair = repairSql(object.state, found?.state ?? null, object, this.hooks.versions, before)
        unresolved.push(...repair.unresolved)
        for (const line of repair.lost) lost.add(line)
        for (const sql of repair.statements) {
          try {
            await this.runRepair(sql, found)
          } catch (error) {
            if (!isStatementError(error)) throw error
            if (this.hooks.roles.isRefusedOwner(object, sql, error)) continue
            if (round === rounds) unresolved.push(`${firstLine(sql)} (${messageOf(error)})`)
          }
        }
      }
      // The rows have the right values now; the catalog goes on saying what they had without that.
      this.before = new Map()
      if (round < rounds) continue
      const rest = await this.differences(command)
      if (rest.length === 0 && unresolved.length === 0 && lost.size === 0) return this.notes.settle(command.objects)
      const names = rest.map(({ object }) => `${object.type} ${object.identity}`).join(', ')
      const details = [...(why === undefined ? [] : [why]), ...unresolved, ...lost].join('; ')
      const about = (rest.length > 0 ? rest : different).map(({ object }) => object)
      if (about.every((object) => object.class.startsWith('pg_largeobject'))) return this.notes.add(largeObjectsLeft)
      this.notes.add(`${command.tag} was not replayed exactly: ${names || 'its result'} (${details})`, about)
      return
    }
  }

  /** Rows that get a value are rows that are there: what is NOT VALID is not asked of them. */
  private async runRepair(sql: string, found: Found | undefined): Promise<void> {
    if (found === undefined || !sql.startsWith('UPDATE ')) return this.session.run(sql)
    await this.session.attempt(() => withoutUnprovenChecks(this.session.client, found.oid, () => this.session.run(sql)))
  }

  /** A column that the command adds gives its rows a value; so it must be known which columns there were. */
  private async statesBefore(command: ResolvedCommand): Promise<ReadonlyMap<number, ObjectState>> {
    const states = new Map<number, ObjectState>()
    if (command.tag !== 'ALTER TABLE') return states
    for (const { oid, class: catalog } of command.objects) {
      const target = catalog === 'pg_class' ? this.tables.target(oid) : undefined
      const state = target === undefined ? undefined : await this.session.describe(catalog, target)
      if (state) states.set(oid, state)
    }
    return states
  }

  /** What is not on the target as the source had it after the command; what it dropped and is still there. */
  private async differences(command: ResolvedCommand): Promise<{ object: Wanted; found: Found | undefined }[]> {
    const { roles } = this.hooks
    const wanted = wantedObjects(command).flatMap((object) => {
      const onTarget = roles.onTarget(object)
      return onTarget === undefined ? [] : [{ ...object, ...onTarget }]
    })
    const found = await this.session.find(wanted.map(({ address }) => address))
    return wanted.flatMap((object, place) => {
      const there = found[place]
      const have = there && { ...there, state: there.state && roles.compared(there.state) }
      const isSame = sameState(object.state, have?.state ?? null, this.hooks.versions, this.before.get(object.oid))
      return isSame ? [] : [{ object, found: have }]
    })
  }

  /** Notes which relations of the target the touched ones are, so that rows find their way. */
  private async register(command: ResolvedCommand): Promise<void> {
    this.notes.forget(command.dropped)
    for (const { class: catalog, oid, sub } of command.dropped) {
      if (catalog !== 'pg_class' || sub !== 0) continue
      this.tables.drop(oid)
      this.hooks.forget(oid)
      this.populated.delete(oid)
    }
    const objects = [...this.ofExtensions, ...command.objects]
    this.ofExtensions = []
    if (objects.some((object) => object.class === 'pg_type' && /^ALTER/.test(command.tag))) this.tables.forgetAll()
    const relations = objects.filter((object) => object.class === 'pg_class' && object.address !== null)
    const addresses = relations.map((object) => ({ ...(object.address as ObjectAddress) }))
    const found = await this.session.find(addresses.map(wholeRelation))
    for (const [place, object] of relations.entries()) {
      const have = found[place]
      if (have === undefined) continue
      if (/^(table|sequence|materialized view|view|foreign table|partitioned table)/.test(object.type)) {
        await this.tables.touch(this.session.client, object.oid, have.oid)
      }
      if (object.type === 'materialized view' && typeof object.state?.populated === 'boolean')
        this.populated.set(object.oid, object.state.populated)
    }
  }

  private async replaceRows(message: Extract<DdlMessage, { kind: 'ddl-rows' }>): Promise<void> {
    const table = (await this.tables.current(this.session.client, [message.oid])).get(message.oid)
    if (table === undefined) return
    const target = { ...table, columns: message.columns }
    const places = message.columns.map((_, place) => place)
    const lines = message.rows.map((row) =>
      Buffer.concat([
        this.encoder.line(
          row.map((value) => (value === null ? null : Buffer.from(value, 'utf8'))),
          places,
        ),
        newline,
      ]),
    )
    const { client } = this.session
    const put = async (): Promise<void> => {
      if (message.first)
        await client.query(`${table.isReferenced ? 'DELETE FROM' : 'TRUNCATE'} ONLY ${qualified(table)}`)
      await copyIn(client, copyInSql(target, 'UTF8'), lines, this.hooks.signal)
    }
    const oid = this.tables.target(message.oid) as string
    await withoutUnprovenChecks(client, oid, () => quietly(client, table, put))
  }

  private tellFailed({ event, tag, message }: Extract<DdlMessage, { kind: 'ddl-failed' }>): void {
    if (isLost(event)) this.notes.add(`not followed: ${tag} (${message})`)
    else if (event === 'rows') this.notes.add(`values that ${tag} computed were computed anew (${message})`)
    else if (event === 'describe') this.notes.add(`not compared with the source: what ${tag} made (${message})`)
  }

  private tellUnknownRows(command: ResolvedCommand, oid: number): void {
    const object = command.objects.find((touched) => touched.oid === oid)
    this.notes.add(
      `values that ${command.tag} computed in ${object?.identity ?? `relation ${oid}`} were computed anew: the table was too large to be sent along`,
      [{ class: 'pg_class', oid }],
      'until dropped',
    )
  }
}

/** Large objects made since the base are not in the stream, and what is said of them finds nobody. */
const isOfLargeObject = (error: unknown): boolean => /^large object \d+ does not exist$/.test(messageOf(error))
const largeObjectsLeft = 'left out: large objects that were made after the base, with their rights and comments'

const firstLine = (sql: string): string => {
  const line = sql.trim().split('\n')[0] ?? ''
  return line.length > 120 ? `${line.slice(0, 117)}…` : line
}

const newline = Buffer.from('\n')
