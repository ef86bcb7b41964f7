import { sleep } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import { parseLsn } from '../model/lsn.ts'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { readSlot } from '../postgres/source.ts'
import type { BaseHead } from '../repository/base.ts'
import type { Repository } from '../repository/repository.ts'
import { readHead } from '../repository/segments.ts'
import { writeHeartbeat } from './heartbeat.ts'
import { SequenceWatch } from './sequences.ts'
import { type CaptureSessionOptions, captureUpToNow, requireTimeline } from './session.ts'

/**
 * Waits until the archive has passed the position a base was taken at, which is what makes the base restorable. An
 * agent that streams does it, within `patience_ms`; where none does, the stream is captured up to now here.
 */
export async function completeBase(
  conninfo: Conninfo,
  repository: Repository,
  base: BaseHead,
  options: CaptureSessionOptions & { readonly patience_ms?: number },
): Promise<'captured' | 'streamed'> {
  const patience_ms = options.patience_ms ?? defaultPatience_ms
  const deadline = performance.now() + patience_ms
  const timeline = await requireTimeline(repository, base.source)
  if (timeline.id !== base.timeline) throw overtaken(base)
  await using session = await openSession(conninfo, options.stop)
  let hasBeaten = false
  for (;;) {
    if ((await readHead(repository, timeline, options.stop)).end >= parseLsn(base.lsn)) return 'streamed'
    if (!(await readSlot(session.client, timeline.slot))?.active) {
      try {
        await captureUpToNow(conninfo, repository, base.source, options)
        return 'captured'
      } catch (error) {
        // An agent has just taken the slot: it does the work.
        if (!(error instanceof WalbackError) || error.code !== 'locked') throw error
      }
    } else if (!hasBeaten) {
      // On a quiet database nothing else would commit after the base until the agent's next heartbeat.
      await writeHeartbeat(session.client, new SequenceWatch(), undefined)
      hasBeaten = true
    }
    if (performance.now() >= deadline) {
      throw new WalbackError(
        'failed',
        `base ${base.id} is stored, but the stream has not reached it within ${Math.round(patience_ms / 60_000)} min`,
        {
          hint: 'see the log of the agent that holds the slot; the base becomes restorable when it catches up',
          retryable: true,
        },
      )
    }
    await sleep(poll_ms, options.stop)
  }
}

const defaultPatience_ms = 600_000
const poll_ms = 300

const overtaken = (base: BaseHead): WalbackError =>
  new WalbackError('gap', `a new timeline was begun while base ${base.id} was taken, so the stream never reaches it`, {
    hint: 'take another: walback backup --full',
  })

async function openSession(conninfo: Conninfo, signal: AbortSignal) {
  const client = await connect(conninfo, { application: 'walback backup', signal })
  return {
    client,
    async [Symbol.asyncDispose](): Promise<void> {
      await client.end().catch(() => undefined)
    },
  }
}
