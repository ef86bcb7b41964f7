import { z } from 'zod'

/**
 * The states of objects that `describe` gives (postgres/describe-sql.ts), as far as a repair reads them. What is absent
 * is as by default. Names are bare; references to other objects are written as SQL writes them.
 */

const texts = z.array(z.string())
const flag = z.boolean().optional()
const text = z.string().optional()

const label = z.object({ provider: z.string(), label: z.string() })

/** What an object of any kind may have. */
const common = z.object({
  kind: z.string(),
  target: text,
  schema: text,
  name: text,
  owner: text,
  acl: texts.optional(),
  comment: text,
  labels: z.array(label).optional(),
  extension: text,
  /** Extensions that it depends on. */
  needs: texts.optional(),
})
export type CommonState = z.infer<typeof common>

const sequence = common.extend({
  target: z.string(),
  schema: z.string(),
  name: z.string(),
  type: z.string(),
  start: z.string(),
  increment: z.string(),
  minimum: z.string(),
  maximum: z.string(),
  cache: z.string(),
  cycle: flag,
  unlogged: flag,
  /** Column that it goes with, as SQL writes it. */
  ownedBy: text,
  identityOf: text,
})
export type SequenceState = z.infer<typeof sequence>

const column = z.object({
  name: z.string(),
  type: z.string(),
  notNull: flag,
  inherited: flag,
  collation: text,
  storage: text,
  default: text,
  generated: z.enum(['stored', 'virtual']).optional(),
  expression: text,
  identity: z.enum(['always', 'by default']).optional(),
  compression: text,
  statistics: z.number().optional(),
  options: texts.optional(),
  fdwOptions: texts.optional(),
  acl: texts.optional(),
  missing: text,
  comment: text,
  labels: z.array(label).optional(),
  sequences: z.array(sequence).optional(),
})
export type ColumnState = z.infer<typeof column>

const constraint = z.object({
  name: z.string(),
  type: z.string(),
  definition: z.string(),
  invalid: flag,
  inherited: flag,
  /** Of a NOT NULL. */
  column: text,
  comment: text,
})
export type ConstraintState = z.infer<typeof constraint>

const index = z.object({
  name: z.string(),
  definition: z.string(),
  /** The constraint that made it. */
  constraint: text,
  parent: text,
  invalid: flag,
  clustered: flag,
  replicaIdentity: flag,
  options: texts.optional(),
  tablespace: text,
  statistics: z.record(z.string(), z.number()).optional(),
  comment: text,
  needs: texts.optional(),
})
export type IndexState = z.infer<typeof index>

const trigger = z.object({
  name: z.string(),
  definition: z.string(),
  inherited: flag,
  fires: text,
  comment: text,
  needs: texts.optional(),
})
export type TriggerState = z.infer<typeof trigger>

const rule = z.object({ name: z.string(), definition: z.string(), fires: text, comment: text })
export type RuleState = z.infer<typeof rule>

const policy = z.object({
  name: z.string(),
  restrictive: flag,
  command: text,
  roles: texts.optional(),
  using: text,
  check: text,
  comment: text,
})
export type PolicyState = z.infer<typeof policy>

const statistics = z.object({
  schema: z.string(),
  name: z.string(),
  owner: z.string(),
  definition: z.string(),
  statistics: z.number().optional(),
  comment: text,
})
export type StatisticsState = z.infer<typeof statistics>

export const relationKinds = ['table', 'partitioned table', 'foreign table', 'view', 'materialized view'] as const

const relation = common.extend({
  kind: z.enum(relationKinds),
  target: z.string(),
  schema: z.string(),
  name: z.string(),
  unlogged: flag,
  accessMethod: text,
  options: texts.optional(),
  toastOptions: texts.optional(),
  tablespace: text,
  columns: z.array(column),
  definition: text,
  ofType: text,
  parents: texts.optional(),
  partitionOf: text,
  detaching: text,
  bound: text,
  partitionKey: text,
  replicaIdentity: z.enum(['nothing', 'full', 'index']).optional(),
  rowSecurity: flag,
  forceRowSecurity: flag,
  /** There is not one page of rows. */
  empty: flag,
  server: text,
  fdwOptions: texts.optional(),
  constraints: z.array(constraint).optional(),
  indexes: z.array(index).optional(),
  triggers: z.array(trigger).optional(),
  rules: z.array(rule).optional(),
  policies: z.array(policy).optional(),
  statistics: z.array(statistics).optional(),
})
export type RelationState = z.infer<typeof relation>

const named = { target: z.string(), schema: z.string(), name: z.string() }

const composite = common.extend({ ...named, columns: z.array(column) })
export type CompositeState = z.infer<typeof composite>

const enumeration = common.extend({ ...named, values: texts })
export type EnumState = z.infer<typeof enumeration>

const domain = common.extend({
  ...named,
  type: z.string(),
  notNull: flag,
  collation: text,
  default: text,
  constraints: z.array(constraint).optional(),
})
export type DomainState = z.infer<typeof domain>

const routine = common.extend({
  ...named,
  definition: z.string(),
  types: z.string(),
  window: flag,
  result: text,
  parameters: texts.optional(),
  modes: texts.optional(),
  defaults: z.number().optional(),
})
export type RoutineState = z.infer<typeof routine>

const extension = common.extend({ target: z.string(), name: z.string(), schema: z.string(), version: z.string() })
export type ExtensionState = z.infer<typeof extension>

const publication = common.extend({
  target: z.string(),
  name: z.string(),
  allTables: flag,
  publish: z.string(),
  viaRoot: flag,
  generatedColumns: text,
  tables: z.array(z.object({ table: z.string(), where: text, columns: texts.optional() })).optional(),
  schemas: texts.optional(),
})
export type PublicationState = z.infer<typeof publication>

const defaultPrivileges = common.extend({ role: z.string(), objects: z.string() })
export type DefaultPrivilegesState = z.infer<typeof defaultPrivileges>

/** What is dropped and made anew when its definition is another one. */
const defined = common.extend({
  target: z.string(),
  definition: z.string(),
  fires: text,
  fdwOptions: texts.optional(),
  version: text,
  mapping: z.record(z.string(), texts).optional(),
  members: z.array(z.object({ item: z.string(), names: z.string() })).optional(),
})
export type DefinedState = z.infer<typeof defined>

const onRelation = { target: z.string(), relation: z.string() }

/** Each kind with what reads it. */
export const states = {
  common,
  sequence,
  relation,
  composite,
  enumeration,
  domain,
  routine,
  extension,
  publication,
  defaultPrivileges,
  defined,
  schema: common.extend({ target: z.string(), name: z.string() }),
  index: index.extend({ target: z.string(), schema: z.string(), table: z.string() }),
  trigger: trigger.extend(onRelation),
  rule: rule.extend(onRelation),
  policy: policy.extend(onRelation),
  statistics: statistics.extend(onRelation),
  constraint: constraint.extend({ target: z.string(), relation: text, domain: text }),
  default: z.object({ relation: z.string(), column: z.string(), expression: z.string(), generated: flag }),
} as const
