import { readFile, realpath, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname } from 'node:path'
import { WalbackError } from '../base/errors.ts'

/** The operating-system account that a server runs under when this process may not run it itself. */
export interface Account {
  readonly uid: number
  readonly gid: number
}

const nobody: Account = { uid: 65534, gid: 65534 }

/** PostgreSQL refuses to run as root, so root hands it to another account; undefined means our own will do. */
export async function serverAccount(): Promise<Account | undefined> {
  if (process.getuid?.() !== 0) return undefined
  const passwd = await readFile('/etc/passwd', 'utf8').catch(() => '')
  for (const wanted of ['postgres', 'nobody']) {
    const fields = passwd
      .split('\n')
      .find((line) => line.startsWith(`${wanted}:`))
      ?.split(':')
    const account = { uid: Number(fields?.[2]), gid: Number(fields?.[3]) }
    if (account.uid > 0 && account.gid >= 0) return account
  }
  return nobody
}

/** The first folder on the way to `path` that the account may not pass through; undefined when it gets there. */
export async function obstacle(path: string, account: Account | undefined): Promise<string | undefined> {
  if (account === undefined) return undefined
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    const { uid, gid, mode } = await stat(folder)
    const bit = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001
    if ((mode & bit) === 0) return folder
    if (folder === dirname(folder)) return undefined
  }
}

/** A socket's path has at most 107 bytes on Linux and 103 on macOS; this leaves room for a folder and the file name. */
const longestRoot = 60

/** Where temporary folders go: TMPDIR unless the account cannot reach it or its path is too long for a socket. */
export async function scratchRoot(account: Account | undefined): Promise<string> {
  for (const candidate of [tmpdir(), '/tmp', '/var/tmp']) {
    const root = await realpath(candidate).catch(() => undefined)
    if (root === undefined || root.length > longestRoot) continue
    if ((await obstacle(`${root}/x`, account)) === undefined) return root
  }
  throw new WalbackError('failed', 'no temporary folder that an unprivileged server can use', {
    hint: 'set TMPDIR to a folder with a short path that every account may enter',
  })
}
