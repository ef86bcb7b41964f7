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
  settings: z.array(z.string()),
})

export type Role = z.infer<typeof roleShape>

export const largeObjectShape = z.object({
  oid: z.number(),
  owner: z.string(),
  acl: z.array(z.string()),
  comment: z.string().nullable(),
})
export type LargeObject = z.infer<typeof largeObjectShape>

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
