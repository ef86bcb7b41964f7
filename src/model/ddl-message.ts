import { z } from 'zod'

/**
 * What the event triggers say of a change of the schema (postgres/ddl-capture-sql.ts), by transactional messages with
 * the prefix `walback`, in commit order with the rows. One command gives, in this order: `ddl-text` (only if this
 * transaction has not sent the same text yet), `ddl-dropped`, `ddl`, and `ddl-rows` where its effect on rows cannot be
 * computed again.
 */

/** The catalog's state of an object, as `walback.describe` gives it: JSON without any object id. */
export const objectState = z.record(z.string(), z.unknown())
export type ObjectState = z.infer<typeof objectState>

/** How to find an object in any database: what pg_get_object_address takes. */
const address = z.object({ type: z.string(), names: z.array(z.string()), args: z.array(z.string()) })
export type ObjectAddress = z.infer<typeof address>

/** An object that a command made or changed (pg_event_trigger_ddl_commands). */
const touchedObject = z.object({
  /** The catalog that it is in: `pg_class`, `pg_proc`, …; of a GRANT empty, since it names no object. */
  class: z.string(),
  oid: z.number(),
  /** Number of a column, or 0. */
  sub: z.number(),
  /** The tag of this part of the command: ALTER TABLE ADD COLUMN serial also has CREATE SEQUENCE. */
  tag: z.string(),
  /** `table`, `index`, `function`, … */
  type: z.string(),
  schema: z.string().nullable(),
  identity: z.string().nullable(),
  address: address.nullable(),
  /** True inside an extension's script. */
  extension: z.boolean(),
  /** Its state after the command; null where it has none of its own, or is gone already. */
  state: objectState.nullable(),
})
export type TouchedObject = z.infer<typeof touchedObject>

const droppedObject = z.object({
  class: z.string(),
  oid: z.number(),
  sub: z.number(),
  type: z.string(),
  schema: z.string().nullable(),
  name: z.string().nullable(),
  identity: z.string(),
  address: address.nullable(),
  /** Named by the command itself, not dropped because something else was. */
  original: z.boolean(),
  /** Dropped because of a normal dependency: by CASCADE. */
  cascaded: z.boolean(),
})
export type DroppedObject = z.infer<typeof droppedObject>

const v = z.literal(1)

/** A text that `ddl` messages of the same transaction refer to by its MD5, so that a long script is sent once. */
export const ddlText = z.object({ v, kind: z.literal('ddl-text'), id: z.string(), text: z.string() })

export const ddlDropped = z.object({ v, kind: z.literal('ddl-dropped'), objects: z.array(droppedObject) })

export const ddlCommand = z.object({
  v,
  kind: z.literal('ddl'),
  tag: z.string(),
  /** Id of the text of the whole query string as the client sent it; it holds the command if `context` is empty. */
  query: z.string(),
  /** Id of the text of the frames around the command (PG_CONTEXT without the trigger's own), innermost first; empty at top level. */
  context: z.string(),
  /** Sources of the SQL functions that the innermost frame may name, since such a frame has no text. */
  functions: z.array(z.object({ schema: z.string(), name: z.string(), source: z.string() })),
  /** current_user where the command ran, and session_user. */
  role: z.string(),
  session: z.string(),
  /** Settings that change what the command means, `search_path` among them. */
  settings: z.record(z.string(), z.string()),
  /** now() of its transaction, in ISO with zone. */
  time: z.string(),
  objects: z.array(touchedObject),
  /** Relations that it rewrote, with why (pg_event_trigger_table_rewrite_reason). */
  rewritten: z.array(z.object({ oid: z.number(), reason: z.number() })),
  /** Relations whose rows it changed in a way that replay cannot compute, and that were too large to be sent along. */
  unknownRows: z.array(z.number()),
})
export type DdlCommand = z.infer<typeof ddlCommand>

/** All rows of a rewritten relation after the command, in pieces; the first piece replaces what was there. */
export const ddlRows = z.object({
  v,
  kind: z.literal('ddl-rows'),
  oid: z.number(),
  first: z.boolean(),
  columns: z.array(z.string()),
  rows: z.array(z.array(z.string().nullable())),
})

/** Something failed in a trigger. */
export const ddlFailed = z.object({
  v,
  kind: z.literal('ddl-failed'),
  /** The event; or `describe` where only the state of an object is missing, `identity` of a replica identity, `rows`. */
  event: z.string(),
  tag: z.string(),
  sqlstate: z.string(),
  message: z.string(),
})

/** Whether what the command did is not known. */
export const isLost = (event: string): boolean => !['describe', 'identity', 'rows'].includes(event)

export const ddlMessages = [ddlText, ddlDropped, ddlCommand, ddlRows, ddlFailed] as const
export type DdlMessage = z.infer<(typeof ddlMessages)[number]>
