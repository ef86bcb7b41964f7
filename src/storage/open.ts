import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { WalbackError } from '../base/errors.ts'
import { DirectoryStorage } from './directory.ts'
import type { Storage } from './storage.ts'

/** The store that a repository URL names: `file:///path`, or a plain path. */
export function openStorage(url: string): Storage {
  if (url === '') throw new WalbackError('usage', 'the repository URL is empty', { hint: urlHint })
  if (!/^[a-z][a-z0-9+.-]+:/i.test(url)) return new DirectoryStorage(path.resolve(url))
  if (/^file:/i.test(url)) {
    try {
      return new DirectoryStorage(fileURLToPath(url))
    } catch (error) {
      throw new WalbackError('usage', `not a usable repository URL: ${url}`, { cause: error, hint: urlHint })
    }
  }
  throw new WalbackError('usage', `no store for the repository URL ${url.replace(/:.*/s, ':…')}`, { hint: urlHint })
}

const urlHint = 'a repository is a folder: file:///var/backups/app, or a path'
