import { defineConfig } from 'vitest/config'
import { copiesClusters, startsCompiled } from './test/support/compiled.ts'

// Tests start real servers, so they are given time, and a file more than two cores carry at once, since each waits a good part of its time.
const patience_ms = 240_000
const runsLong = process.env.WALBACK_LONG !== undefined
// `npm run test:matrix`: what depends on the server's version, on every version, and from each up to the later ones.
const isMatrix = process.env.WALBACK_MATRIX !== undefined
const everyday = ['test/**/*.test.ts']
const matrix = ['test/matrix/**/*.test.ts', 'test/fidelity/**/*.test.ts']

export default defineConfig({
  plugins: [copiesClusters, ...['src/postgres/schema-dump-builtin.ts', 'src/compact/apart.ts'].map(startsCompiled)],
  test: {
    environment: 'node',
    include: isMatrix ? matrix : everyday,
    exclude: [...(runsLong ? [] : ['test/long/**']), ...(isMatrix ? [] : ['test/matrix/**'])],
    globalSetup: ['test/support/scratch.ts', 'test/support/compiled.ts', ...(isMatrix ? ['test/matrix/fetch.ts'] : [])],
    pool: 'forks',
    maxWorkers: 3,
    testTimeout: patience_ms,
    hookTimeout: patience_ms,
    teardownTimeout: patience_ms,
    // A property that fails says so in full, and a test that is skipped says why (`skip(condition, reason)`).
    reporters: ['default'],
    restoreMocks: true,
    env: { AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true' },
  },
})
