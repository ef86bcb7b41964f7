import { z } from 'zod'
import type { ObjectState } from '../model/ddl-message.ts'
import { quoteIdent } from '../model/identifier.ts'
import type { NewColumns } from './repair-columns.ts'
import { repairDefined, repairExtension, repairPrivilegesToCome, repairPublication } from './repair-object.ts'
import {
  repairConstraint,
  repairIndex,
  repairPolicy,
  repairRule,
  repairStatistics,
  repairTrigger,
  retireConstraints,
} from './repair-parts.ts'
import { repairRelation } from './repair-relation.ts'
import { qualify, repairCommon, Script } from './repair-script.ts'
import { repairSequence } from './repair-sequence.ts'
import { type CommonState, relationKinds, states } from './repair-state.ts'
import { repairComposite, repairDomain, repairEnum, repairRoutine } from './repair-type.ts'
import { align, newColumns, sameState, stateDifferences, type Versions } from './same-state.ts'

export { sameState, stateDifferences }

/** What the source's catalog calls an object. */
export interface RepairedObject {
  readonly class: string
  readonly type: string
  readonly schema: string | null
  readonly identity: string | null
  /** Of the command that touched it. */
  readonly tag?: string
}

export interface Repair {
  /**
   * To be run in this order in one transaction, each as one simple query, with nothing but pg_catalog in the
   * search_path, standard_conforming_strings on, and rows' settings (postgres/row-session.ts).
   */
  readonly statements: string[]
  /** What they do not make equal: a line for each, which names the object. What another repair mends is among it. */
  readonly unresolved: string[]
  /** Those lines that stay true when the states are equal: what rows have lost, which no state shows. */
  readonly lost: string[]
}

/**
 * The SQL that makes an object of the target what it was on the source: made, changed, or, where `want` is null,
 * dropped. Pure: both states are what `describe` said (postgres/describe-sql.ts).
 *
 * What statements do is known only when they are done (default privileges add rights to what is made; a trigger comes
 * with its partition), so describe again and call again; the second call gives what is left.
 *
 * `before` is what the target had before the command. It tells which columns the command added: their rows have one
 * value, the source's, whatever the target's clock said. Without it rows are left as they are.
 */
export function repairSql(
  want: ObjectState | null,
  have: ObjectState | null,
  object: RepairedObject,
  versions: Versions,
  before?: ObjectState | null,
): Repair {
  const script = new Script(`${object.type} ${object.identity ?? ''}`.trim(), versions.target)
  const repair: Repair = { statements: script.statements, unresolved: script.unresolved, lost: script.lost }
  if (want === null) {
    if (have !== null) drop(script, have)
    return repair
  }
  const [wanted, had] = have === null ? [want, null] : align(want, have, versions)
  if (had === null) {
    make(script, wanted, undefined, noColumns)
    if (isFilled(want, object.tag)) script.lose('it is made anew, without the rows that it had')
  } else if (want['stale'] === true && !isMade.test(object.tag ?? '') && !sameState(want, have, versions)) {
    script.cannot(
      'it differs, but what was recorded of it may not be the whole of it: it was changed in a transaction that did not see what others had done',
    )
  } else if (had['kind'] !== wanted['kind'] && !isOneKind(wanted, had)) {
    if (isFilled(have ?? {}, undefined))
      script.cannot(`it is a ${String(had['kind'])} and should be a ${String(wanted['kind'])}`)
    else {
      drop(script, had)
      make(script, wanted, undefined, noColumns)
    }
  } else make(script, wanted, had, newColumns(had, before))
  return repair
}

/** Commands whose objects nobody else can have changed before. */
const isMade = /^(?:CREATE (?:TABLE|SEQUENCE|INDEX|TYPE|DOMAIN|SCHEMA)|SELECT INTO)/

const noColumns: NewColumns = { names: new Set() }

/** A table with rows, which a state does not hold. The rows of a table that its command made come with the stream. */
const isFilled = (state: ObjectState, tag: string | undefined): boolean =>
  (state['kind'] === 'table' || state['kind'] === 'partitioned table') &&
  state['empty'] !== true &&
  !/^(CREATE|SELECT INTO|IMPORT)/.test(tag ?? '')

/** Kinds that one command turns into the other. */
const isOneKind = (a: ObjectState, b: ObjectState): boolean =>
  b['kind'] === 'shell type' && (a['kind'] === 'base type' || a['kind'] === 'range')

function make(script: Script, want: ObjectState, have: ObjectState | undefined, fresh: NewColumns): void {
  const maker = makers[String(want['kind'])] ?? (typeof want['definition'] === 'string' ? makers['defined'] : undefined)
  try {
    if (maker !== undefined) maker(script, want, have, fresh)
    else makeOther(script, states.common.parse(want), have && states.common.parse(have))
  } catch (error) {
    if (!(error instanceof z.ZodError)) throw error
    script.cannot(`what was recorded of it cannot be read: ${z.prettifyError(error).replaceAll('\n', ' ')}`)
  }
}

