/**
 * Where tests have their servers and repositories: in memory, where there is much of it. They make and remove files by
 * the hundred thousand, and to find room for those on a disk can take a third of the processor's time. Nothing is lost: no
 * test cuts the power, and what a killed process wrote is there all the same.
 */
import { execFile } from 'node:child_process'
import { chmod, mkdtemp, rm, statfs, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import type { TestProject } from 'vitest/node'
import { scratchRoot, serverAccount } from '../../src/postgres/embedded-account.ts'
// The type of what is provided is declared beside the tests' side of it.
import type {} from './copied-cluster.ts'

const memory = '/dev/shm'
/** Several times what all everyday tests together have at once. */
const room_bytes = 8 * 2 ** 30

const folders: string[] = []

async function openFolder(root: string): Promise<string> {
  const folder = await mkdtemp(path.join(root, 'walback-tests-'))
  folders.push(folder)
  await chmod(folder, 0o755)
  return folder
}

/** Vitest's globalSetup. Who says where temporary files go is heard, and long tests need more room than memory has. */
export async function setup(project: TestProject): Promise<void> {
  if (process.env.TMPDIR === undefined && process.env.WALBACK_LONG === undefined && (await isRoomy())) {
    const folder = await openFolder(memory)
    if (await runsPrograms(folder)) process.env.TMPDIR = folder
  }
  project.provide('clusters', await openFolder(await scratchRoot(await serverAccount())))
}

export async function teardown(): Promise<void> {
  for (const folder of folders.reverse()) await rm(folder, { recursive: true, force: true, maxRetries: 10 })
}

const isRoomy = async (): Promise<boolean> =>
  process.availableMemory() >= room_bytes && (await freeBytes(memory)) >= room_bytes

async function freeBytes(place: string): Promise<number> {
  const { bavail, bsize } = await statfs(place).catch(() => ({ bavail: 0, bsize: 0 }))
  return bavail * bsize
}

/** Containers often mount it so that nothing in it can be run, and some tests copy programs there. */
async function runsPrograms(place: string): Promise<boolean> {
  const program = path.join(place, 'program')
  await writeFile(program, '#!/bin/sh\n', { mode: 0o755 })
  return promisify(execFile)(program).then(
    () => true,
    () => false,
  )
}
