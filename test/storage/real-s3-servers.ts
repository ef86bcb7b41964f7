/**
 * Real S3 servers, as far as there are any:
 * - Ceph's gateway with `WALBACK_RADOSGW=1` (or a folder to keep its packages in; `radosgw.sh` downloads them with apt);
 * - MinIO in a container, where Docker runs;
 * - whatever `WALBACK_S3_URL=s3://bucket/prefix?…` names, with credentials from the environment: give it a bucket of its
 *   own, since each test writes below a new prefix and removes what it wrote.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import { GenericContainer, getContainerRuntimeClient } from 'testcontainers'

const run = promisify(execFile)
const givenUrl = process.env['WALBACK_S3_URL']
const radosgw = process.env['WALBACK_RADOSGW']

export interface Server extends AsyncDisposable {
  readonly url: string
}

async function startRadosgw(): Promise<Server> {
  const script = path.join(import.meta.dirname, 'radosgw.sh')
  const folder = radosgw === '1' || radosgw === undefined ? path.join(tmpdir(), 'walback-radosgw') : radosgw
  if (!existsSync(path.join(folder, 'root'))) await run(script, ['fetch', folder])
  const { stdout } = await run(script, ['up', folder])
  const url = await withBucket(stdout.trim(), 'TESTKEY', 'TESTSECRET')
  return { url, [Symbol.asyncDispose]: async () => void (await run(script, ['down', folder])) }
}

async function startMinio(): Promise<Server> {
  const container = await new GenericContainer('minio/minio:RELEASE.2025-09-07T16-13-09Z')
    .withEnvironment({ MINIO_ROOT_USER: 'testkey', MINIO_ROOT_PASSWORD: 'testsecret' })
    .withCommand(['server', '/data'])
    .withExposedPorts(9000)
    .start()
  const url = await withBucket(
    `http://${container.getHost()}:${container.getMappedPort(9000)}`,
    'testkey',
    'testsecret',
  )
  return { url, [Symbol.asyncDispose]: async () => void (await container.stop()) }
}

async function withBucket(endpoint: string, key: string, secret: string): Promise<string> {
  process.env['AWS_ACCESS_KEY_ID'] = key
  process.env['AWS_SECRET_ACCESS_KEY'] = secret
  const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true })
  await client.send(new CreateBucketCommand({ Bucket: 'walback' }))
  client.destroy()
  return `s3://walback?region=us-east-1&endpoint=${endpoint}`
}

const hasDocker = await getContainerRuntimeClient().then(
  () => true,
  () => false,
)

/** `absent`: why it is not there to be tested with, or false. */
export const servers = [
  { name: "Ceph's gateway", start: startRadosgw, absent: radosgw === undefined && 'WALBACK_RADOSGW is not set' },
  { name: 'MinIO', start: startMinio, absent: !hasDocker && 'no Docker runs here' },
  {
    name: 'the store of WALBACK_S3_URL',
    start: async () => ({ url: givenUrl ?? '', [Symbol.asyncDispose]: async () => undefined }),
    absent: givenUrl === undefined && 'it is not set',
  },
]
