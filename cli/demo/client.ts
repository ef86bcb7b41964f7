import { type Conninfo, connect, resolveConninfo } from '../../src/index.ts'

/** A connection of the demo. */
export type Client = Awaited<ReturnType<typeof connect>>

export interface Visitor {
  readonly url: string
  readonly role?: string
  readonly application: string
  readonly signal: AbortSignal
}

/** Where a role finds a database. */
export function conninfoOf(url: string, role?: string): Conninfo {
  const at = new URL(url)
  if (role !== undefined) at.username = role
  return resolveConninfo(at.href, {})
}

/** Runs `work` on a connection of its own. */
export async function visit<T>(visitor: Visitor, work: (client: Client) => Promise<T>): Promise<T> {
  const { url, role, application, signal } = visitor
  const client = await connect(conninfoOf(url, role), { application, signal })
  try {
    return await work(client)
  } finally {
    await client.end().catch(() => undefined)
  }
}
