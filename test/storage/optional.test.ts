import { expect, test } from 'vitest'
import { loadOptional } from '../../src/storage/optional.ts'

test('a package that is not installed is named, with how to get it', async () => {
  const name = '@nobody/no-such-package'
  await expect(loadOptional(name, '1', 'xy://', () => import(/* @vite-ignore */ name))).rejects.toMatchObject({
    code: 'usage',
    message: `a repository at xy:// needs the package ${name}, which is not installed`,
    hint: expect.stringContaining(`npm install '${name}@1'`),
  })
})

test('what goes wrong in a package that is there is not hidden', async () => {
  const failing = async (): Promise<never> => {
    throw new TypeError('broken inside')
  }
  await expect(loadOptional('some-package', '1', 'xy://', failing)).rejects.toThrow(TypeError)
})
