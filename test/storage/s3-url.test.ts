import { describe, expect, test } from 'vitest'
import { parseConfig } from '../../src/config.ts'
import { openStorage } from '../../src/storage/open.ts'
import { parseS3Url } from '../../src/storage/s3-url.ts'

describe('an S3 repository URL', () => {
  test('of AWS names bucket, prefix and region', () => {
    expect(parseS3Url('s3://acme-backups/app//one/?region=eu-central-1', {})).toEqual({
      bucket: 'acme-backups',
      prefix: 'app/one/',
      region: 'eu-central-1',
      endpoint: undefined,
      pathStyle: false,
      url: 's3://acme-backups/app/one?region=eu-central-1',
    })
    expect(parseS3Url('s3://bucket', {})).toMatchObject({ prefix: '', region: undefined, url: 's3://bucket' })
  })

  test('with an endpoint, its own or the environment’s, has the bucket in the path', () => {
    const expected = { endpoint: 'https://minio:9000', pathStyle: true, region: 'us-east-1' }
    expect(parseS3Url('s3://bucket/x?endpoint=https://minio:9000', {})).toMatchObject(expected)
    expect(parseS3Url('s3://bucket/x', { AWS_ENDPOINT_URL_S3: 'https://minio:9000' })).toMatchObject(expected)
    const both = { AWS_ENDPOINT_URL_S3: 'https://other', AWS_REGION: 'eu-north-1' }
    expect(parseS3Url('s3://bucket/x?endpoint=https://minio:9000&path_style=false', both)).toMatchObject({
      endpoint: 'https://minio:9000',
      pathStyle: false,
      region: 'eu-north-1',
    })
  })

  test('is read again as the same', () => {
    const { url } = parseS3Url('s3://bucket/a/b?path_style=true&endpoint=http%3A%2F%2F127.0.0.1%3A9000&region=x', {})
    expect(url).toBe('s3://bucket/a/b?region=x&endpoint=http://127.0.0.1:9000&path_style=true')
    expect(parseS3Url(url, {}).url).toBe(url)
    expect(openStorage(url).url).toBe(url)
  })

  test.each([
    's3://',
    's3://B',
    's3:///app',
    's3://key:secret@bucket/app',
    's3://bucket/app?endpoint=minio:9000',
    's3://bucket/app?endpoint=https://key:secret@minio',
    's3://bucket/app?regio=x',
    's3://bucket/app?path_style=1',
    's3://bucket/../app%20x',
  ])('%s is refused, without its secrets', (url) => {
    expect(() => parseS3Url(url, {})).toThrow(expect.objectContaining({ code: 'usage' }))
    expect(() => parseS3Url(url, {})).not.toThrow(/secret/)
  })
})

describe('a repository in a configuration', () => {
  const repository = (text: string): string | undefined =>
    parseConfig(`version: 1\n${text}`, 'walback.yaml', {}).repositories?.[0]?.url

  test('is a URL, or a map of the URL and its parameters', () => {
    expect(repository('repositories: ["s3://bucket/app"]')).toBe('s3://bucket/app')
    expect(
      repository('repositories: [{ url: s3://bucket/app, endpoint: https://minio:9000, region: x, path_style: true }]'),
    ).toBe('s3://bucket/app?region=x&endpoint=https%3A%2F%2Fminio%3A9000&path_style=true')
    expect(repository('sources: { app: }')).toBeUndefined()
  })

  test.each([
    ['repositories: [{ url: s3://bucket, endpont: x }]', /unknown key "endpont"; known here: url, region, endpoint/],
    ['repositories: [{ endpoint: x }]', /a URL, a path, or a map with url/],
    ['repositories: [""]', /repositories.0: empty/],
    ['repositories: [5]', /a URL, a path, or a map with url/],
  ])('%s is refused', (text, message) => {
    expect(() => repository(text)).toThrow(message)
  })
})
