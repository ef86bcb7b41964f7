import { quoteIdent } from '../model/identifier.ts'
import { isSame, optionClauses, pair, qualify, repairComment, repairNeeds, type Script } from './repair-script.ts'
import type {
  ConstraintState,
  IndexState,
  PolicyState,
  RelationState,
  RuleState,
  StatisticsState,
  TriggerState,
} from './repair-state.ts'
import { addConstraint, createPolicy } from './state-sql.ts'

/**
 * What hangs on a relation, by name. What has to go, or to be made anew, is retired first, while the columns that it
 * needs are there; what is missing then is made when its columns are as they should be.
 */
export function retireParts(script: Script, want: RelationState, have: RelationState): RelationState {
  const on = qualify(want)
  const inherited = (kind: string, name: string): void =>
    script.cannot(`${kind} ${quoteIdent(name)} comes from its parent and is another one`)
  const retire = <T extends Named>(
    kind: string,
    wanted: T[] | undefined,
    had: T[] | undefined,
    look: (part: T) => unknown,
  ): T[] =>
    (had ?? []).filter((part) => {
      const other = wanted?.find(({ name }) => name === part.name)
      if (other !== undefined && isSame(look(part), look(other))) return true
      if (part.inherited) inherited(kind.toLowerCase(), part.name)
      else script.add(`DROP ${kind} ${quoteIdent(part.name)} ON ${on}`)
      return part.inherited === true
    })
  const policies = retire('POLICY', want.policies, have.policies, ({ comment, ...policy }) => policy)
  const rules = retire('RULE', want.rules, have.rules, ({ definition }) => definition)
  const triggers = retire('TRIGGER', want.triggers, have.triggers, ({ definition }) => definition)
  const statistics = (have.statistics ?? []).filter((part) => {
    const isKept = want.statistics?.some(
      (other) => qualify(other) === qualify(part) && other.definition === part.definition,
    )
    if (!isKept) script.add(`DROP STATISTICS ${qualify(part)}`)
    return isKept
  })
  const foreignKeys = retireConstraints(
    script,
    `ALTER TABLE ${on}`,
    want.constraints,
    have.constraints?.filter(isForeignKey),
  )
  const indexes = retireIndexes(script, want, have)
  const keys = retireConstraints(
    script,
    `ALTER TABLE ${on}`,
    want.constraints,
    have.constraints?.filter((c) => !isForeignKey(c)),
  )
  return { ...have, policies, rules, triggers, statistics, indexes, constraints: [...keys, ...foreignKeys] }
}

interface Named {
  readonly name: string
  readonly inherited?: boolean | undefined
}

export const isForeignKey = ({ type }: ConstraintState): boolean => type === 'foreign key'

const body = ({ type, definition }: ConstraintState): unknown => [type, definition.replace(/ NOT VALID$/, '')]

/** The same constraint, if perhaps not validated; validation can be caught up on, not taken back. */
const isKept = (want: ConstraintState, have: ConstraintState): boolean =>
  isSame(body(want), body(have)) && (have.invalid === true || want.invalid !== true)

/** Drops what is not wanted, but what is wanted under another name. */
export function retireConstraints(
  script: Script,
  alter: string,
  want: readonly ConstraintState[] | undefined,
  have: readonly ConstraintState[] | undefined,
): ConstraintState[] {
  const twins = new Set<string>()
  return (have ?? []).filter((constraint) => {
    const other = want?.find(({ name }) => name === constraint.name)
    if (other !== undefined && isKept(other, constraint)) return true
    const twin = want?.find(
      (w) => !twins.has(w.name) && isKept(w, constraint) && !have?.some(({ name }) => name === w.name),
    )
    if (twin !== undefined && other === undefined) {
      twins.add(twin.name)
      return true
    }
    if (constraint.inherited)
      script.cannot(`constraint ${quoteIdent(constraint.name)} comes from its parent and is another one`)
    else script.add(`${alter} DROP CONSTRAINT ${quoteIdent(constraint.name)}`)
    return constraint.inherited === true
  })
}

/** Constraints of a table or domain, once what is not wanted is retired; `alter` is the ALTER that adds them. */
export function repairConstraints(
  script: Script,
  alter: string,
  want: readonly ConstraintState[] | undefined,
  have: readonly ConstraintState[] | undefined,
  options: { readonly on: string; readonly isChildToBe?: boolean },
): void {
  const { both, missing, extra } = pair(want, have)
  for (const [wanted, had] of both) repairConstraint(script, alter, wanted, had, options.on)
  for (const constraint of missing) {
    const twin = extra.findIndex((other) => isKept(constraint, other))
    const [other] = twin < 0 ? [] : extra.splice(twin, 1)
    if (other !== undefined) {
      script.add(`${alter} RENAME CONSTRAINT ${quoteIdent(other.name)} TO ${quoteIdent(constraint.name)}`)
      repairConstraint(script, alter, constraint, { ...other, name: constraint.name }, options.on)
    } else if (constraint.inherited && !options.isChildToBe) {
      script.cannot(`constraint ${quoteIdent(constraint.name)} is not there; it comes from its parent`)
    } else repairConstraint(script, alter, constraint, undefined, options.on)
  }
}

