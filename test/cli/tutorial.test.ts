import { chmod, readFile } from 'node:fs/promises'
import { expect, it } from 'vitest'
import { finished, folder, here, start } from './walback.ts'

/** The transaction's number in the text. */
const written = '3703'

/** The commands of the tutorial, in their order: the lines of its `sh` blocks. */
async function commandsIn(file: URL): Promise<string[]> {
  const text = await readFile(file, 'utf8')
  return [...text.matchAll(/^```sh\n(.*?)^```$/gms)].flatMap(([, block = '']) => block.trim().split('\n'))
}

/** A command's words, of which some are in quotation marks. */
const wordsOf = (command: string): string[] =>
  [...command.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? '')

it('leads a stranger through, word by word', async () => {
  await using place = await folder()
  // The account of a server may enter it too, where tests run as root.
  await chmod(place.path, 0o711)
  const child = start(['demo', '--keep'], { cwd: place.path, env: { TMPDIR: place.path } })
  let said = ''
  const done = finished(child)
  await new Promise<void>((settle, fail) => {
    child.stdout?.on('data', (chunk: Buffer) => {
      said += String(chunk)
      if (said.includes('Ctrl-C here ends it')) settle()
    })
    child.on('close', () => fail(new Error(`the demo ended: ${said}`)))
  })
  try {
    const config = /alias walback='.* (-c \S+)'/.exec(said)?.[1]?.slice(3)
    const xid = /^ {5}\S+ \S+ +tx:(\d+)/m.exec(said)?.[1]
    expect({ config, xid }).toEqual({ config: expect.any(String), xid: expect.any(String) })
    const answers = new Map<string, string>()
    for (const command of await commandsIn(new URL('../../docs/tutorial.md', import.meta.url))) {
      const [name, ...words] = wordsOf(command.replaceAll(written, xid ?? ''))
      expect(name).toBe('walback')
      const ran = await here(['-c', config ?? '', ...words], { cwd: place.path })
      expect({ command, ...ran }).toMatchObject({ command, exit: 0 })
      answers.set(command, ran.stdout)
    }
    const answer = (command: string): string => answers.get(command) ?? ''
    const deleted = Number(/DELETE (\d+)/.exec(said)?.[1])
    const digits = (text: string): string => text.replaceAll(/(?<=\d) (?=\d{3})/g, '')
    expect(deleted).toBeGreaterThan(10_000)
    expect(answer(`walback query --before-tx ${written} 'SELECT count(*) AS items FROM order_items'`)).toContain(
      String(deleted),
    )
    expect(
      digits(answer(`walback restore --before-tx ${written} --table order_items --as order_items_before --yes`)),
    ).toContain(`order_items_before: ${deleted} rows inserted`)
    expect(digits(answer(`walback undo tx:${written} --apply --yes`))).toContain(`${deleted} rows inserted`)
    expect(answer('walback status')).toMatch(/proven .* restorable to /)
  } finally {
    child.kill('SIGINT')
    await done
  }
}, 300_000)
