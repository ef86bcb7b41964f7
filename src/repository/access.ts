import path from 'node:path'
import { z } from 'zod'
import { WalbackError } from '../base/errors.ts'
import { type Credential, readKeyFile, readPassphraseFile } from './credential.ts'
import type { Access } from './repository-key.ts'

/** `encryption` in a configuration: what opens the repository, and which key it must have. */
export const encryptionShape = z.strictObject({
  key_file: z.string().min(1, 'empty').optional(),
  passphrase: z.string().min(1, 'empty').optional(),
  passphrase_file: z.string().min(1, 'empty').optional(),
  fingerprint: z
    .string()
    .regex(
      /^[0-9a-f]{4}(-[0-9a-f]{4}){7}$/,
      'eight groups of four hexadecimal digits, as `walback key list` prints them',
    )
    .optional(),
})
export type EncryptionSettings = z.infer<typeof encryptionShape>

const ways = ['key_file', 'passphrase', 'passphrase_file'] as const

/** What opens the repository, from the first of flag, environment and configuration that says anything. */
export function encryptionSettings(
  keyFileFlag: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
  configured: EncryptionSettings | undefined,
): EncryptionSettings {
  const flag: EncryptionSettings = keyFileFlag === undefined ? {} : { key_file: keyFileFlag }
  const given: EncryptionSettings = {
    ...(env['WALBACK_KEY_FILE'] ? { key_file: env['WALBACK_KEY_FILE'] } : {}),
    ...(env['WALBACK_PASSPHRASE'] ? { passphrase: env['WALBACK_PASSPHRASE'] } : {}),
    ...(env['WALBACK_PASSPHRASE_FILE'] ? { passphrase_file: env['WALBACK_PASSPHRASE_FILE'] } : {}),
  }
  const fingerprint = env['WALBACK_KEY_FINGERPRINT'] || configured?.fingerprint
  const chosen = [flag, given, configured ?? {}].find((one) => ways.some((way) => one[way] !== undefined)) ?? {}
  const said = ways.filter((way) => chosen[way] !== undefined)
  if (said.length > 1) {
    throw new WalbackError('usage', `${said.join(' and ')} are given together, and one of them is needed`, {
      hint: 'which is meant? They are read from encryption in walback.yaml, and from WALBACK_KEY_FILE, WALBACK_PASSPHRASE and WALBACK_PASSPHRASE_FILE',
    })
  }
  const { fingerprint: _, ...opening } = chosen
  return { ...opening, ...(fingerprint ? { fingerprint } : {}) }
}

/** The same, its files as seen from a folder. */
export const withFilesFrom = (folder: string, settings: EncryptionSettings): EncryptionSettings => ({
  ...settings,
  ...(settings.key_file === undefined ? {} : { key_file: path.resolve(folder, settings.key_file) }),
  ...(settings.passphrase_file === undefined
    ? {}
    : { passphrase_file: path.resolve(folder, settings.passphrase_file) }),
})

/** Reads what the settings name; undefined when they name nothing. */
export async function readAccess(settings: EncryptionSettings): Promise<Access | undefined> {
  const credential = await readCredential(settings)
  if (credential === undefined && settings.fingerprint === undefined) return undefined
  return { credential, fingerprint: settings.fingerprint }
}

async function readCredential(settings: EncryptionSettings): Promise<Credential | undefined> {
  const { key_file, passphrase, passphrase_file } = settings
  if (key_file !== undefined) return readKeyFile(key_file)
  if (passphrase !== undefined) return { kind: 'passphrase', passphrase }
  if (passphrase_file === undefined) return undefined
  return { kind: 'passphrase', passphrase: await readPassphraseFile(passphrase_file) }
}
