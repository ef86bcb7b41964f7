import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { takeBase } from '../../src/backup/base-backup.ts'
import { requireTimeline } from '../../src/capture/session.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { startRefereed } from '../support/referee.ts'
import { openArchive } from '../support/walback.ts'

it('a base is not taken from a standby, and the message says why', async () => {
  await using source = await startRefereed()
  await using archive = await openArchive(source.server.url())
  await using physical = await source.archive.baseBackup()
  await source.archive.flush()
  const data = join(physical.directory, 'data')
  await writeFile(join(data, 'standby.signal'), '')
  await using standby = await startEmbedded({
    dataDirectory: data,
    settings: { ...physical.settings, archive_mode: 'off', restore_command: `cp "${physical.archive}/%f" %p` },
  })
  const timeline = await requireTimeline(archive.repository, 'app')
  const base = takeBase(resolveConninfo(standby.url(), {}), archive.repository, timeline, {
    jobs: 1,
    lockTimeout_ms: 2000,
  })
  await expect(base).rejects.toMatchObject({
    code: 'refused',
    message: expect.stringMatching(/^this server is a standby, and snapshots there do not say which transactions/),
    hint: expect.stringContaining('target_session_attrs=primary'),
  })
})
