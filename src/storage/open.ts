import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { WalbackError } from '../base/errors.ts'
import { AzureStorage } from './azure.ts'
import { azureExample, parseAzureUrl } from './azure-url.ts'
import { DirectoryStorage } from './directory.ts'
import { GcsStorage } from './gcs.ts'
import { gcsExample, parseGcsUrl } from './gcs-url.ts'
import { S3Storage } from './s3.ts'
import { parseS3Url, s3Example } from './s3-url.ts'
import { SftpStorage } from './sftp.ts'
import { parseSftpUrl, sftpExample } from './sftp-url.ts'
import type { Storage } from './storage.ts'

/** Variables that say what a URL leaves out; nothing else of an environment is read. */
export type StorageEnv = Readonly<Record<string, string | undefined>>

/** The store that a repository URL names, by its scheme; a plain path is a folder. Nothing is asked or loaded yet. */
export function openStorage(url: string, env: StorageEnv = {}): Storage {
  if (url === '') throw new WalbackError('usage', 'the repository URL is empty', { hint: urlHint })
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(url)?.[1]?.toLowerCase()
  switch (scheme) {
    case undefined:
      return new DirectoryStorage(path.resolve(url))
    case 'file':
      return new DirectoryStorage(folderOf(url))
    case 's3':
      return new S3Storage(parseS3Url(url, env))
    case 'az':
    case 'azure':
      return new AzureStorage(parseAzureUrl(url, env))
    case 'gs':
      return new GcsStorage(parseGcsUrl(url, env))
    case 'sftp':
      return new SftpStorage(parseSftpUrl(url, env))
    default:
      throw new WalbackError('usage', `no store for the repository URL ${scheme}:…`, { hint: urlHint })
  }
}

function folderOf(url: string): string {
  try {
    return fileURLToPath(url)
  } catch (error) {
    throw new WalbackError('usage', `not a usable repository URL: ${url}`, { cause: error, hint: urlHint })
  }
}

const urlHint = `a repository is a folder (file:///var/backups/app, or a path), a bucket (${s3Example}, ${gcsExample}, ${azureExample}) or a folder of a server (${sftpExample})`