export function repairConstraint(
  script: Script,
  alter: string,
  want: ConstraintState,
  have: ConstraintState | undefined,
  on: string,
): void {
  const name = quoteIdent(want.name)
  if (have === undefined) script.add(`${alter} ${addConstraint(want)}`)
  else if (have.invalid && !want.invalid) script.add(`${alter} VALIDATE CONSTRAINT ${name}`)
  repairComment(script, `CONSTRAINT ${name} ON ${on}`, want, have)
}

const isConstraints = ({ constraint }: IndexState): boolean => constraint !== undefined
/** What differs in its storage parameters alone can be altered; its definition has them too. */
const isSameIndex = (want: IndexState, have: IndexState): boolean =>
  want.definition === have.definition || !isSame(want.options, have.options)

function retireIndexes(script: Script, want: RelationState, have: RelationState): IndexState[] {
  return (have.indexes ?? []).filter((index) => {
    const other = want.indexes?.find(({ name }) => name === index.name)
    // A constraint takes its index along.
    if (isConstraints(index)) return other !== undefined && isConstraints(other)
    if (other !== undefined && isSameIndex(other, index)) return true
    const isNew = (name: string): boolean => !have.indexes?.some((had) => had.name === name)
    if (want.indexes?.some((twin) => isNew(twin.name) && renamed(index, twin.name) === twin.definition)) return true
    script.add(`DROP INDEX ${qualify({ schema: want.schema, name: index.name })}`)
    return false
  })
}

/** Indexes of a table, those of constraints after these have been made. */
export function repairIndexes(script: Script, want: RelationState, have: RelationState): void {
  const { both, missing, extra } = pair(want.indexes, have.indexes)
  for (const [wanted, had] of both) repairIndex(script, want.schema, want.target, wanted, had)
  for (const index of missing) {
    const twin = extra.findIndex((other) => !isConstraints(other) && renamed(other, index.name) === index.definition)
    const [other] = twin < 0 || isConstraints(index) ? [] : extra.splice(twin, 1)
    if (other !== undefined)
      script.add(
        `ALTER INDEX ${qualify({ schema: want.schema, name: other.name })} RENAME TO ${quoteIdent(index.name)}`,
      )
    const found = other && { ...other, name: index.name, definition: index.definition }
    repairIndex(script, want.schema, want.target, index, isConstraints(index) ? madeByConstraint(index) : found)
  }
  if (!want.indexes?.some(({ clustered }) => clustered) && have.indexes?.some(({ clustered }) => clustered))
    script.add(`ALTER ${want.target} SET WITHOUT CLUSTER`)
}

/** Once the table is a partition, its indexes are. To attach one that has come along is no change. */
export function attachIndexes(script: Script, want: RelationState, have: RelationState): void {
  for (const { name, parent } of want.indexes ?? []) {
    const had = have.indexes?.find((index) => index.name === name)?.parent
    if (parent === had) continue
    const index = qualify({ schema: want.schema, name })
    if (parent === undefined) script.cannot(`index ${index} is attached to ${had} and should not be`)
    else script.add(`ALTER INDEX ${parent} ATTACH PARTITION ${index}`)
  }
}

const renamed = (index: IndexState, name: string): string =>
  index.definition.replace(` INDEX ${quoteIdent(index.name)} ON `, () => ` INDEX ${quoteIdent(name)} ON `)

/** A constraint's index as the constraint's clause makes it. */
const madeByConstraint = ({ name, definition, constraint }: IndexState): IndexState => ({
  name,
  definition,
  constraint,
})

export function repairIndex(
  script: Script,
  schema: string,
  table: string,
  want: IndexState,
  have: IndexState | undefined,
): void {
  const name = qualify({ schema, name: want.name })
  let current = have
  if (have !== undefined && !isSameIndex(want, have)) {
    if (isConstraints(want) || isConstraints(have)) {
      script.cannot(`index ${name} of a constraint is ${have.definition} and should be ${want.definition}`)
      return
    }
    script.add(`DROP INDEX ${name}`)
    current = undefined
  }
  if (current === undefined) {
    // On a partitioned table ONLY leaves it invalid, until there is one on each partition.
    const only = /^(CREATE (?:UNIQUE )?INDEX (?:"(?:[^"]|"")*") ON )ONLY /
    script.add(want.invalid ? want.definition : want.definition.replace(only, '$1'))
    const { definition, constraint, options, invalid } = want
    current = { name: want.name, definition, constraint, options, invalid }
  }
  if (want.tablespace !== current.tablespace)
    script.add(`ALTER INDEX ${name} SET TABLESPACE ${quoteIdent(want.tablespace ?? 'pg_default')}`)
  for (const clause of optionClauses(want.options, current.options)) script.add(`ALTER INDEX ${name} ${clause}`)
  const columns = new Set([...Object.keys(want.statistics ?? {}), ...Object.keys(current.statistics ?? {})])
  for (const column of columns) {
    if (want.statistics?.[column] === current.statistics?.[column]) continue
    script.add(`ALTER INDEX ${name} ALTER COLUMN ${column} SET STATISTICS ${want.statistics?.[column] ?? -1}`)
  }
  if (want.clustered && !current.clustered) script.add(`ALTER ${table} CLUSTER ON ${quoteIdent(want.name)}`)
  if (want.invalid !== current.invalid) {
    if (want.invalid) script.cannot(`index ${name} is valid and should not be`)
    else if (!/ ON ONLY /.test(want.definition)) script.add(`REINDEX INDEX ${name}`)
    else script.cannot(`index ${name} is not valid, since not every partition has one`)
  }
  repairComment(script, `INDEX ${name}`, want, current)
  repairNeeds(script, `INDEX ${name}`, want, current)
}

