import { expect, it } from 'vitest'
import { planRestore } from '../../src/restore/plan.ts'
import { MadeArchive } from '../retention/made-archive.ts'

it('a target behind missing segments, with no base after them, is refused as that, and the nearest before them is named', async () => {
  const archive = await MadeArchive.begin()
  await archive.base()
  for (let n = 0; n < 5; n++) await archive.segment({ commits: 2, hours: 1, heartbeat: 0 })
  const [, before, lost] = archive.segments
  archive.storage.objects.delete(lost?.key ?? '')
  const last = archive.commits.at(-1)
  const refused = { code: 'gap', exit: 21, hint: expect.stringContaining('--to-lsn') }
  for (const target of [
    { kind: 'lsn', lsn: last?.end },
    { kind: 'time', time: archive.commits.at(-2)?.time },
    { kind: 'tx', xid: 712n, inclusive: true },
  ] as Parameters<typeof planRestore>[2][])
    await expect(planRestore(archive.repository, 'app', target)).rejects.toMatchObject({
      ...refused,
      message: expect.stringMatching(
        /segments between the last base backup before the target and the target are missing/,
      ),
    })
  const lsn = before?.end
  expect((await planRestore(archive.repository, 'app', { kind: 'lsn', lsn } as never)).cut).toBe(lsn)
})
