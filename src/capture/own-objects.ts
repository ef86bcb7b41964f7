import type pg from 'pg'
import { eventTriggers } from '../postgres/ddl-capture-sql.ts'
import type { Timeline } from '../repository/timeline.ts'

/** Something of ours in the database that somebody has dropped or changed, so that the archive lacks what comes now. */
export interface Tampering {
  readonly message: string
  readonly hint: string
}

interface Publication {
  readonly name: string
  readonly all: boolean
  readonly rows: boolean
  readonly inserts: boolean
}

/**
 * Looks, with each heartbeat, whether the publications and event triggers that capture relies on are there as they were
 * made. The stream itself shows a publication that is gone only at the next change, and a trigger never.
 */
export class OwnObjects {
  private readonly timeline: Timeline
  private readonly onTampering: (found: Tampering) => void
  /** What has been said, and still holds. */
  private said: ReadonlySet<string> = new Set()

  constructor(timeline: Timeline, onTampering: (found: Tampering) => void) {
    this.timeline = timeline
    this.onTampering = onTampering
  }

  /** Says what has come since the last look. */
  async look(client: pg.Client): Promise<void> {
    const found = [...(await this.publications(client)), ...(await this.triggers(client))]
    const said = this.said
    this.said = new Set(found.map(({ message }) => message))
    for (const one of found) if (!said.has(one.message)) this.onTampering(one)
  }

  private async publications(client: pg.Client): Promise<Tampering[]> {
    const { publications, allTables, slot } = this.timeline
    const { rows } = await client.query<Publication>(
      `SELECT pubname AS name, puballtables AS all, pubinsert AND pubtruncate AS inserts,
         pubinsert AND pubupdate AND pubdelete AND pubtruncate AS rows
       FROM pg_catalog.pg_publication WHERE pubname = ANY ($1)`,
      [publications],
    )
    return publications.flatMap((name) => {
      const row = rows.find((have) => have.name === name)
      if (row === undefined) {
        return {
          message: `publication ${name} is gone: what changes from now on is lost to the stream`,
          hint: 'at the next change a new timeline is begun by itself, with a new publication and slot, and a base is taken; if it was meant, stop the agent and run `walback uninstall`',
        }
      }
      // Of the second, for tables whose updates cannot be published, only inserts and truncations are wanted.
      const isWhole = name === slot ? row.rows && row.all === allTables : row.inserts
      if (isWhole) return []
      return {
        message: `publication ${name} was changed: it does not show all that walback had it show`,
        hint: `what it left out is lost to the stream: alter it back (\`walback check\` shows how), then run \`walback backup --full\``,
      }
    })
  }

  private async triggers(client: pg.Client): Promise<Tampering[]> {
    if (this.timeline.ddl !== 'triggers') return []
    const { rows } = await client.query<{ name: string; enabled: string }>(
      `SELECT evtname AS name, evtenabled AS enabled FROM pg_catalog.pg_event_trigger WHERE evtname = ANY ($1)`,
      [eventTriggers],
    )
    return eventTriggers.flatMap((name) => {
      const enabled = rows.find((row) => row.name === name)?.enabled
      if (enabled === 'A') return []
      const [what, mend] =
        enabled === undefined
          ? ['is gone', '`walback init` makes it again']
          : [
              enabled === 'D' ? 'is disabled' : 'does not fire in every session any more',
              `ALTER EVENT TRIGGER ${name} ENABLE ALWAYS, or \`walback init\`, enables it`,
            ]
      return {
        message: `event trigger ${name} ${what}: changes of the schema go by it unseen, and a table made without a key cannot be updated where all are published`,
        hint: `${mend}; then run \`walback backup --full\`, for what has changed meanwhile`,
      }
    })
  }
}
