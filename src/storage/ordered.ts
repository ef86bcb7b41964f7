import { WalbackError } from '../base/errors.ts'
import type { StoredObject } from './storage.ts'

/** Passes a store's listing on, and refuses one that is not in the order of keys: chains are read in that order. */
export async function* ordered(url: string, objects: AsyncIterable<StoredObject>): AsyncGenerator<StoredObject> {
  let last: string | undefined
  for await (const object of objects) {
    if (last !== undefined && object.key <= last) {
      throw new WalbackError(
        'storage',
        `the store ${url} lists ${object.key} after ${last}: not in the order of keys`,
        {
          hint: 'walback needs a store that lists in order: on S3 a general purpose bucket, not a directory bucket (S3 Express)',
        },
      )
    }
    last = object.key
    yield object
  }
}
