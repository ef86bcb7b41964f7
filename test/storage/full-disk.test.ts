import { existsSync } from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import { DirectoryStorage } from '../../src/storage/directory.ts'

const device = '/dev/full'
const hoisted = vi.hoisted(() => ({ isFull: false }))

// What is opened for writing is the device that takes no bytes, so that the error is the kernel's own.
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>()
  const open: typeof real.open = (file, flags, mode) =>
    hoisted.isFull && flags !== 'r' ? real.open('/dev/full', 'w') : real.open(file, flags, mode)
  return { ...real, open }
})

describe.skipIf(!existsSync(device))(`a disk that is full (skipped where there is no ${device})`, () => {
  test('is named, with what to do, and the key stays as it was', async () => {
    const root = await mkdtemp(path.join(tmpdir(), 'walback-store-'))
    try {
      const storage = new DirectoryStorage(root)
      await storage.put('key', Buffer.from('as it was'))
      hoisted.isFull = true
      for (const ifAbsent of [false, true]) {
        await expect(storage.put(ifAbsent ? 'other' : 'key', Buffer.from('x'), { ifAbsent })).rejects.toMatchObject({
          code: 'storage',
          retryable: true,
          message: expect.stringContaining('ENOSPC'),
          hint: expect.stringContaining('free some space'),
        })
      }
      hoisted.isFull = false
      expect(await readdir(root)).toEqual(['key'])
      expect(await storage.size('key')).toBe(9)
    } finally {
      await rm(root, { recursive: true, force: true })
    }
  })
})
