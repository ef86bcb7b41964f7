import { z } from 'zod'

/** What a database is made of, as far as bases and restores must know it beyond pg_dump's text. */

export const sequenceShape = z.object({
  oid: z.number(),
  schema: z.string(),
  name: z.string(),
  last: z.string(),
  called: z.boolean(),
  increment: z.string(),
  minimum: z.string(),
  maximum: z.string(),
  cycles: z.boolean(),
  /** Columns that draw their default from it: their largest value bounds the sequence from below. */
  columns: z.array(z.object({ schema: z.string(), table: z.string(), column: z.string() })),
})
export type Sequence = z.infer<typeof sequenceShape>

export const databaseShape = z.object({
  name: z.string(),
  encoding: z.string(),
  collate: z.string(),
  ctype: z.string(),
  /** `c` libc, `i` ICU, `b` built in. */
  provider: z.string(),
  locale: z.string().nullable(),
  /** Rules over the ICU locale (PostgreSQL 16). */
  icuRules: z.string().nullable().default(null),
  owner: z.string(),
  connectionLimit: z.number(),
  comment: z.string().nullable(),
  /** ALTER DATABASE … SET, as `name=value`. */
  settings: z.array(z.string()),
  /** ALTER ROLE … IN DATABASE … SET. */
  roleSettings: z.array(z.object({ role: z.string(), settings: z.array(z.string()) })).default([]),
  /** Who may do what with the database itself; null as a new database has it. A role of null is PUBLIC. */
  grants: z
    .array(z.object({ role: z.string().nullable(), privilege: z.string(), grantable: z.boolean() }))
    .nullable()
    .default(null),
})
export type DatabaseProperties = z.infer<typeof databaseShape>

const membershipShape = z.object({
  /** The role whose member this one is. */
  role: z.string(),
  /** Null where it is gone, as it can be before PostgreSQL 16. */
  grantor: z.string().nullable(),
  admin: z.boolean(),
  /** Options of PostgreSQL 16; null where the server has none: its members inherit if their role does, and may set. */
  inherit: z.boolean().nullable(),
  set: z.boolean().nullable(),
})
export type Membership = z.infer<typeof membershipShape>

export const roleShape = z.object({
  name: z.string(),
  superuser: z.boolean(),
  inherit: z.boolean(),
  createRole: z.boolean(),
  createDatabase: z.boolean(),
  login: z.boolean(),
  replication: z.boolean(),
  bypassRls: z.boolean(),
  connectionLimit: z.number(),
  validUntil: z.string().nullable(),
  memberOf: z.array(z.string()),
  /** The same with all that a membership says, once for each grantor; undefined in bases of walback 0.1. */
  memberships: z.array(membershipShape).optional(),
  /** ALTER ROLE … SET, in all databases, as `name=value`. */
  settings: z.array(z.string()),
  comment: z.string().nullable().default(null),
  securityLabels: z.array(z.object({ provider: z.string(), label: z.string() })).default([]),
  /** What the role may do with parameters of the server (PostgreSQL 15). */
  parameterGrants: z
    .array(z.object({ parameter: z.string(), privilege: z.string(), grantable: z.boolean() }))
    .default([]),
})

export type Role = z.infer<typeof roleShape>

export const largeObjectShape = z.object({
  oid: z.number(),
  owner: z.string(),
  acl: z.array(z.string()),
  comment: z.string().nullable(),
})
export type LargeObject = z.infer<typeof largeObjectShape>

export const notCarriedShape = z.object({
  /** Tables whose changes are in no log. */
  unlogged: z.array(z.object({ schema: z.string(), name: z.string() })),
  subscriptions: z.array(z.string()),
  /** Tablespaces, other than the database's own, that relations lie in. */
  tablespaces: z.array(z.string()),
})
export type NotCarried = z.infer<typeof notCarriedShape>

export const extensionShape = z.object({ name: z.string(), version: z.string() })
export type Extension = z.infer<typeof extensionShape>

export const relationSizesShape = z.object({ tables_bytes: z.number(), indexes_bytes: z.number() })
export type RelationSizes = z.infer<typeof relationSizesShape>

/** A table whose rows a base holds. */
export interface Table {
  readonly oid: number
  readonly schema: string
  readonly name: string
  /** All columns but generated ones, in their order. */
  readonly columns: readonly string[]
  /** Their types, as `oid.modifier`. */
  readonly types: readonly string[]
  /** Of a configuration table of an extension: which rows are the user's, as `WHERE …` or nothing (pg_extension_config_dump). */
  readonly extension?: { readonly condition: string }
  /** The partitioned table through which its rows have to be loaded, where a row's partition depends on ids of this database. */
  readonly via?: QualifiedName
  /** Pages of 8 KiB that it fills now. */
  readonly pages: number
}

export interface QualifiedName {
  readonly schema: string
  readonly name: string
}
