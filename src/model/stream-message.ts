import { z } from 'zod'
import { ddlMessages } from './ddl-message.ts'

/**
 * What walback itself says in the change stream, by `pg_logical_emit_message(true, 'walback', json)`: transactional, so
 * that it has its place in commit order.
 */
export const messagePrefix = 'walback'

export const sequenceValue = z.object({
  oid: z.number(),
  schema: z.string(),
  name: z.string(),
  /** As the sequence holds it, with is_called: the next value is `last`, or `last` plus the increment once called. */
  last: z.string(),
  called: z.boolean(),
})
export type SequenceValue = z.infer<typeof sequenceValue>

const streamMessage = z.discriminatedUnion('kind', [
  /**
   * Proves life on a quiet database. Once the log had passed `from`, the server's snapshot and the sequences that moved
   * since the heartbeat before were read.
   */
  z.object({
    v: z.literal(1),
    kind: z.literal('heartbeat'),
    from: z.string(),
    snapshot: z.string(),
    sequences: z.array(sequenceValue),
    /** The stamp of the catalogs as the snapshot sees them (postgres/catalog-stamp.ts); absent where it was not read. */
    catalog: z.string().optional(),
  }),
  z.object({ v: z.literal(1), kind: z.literal('mark'), name: z.string() }),
  /** Sent by `check`, which looks for it in the store; it means nothing to a restore. */
  z.object({ v: z.literal(1), kind: z.literal('canary'), token: z.string() }),
  ...ddlMessages,
])
export type StreamMessage = z.infer<typeof streamMessage>

/**
 * Our message, or undefined for content that this version does not know: newer agents may say more. `decode`: from the
 * server's encoding.
 */
export function parseStreamMessage(content: Buffer, decode: (bytes: Buffer) => string): StreamMessage | undefined {
  let json: unknown
  try {
    json = JSON.parse(decode(content))
  } catch {
    return undefined
  }
  return streamMessage.safeParse(json).data
}
