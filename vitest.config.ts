import { defineConfig } from 'vitest/config'

// Tests start real servers, so they are given time, and only as many files run at once as two cores carry.
const patience_ms = 120_000
const runsLong = process.env.WALBACK_LONG !== undefined

export default defineConfig({
  test: {
    environment: 'node',
    include: ['test/**/*.test.ts'],
    exclude: runsLong ? [] : ['test/long/**'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: patience_ms,
    hookTimeout: patience_ms,
    teardownTimeout: patience_ms,
    // A property that fails says so in full, and a test that is skipped says why (`skip(condition, reason)`).
    reporters: ['default'],
    restoreMocks: true,
  },
})
