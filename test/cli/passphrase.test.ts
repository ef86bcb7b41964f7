import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { makeRecipient } from '../../src/repository/recipients.ts'
import { Repository } from '../../src/repository/repository.ts'
import { beginTimeline } from '../../src/repository/timeline.ts'
import { openStorage } from '../../src/storage/open.ts'
import { timelineDetails } from '../repository/timeline-details.ts'
import { type OnTerminal, onTerminal } from './terminal.ts'
import { type Folder, folder } from './walback.ts'

const passphrase = 'correct horse battery'
const prompt = /^passphrase of the repository at file:\S+: $/
let place: Folder
beforeAll(async () => {
  place = await folder()
  const owner = await makeRecipient({ kind: 'passphrase', passphrase }, 'owner', 'full')
  const file = await makeRecipient({ kind: 'file', secret: Buffer.alloc(32, 7) }, 'file', 'full')
  await Repository.createEncrypted(openStorage(`${place.path}/typed`), [owner, file])
  await Repository.createEncrypted(openStorage(`${place.path}/held`), [file])
  await Repository.create(openStorage(`${place.path}/clear`))
  const credential = { kind: 'passphrase', passphrase } as const
  await beginTimeline(await Repository.open(openStorage(`${place.path}/typed`), { credential }), timelineDetails)
})
afterAll(() => place[Symbol.asyncDispose]())

const at = (args: readonly string[], given: Partial<OnTerminal> = {}) =>
  onTerminal(args, { cwd: place.path, prompt, ...given })

const list = (repository: string, ...more: string[]): string[] => ['key', 'list', '--repo', repository, ...more]

describe('a repository that a passphrase opens', () => {
  test('is opened by one that is typed, of which nothing is shown', async () => {
    const ran = await at(list('typed'), { types: `${passphrase}\r` })
    expect(ran).toMatchObject({ exit: 0, wasRaw: true, isRaw: false, stdout: expect.stringContaining('owner') })
    expect(ran.shown).toMatch(/^passphrase of the repository at file:\S+typed: \n$/)
    expect(ran.stdout + ran.shown).not.toContain('correct')
  })

  test('may be mistyped and mended, and asks once however often it is opened', async () => {
    const ran = await at(['status', '--repo', 'typed', '--source', 'app'], { types: `correctX\u007f horse battery\r` })
    expect(ran.shown.match(/passphrase of/g)).toHaveLength(1)
    expect(ran.shown).not.toMatch(/horse|does not open/)
    expect(ran.stdout).toContain('encryption')
  })

  test('stays shut to a wrong one, to none, and to an interrupt', async () => {
    expect(await at(list('typed'), { types: 'wrong\r' })).toMatchObject({ exit: 12, isRaw: false })
    for (const types of ['\r', '\u0004'])
      expect(await at(list('typed'), { types })).toMatchObject({
        exit: 12,
        shown: expect.stringContaining('no key was given'),
      })
    expect(await at(list('typed'), { types: '\u0003' })).toMatchObject({ exit: 130, isRaw: false })
    expect(await at(list('typed'), { interrupt: true })).toMatchObject({ exit: 130, isRaw: false })
  })

  test.each<[string, readonly string[], Partial<OnTerminal>]>([
    ['there is no terminal', list('typed'), { isTTY: false }],
    ['nothing is to be asked', list('typed', '--no-input'), {}],
    ['the output is a document', list('typed', '--json'), {}],
    ['no passphrase would open it', list('held'), {}],
  ])('is not asked for where %s', async (_, args, given) => {
    const ran = await at(args, given)
    expect(ran).toMatchObject({ exit: 12, wasRaw: undefined })
    expect(ran.shown + ran.stdout).toContain('no key was given')
  })

  test('is not asked for where it is given, or nothing is encrypted', async () => {
    const given = await at(list('typed'), { env: { WALBACK_PASSPHRASE: passphrase } })
    expect(given).toMatchObject({ exit: 0, wasRaw: undefined })
    expect(await at(list('clear'))).toMatchObject({ exit: 22, wasRaw: undefined })
  })
})

test('--no-input asks for no word either', async () => {
  const ran = await at(['key', 'remove', 'file', '--repo', 'typed', '--no-input'], {
    env: { WALBACK_PASSPHRASE: passphrase },
  })
  expect(ran).toMatchObject({ exit: 22, shown: expect.stringContaining('with --no-input nothing is asked: add --yes') })
})
