/** Where a run of the tests has what its test files share. */
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import path from 'node:path'
import type { TestProject } from 'vitest/node'
import { scratchRoot, serverAccount } from '../../src/postgres/embedded-account.ts'
// The type of what is provided is declared beside the tests' side of it.
import type {} from './copied-cluster.ts'

const folders: string[] = []

async function openFolder(root: string): Promise<string> {
  const folder = await mkdtemp(path.join(root, 'walback-tests-'))
  folders.push(folder)
  await chmod(folder, 0o755)
  return folder
}

/** Vitest's globalSetup. */
export async function setup(project: TestProject): Promise<void> {
  project.provide('clusters', await openFolder(await scratchRoot(await serverAccount())))
}

export async function teardown(): Promise<void> {
  for (const folder of folders.reverse()) await rm(folder, { recursive: true, force: true, maxRetries: 10 })
}
