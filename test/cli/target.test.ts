import { afterAll, beforeAll, expect, test } from 'vitest'
import { Repository } from '../../src/repository/repository.ts'
import { beginTimeline } from '../../src/repository/timeline.ts'
import { openStorage } from '../../src/storage/open.ts'
import { timelineDetails } from '../repository/timeline-details.ts'
import { type OnTerminal, onTerminal } from './terminal.ts'
import { type Folder, folder } from './walback.ts'

let place: Folder
beforeAll(async () => {
  place = await folder()
  await beginTimeline(await Repository.create(openStorage(`${place.path}/repo`)), timelineDetails)
})
afterAll(() => place[Symbol.asyncDispose]())

const restore = (given: Partial<OnTerminal>, ...more: string[]) =>
  onTerminal(['restore', '--repo', 'repo', '--source', 'app', '--sql-out', 'out.sql', ...more], {
    cwd: place.path,
    prompt: /^restore to when\?/,
    ...given,
  })

test('a restore without a target asks for one on a terminal, and takes it in every form', async () => {
  for (const [types, exit, message] of [
    ['latest\n', 20, /there is no base backup/],
    ['2026-11-23 14:05:11Z\n', 20, /there is no base backup/],
    ['before-tx:12\n', 20, /there is no base backup/],
    ['mark:here\n', 20, /there is no base backup/],
    ['soon enough\n', 2, /soon enough/],
    ['\n', 2, /give one of --to TIME/],
  ] as const)
    expect(await restore({ types })).toMatchObject({ exit, shown: expect.stringMatching(message), wasRaw: false })
})

test.each<[string, Partial<OnTerminal>, readonly string[]]>([
  ['there is no terminal', { isTTY: false }, []],
  ['nothing is to be asked', {}, ['--no-input']],
  ['the output is for programs', {}, ['--json']],
])('it does not ask where %s', async (_, given, more) => {
  expect(await restore(given, ...more)).toMatchObject({ exit: 2, wasRaw: undefined })
})
