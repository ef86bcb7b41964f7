import { afterAll, beforeAll } from 'vitest'
import { S3Storage } from '../../src/storage/s3.ts'
import { parseS3Url } from '../../src/storage/s3-url.ts'
import { storageContract } from './contract.ts'
import { type Conditional, S3Proxy } from './s3-proxy.ts'

process.env['AWS_ACCESS_KEY_ID'] = 'test'
process.env['AWS_SECRET_ACCESS_KEY'] = 'test'

let proxy: S3Proxy
beforeAll(async () => {
  proxy = await S3Proxy.start()
})
afterAll(() => proxy[Symbol.asyncDispose]())

// The smallest parts that S3 takes, so that the large objects of the contract are uploads in parts.
const partBytes = (): number => 5 << 20

for (const conditional of ['honoured', 'on puts', 'ignored', 'refused'] satisfies Conditional[]) {
  storageContract(`S3 with conditional writes ${conditional}`, async () => {
    proxy.calm()
    proxy.conditional = conditional
    const location = parseS3Url(proxy.newBucket(), {})
    return {
      storage: new S3Storage(location, { partBytes }),
      another: () => new S3Storage(location, { partBytes }),
      [Symbol.asyncDispose]: async () => proxy.calm(),
    }
  })
}