type Maker = (script: Script, want: ObjectState, have: ObjectState | undefined, fresh: NewColumns) => void

/** Reads both states as what they are. */
const maker =
  <T>(schema: z.ZodType<T>, repair: (script: Script, want: T, have: T | undefined, fresh: NewColumns) => void): Maker =>
  (script, want, have, fresh) =>
    repair(script, schema.parse(want), have && schema.parse(have), fresh)

const relation = maker(states.relation, repairRelation)
const routine = maker(states.routine, repairRoutine)

/** By kind; a kind that is not among them has a definition, or cannot be made. */
const makers: Readonly<Record<string, Maker>> = {
  ...Object.fromEntries(relationKinds.map((kind) => [kind, relation])),
  sequence: maker(states.sequence, (script, want, have) => repairSequence(script, want, have, { isOfColumn: false })),
  enum: maker(states.enumeration, repairEnum),
  domain: maker(states.domain, repairDomain),
  'composite type': maker(states.composite, repairComposite),
  function: routine,
  procedure: routine,
  aggregate: routine,
  extension: maker(states.extension, repairExtension),
  publication: maker(states.publication, repairPublication),
  'default privileges': maker(states.defaultPrivileges, repairPrivilegesToCome),
  schema: maker(states.schema, (script, want, have) => {
    if (have === undefined) script.add(`CREATE ${want.target}`)
    repairCommon(script, want, have)
  }),
  defined: maker(states.defined, repairDefined),
  // What belongs to a relation or domain, and was touched by itself.
  index: maker(states.index, (script, want, have) => {
    if (have === undefined && want.constraint !== undefined) {
      script.cannot('it is not there; it comes with its constraint')
      return
    }
    repairIndex(script, want.schema, `TABLE ${want.table}`, want, have)
    if (want.parent !== undefined && want.parent !== have?.parent)
      script.add(`ALTER INDEX ${want.parent} ATTACH PARTITION ${qualify(want)}`)
  }),
  trigger: maker(states.trigger, (script, want, have) => repairTrigger(script, want.relation, want, have)),
  rule: maker(states.rule, (script, want, have) => repairRule(script, want.relation, want, have)),
  policy: maker(states.policy, (script, want, have) => repairPolicy(script, want.relation, want, have)),
  statistics: maker(states.statistics, repairStatistics),
  constraint: maker(states.constraint, (script, want, have) => {
    if (have === undefined && want.inherited) {
      script.cannot('it is not there; it comes from its parent')
      return
    }
    const isDomains = want.domain !== undefined
    const on = isDomains ? `DOMAIN ${want.domain}` : (want.relation ?? '')
    const alter = `ALTER ${isDomains ? on : `TABLE ${on}`}`
    const [kept] = have === undefined ? [] : retireConstraints(script, alter, [want], [have])
    repairConstraint(script, alter, want, kept, on)
  }),
  default: maker(states.default, (script, want) => {
    if (want.generated) script.cannot('it is generated otherwise')
    else
      script.add(
        `ALTER TABLE ONLY ${want.relation} ALTER COLUMN ${quoteIdent(want.column)} SET DEFAULT ${want.expression}`,
      )
  }),
}

/** What is known by no more than its name, such as a subscription or a large object. */
function makeOther(script: Script, want: CommonState, have: CommonState | undefined): void {
  if (have !== undefined && want.target !== undefined) repairCommon(script, want, have)
  else script.cannot(have === undefined ? 'it is not there' : 'it cannot be changed')
}

/** What others depend on stays, and the server's refusal says so. */
function drop(script: Script, have: ObjectState): void {
  if (have['kind'] === 'default privileges') {
    repairPrivilegesToCome(script, undefined, states.defaultPrivileges.parse(have))
    return
  }
  const { kind, target, relation, domain, name, table, constraint, column, identityOf, identity } = texts.parse(have)
  const on = relation ?? table ?? ''
  if (kind === 'constraint')
    script.add(`ALTER ${domain ? `DOMAIN ${domain}` : `TABLE ${on}`} DROP CONSTRAINT ${quoteIdent(name ?? '')}`)
  else if (kind === 'index' && constraint) script.add(`ALTER TABLE ${on} DROP CONSTRAINT ${quoteIdent(constraint)}`)
  else if (kind === 'default')
    script.add(`ALTER TABLE ONLY ${on} ALTER COLUMN ${quoteIdent(column ?? '')} DROP DEFAULT`)
  else if (kind === 'large object') script.add(`SELECT pg_catalog.lo_unlink(${identity})`)
  else if (identityOf) script.cannot('it goes with its identity column')
  else if (target === undefined) script.cannot('it should not be there')
  else script.add(`DROP ${target}`)
}

/** Those parts of states, of whatever kind, that are text. */
const texts = z
  .object({
    kind: z.string(),
    target: z.string(),
    relation: z.string(),
    domain: z.string(),
    name: z.string(),
    table: z.string(),
    constraint: z.string(),
    column: z.string(),
    identityOf: z.string(),
    identity: z.string(),
  })
  .partial()