export function repairTriggers(script: Script, want: RelationState, have: RelationState): void {
  for (const trigger of want.triggers ?? []) {
    repairTrigger(
      script,
      qualify(want),
      trigger,
      have.triggers?.find(({ name }) => name === trigger.name),
    )
  }
}

export function repairTrigger(script: Script, table: string, want: TriggerState, have: TriggerState | undefined): void {
  const name = quoteIdent(want.name)
  let current = have
  if (have !== undefined && (want.definition !== have.definition || want.inherited !== have.inherited)) {
    if (have.inherited) {
      script.cannot(`trigger ${name} comes from its parent, and is another one`)
      return
    }
    script.add(`DROP TRIGGER ${name} ON ${table}`)
    current = undefined
  }
  if (current === undefined) {
    // A partition's copy has come with its parent's.
    if (!want.inherited) script.add(want.definition)
    current = { name: want.name, definition: want.definition }
  }
  repairFiring(script, `ALTER TABLE ONLY ${table}`, `TRIGGER ${name}`, want, current)
  repairComment(script, `TRIGGER ${name} ON ${table}`, want, current)
  repairNeeds(script, `TRIGGER ${name} ON ${table}`, want, current)
}

/** `alter` of what the trigger or rule is on; nothing for an event trigger. */
export function repairFiring(
  script: Script,
  alter: string,
  what: string,
  want: { readonly fires?: string | undefined },
  have: { readonly fires?: string | undefined } | undefined,
): void {
  if (want.fires === have?.fires) return
  const action =
    want.fires === undefined ? 'ENABLE' : want.fires === 'disabled' ? 'DISABLE' : `ENABLE ${want.fires.toUpperCase()}`
  script.add(`${alter} ${action} ${what}`.trim())
}

export function repairRules(script: Script, want: RelationState, have: RelationState): void {
  for (const rule of want.rules ?? []) {
    repairRule(
      script,
      qualify(want),
      rule,
      have.rules?.find(({ name }) => name === rule.name),
    )
  }
}

export function repairRule(script: Script, table: string, want: RuleState, have: RuleState | undefined): void {
  const name = quoteIdent(want.name)
  if (want.definition !== have?.definition)
    script.add(want.definition.replace(/^CREATE RULE/, 'CREATE OR REPLACE RULE'))
  repairFiring(script, `ALTER TABLE ${table}`, `RULE ${name}`, want, have)
  repairComment(script, `RULE ${name} ON ${table}`, want, have)
}

export function repairPolicies(script: Script, want: RelationState, have: RelationState): void {
  for (const policy of want.policies ?? []) {
    repairPolicy(
      script,
      qualify(want),
      policy,
      have.policies?.find(({ name }) => name === policy.name),
    )
  }
}

export function repairPolicy(script: Script, table: string, want: PolicyState, have: PolicyState | undefined): void {
  const name = quoteIdent(want.name)
  const isKept = have !== undefined && isSame({ ...want, comment: undefined }, { ...have, comment: undefined })
  if (have !== undefined && !isKept) script.add(`DROP POLICY ${name} ON ${table}`)
  if (!isKept) script.add(createPolicy(want, table))
  repairComment(script, `POLICY ${name} ON ${table}`, want, isKept ? have : undefined)
}

export function repairAllStatistics(script: Script, want: RelationState, have: RelationState): void {
  for (const statistics of want.statistics ?? []) {
    repairStatistics(
      script,
      statistics,
      have.statistics?.find((other) => qualify(other) === qualify(statistics)),
    )
  }
}

export function repairStatistics(script: Script, want: StatisticsState, have: StatisticsState | undefined): void {
  const name = `STATISTICS ${qualify(want)}`
  const isKept = have?.definition === want.definition
  if (have !== undefined && !isKept) script.add(`DROP ${name}`)
  if (!isKept) script.add(want.definition)
  const current = isKept ? have : undefined
  if (want.owner !== current?.owner) script.add(`ALTER ${name} OWNER TO ${quoteIdent(want.owner)}`)
  if (want.statistics !== current?.statistics) script.add(`ALTER ${name} SET STATISTICS ${want.statistics ?? -1}`)
  repairComment(script, name, want, current)
}
