/** The loads that tests put on a source: one plain and fast, one made of hard cases. */
export type { LoadOptions, LoadReport, Sample } from './load.ts'
export { createNasty, runNasty } from './nasty.ts'
export { createPgbench, type PgbenchReport, runPgbench } from './pgbench.ts'
