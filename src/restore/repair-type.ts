import { quoteIdent } from '../model/identifier.ts'
import { repairConstraints, retireConstraints } from './repair-parts.ts'
import { isSame, literal, pair, qualify, repairComment, repairCommon, type Script } from './repair-script.ts'
import type { ColumnState, CompositeState, DomainState, EnumState, RoutineState } from './repair-state.ts'
import { attributeDefinition, createComposite, createDomain, createEnum } from './state-sql.ts'

/** Labels can be added at any place and renamed, but not dropped or moved. */
export function repairEnum(script: Script, want: EnumState, have: EnumState | undefined): void {
  const alter = `ALTER ${want.target}`
  if (have === undefined) script.add(createEnum(want))
  else {
    const labels = have.values.map((label, place) => {
      const other = want.values[place]
      const isRenamed = have.values.length === want.values.length && other !== undefined && !want.values.includes(label)
      if (!isRenamed || have.values.includes(other)) return label
      script.add(`${alter} RENAME VALUE ${literal(label)} TO ${literal(other)}`)
      return other
    })
    for (const [place, label] of want.values.entries()) {
      if (labels.includes(label)) continue
      const before = want.values[place - 1]
      const [first] = labels
      const where =
        before !== undefined ? ` AFTER ${literal(before)}` : first === undefined ? '' : ` BEFORE ${literal(first)}`
      script.add(`${alter} ADD VALUE ${literal(label)}${where}`)
      labels.splice(before === undefined ? 0 : labels.indexOf(before) + 1, 0, label)
    }
    if (!isSame(labels, want.values))
      script.cannot(
        `its labels are ${labels.map(literal).join(', ')} and should be ${want.values.map(literal).join(', ')}`,
      )
  }
  repairCommon(script, want, have)
}

export function repairDomain(script: Script, want: DomainState, have: DomainState | undefined): void {
  const alter = `ALTER ${want.target}`
  let current = have
  if (current === undefined) {
    script.add(createDomain(want))
    const { target, schema, name, kind, type, collation } = want
    current = { target, schema, name, kind, type, collation, default: want.default }
  }
  if (want.type !== current.type || want.collation !== current.collation) {
    const full = (domain: DomainState): string =>
      `${domain.type}${domain.collation ? ` COLLATE ${domain.collation}` : ''}`
    script.cannot(`it is a domain over ${full(current)} and should be over ${full(want)}`)
  }
  if (want.default !== current.default)
    script.add(`${alter} ${want.default === undefined ? 'DROP DEFAULT' : `SET DEFAULT ${want.default}`}`)
  const constraints = retireConstraints(script, alter, want.constraints, current.constraints)
  // From 17 on NOT NULL is one of the constraints.
  const isNamed = [...(want.constraints ?? []), ...(current.constraints ?? [])].some(({ type }) => type === 'not null')
  if (want.notNull !== current.notNull && !isNamed) script.add(`${alter} ${want.notNull ? 'SET' : 'DROP'} NOT NULL`)
  repairConstraints(script, alter, want.constraints, constraints, { on: want.target })
  repairCommon(script, want, have)
}

export function repairComposite(script: Script, want: CompositeState, have: CompositeState | undefined): void {
  const bare = ({ name, type, collation }: ColumnState): ColumnState => ({ name, type, collation })
  if (have === undefined) script.add(createComposite(want))
  const columns = have?.columns ?? want.columns.map(bare)
  const alter = `ALTER ${want.target}`
  const { both, missing, extra } = pair(want.columns, columns)
  for (const { name } of extra) script.add(`${alter} DROP ATTRIBUTE ${quoteIdent(name)} CASCADE`)
  for (const [wanted, had] of both) {
    if (!isSame(bare(wanted), bare(had)))
      script.add(
        `${alter} ALTER ATTRIBUTE ${quoteIdent(wanted.name)} TYPE ${attributeDefinition(wanted).slice(quoteIdent(wanted.name).length + 1)} CASCADE`,
      )
    repairComment(script, `COLUMN ${qualify(want)}.${quoteIdent(wanted.name)}`, wanted, had)
  }
  for (const attribute of missing) {
    script.add(`${alter} ADD ATTRIBUTE ${attributeDefinition(attribute)} CASCADE`)
    repairComment(script, `COLUMN ${qualify(want)}.${quoteIdent(attribute.name)}`, attribute, undefined)
  }
  const order = [...both.map(([, { name }]) => name), ...missing.map(({ name }) => name)]
  const stays = columns.filter(({ name }) => order.includes(name)).map(({ name }) => name)
  const names = want.columns.map(({ name }) => name)
  const found = [...stays, ...missing.map(({ name }) => name)]
  if (!isSame(found, names))
    script.cannot(`the order of its attributes is ${found.join(', ')} and should be ${names.join(', ')}`)
  repairCommon(script, want, have)
}

/** CREATE OR REPLACE keeps what depends on a routine, but not every change can be made by it. */
export function repairRoutine(script: Script, want: RoutineState, have: RoutineState | undefined): void {
  // A body may name what is there only in its own search_path, or is not there yet.
  const definition = `SET LOCAL check_function_bodies = off; ${want.definition}`
  let current = have
  if (have !== undefined && have.definition !== want.definition) {
    const isReplaceable = want.kind !== 'aggregate' && want.kind === have.kind && canReplace(want, have)
    if (!isReplaceable) {
      script.add(`DROP ${have.target}`)
      current = undefined
    }
    script.add(definition)
  }
  if (have === undefined) script.add(definition)
  repairCommon(script, want, current)
}

/** ProcedureCreate (pg_proc.c): results, and names that arguments have, must stay; defaults may be added. */
function canReplace(want: RoutineState, have: RoutineState): boolean {
  const names = (have.parameters ?? []).every((name, place) => name === '' || name === (want.parameters?.[place] ?? ''))
  const defaults = (want.defaults ?? 0) >= (have.defaults ?? 0)
  return (
    want.result === have.result && want.window === have.window && isSame(want.modes, have.modes) && names && defaults
  )
}
