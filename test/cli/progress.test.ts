import { PassThrough } from 'node:stream'
import { expect, it } from 'vitest'
import { Output } from '../../cli/output.ts'
import { Progress, paceInWords, restoreProgress } from '../../cli/progress.ts'
import type { RestoreProgress } from '../../src/index.ts'

const rows: RestoreProgress = { phase: 'rows', done: 50 << 20, total: 100 << 20, unit: 'bytes', rows: 1_000_000 }

it('says what is left first, and then how fast it goes', () => {
  const pace = { rate_per_s: 5 << 20, rows_per_s: 100_000.4, left_ms: 10_000 }
  expect(paceInWords(rows, pace)).toBe(', 10 s left, 5.0 MiB/s, 100 000 rows/s')
  expect(paceInWords({ ...rows, done: 100 << 20 }, { ...pace, left_ms: 0 })).toBe(', 5.0 MiB/s, 100 000 rows/s')
  const indexes: RestoreProgress = { phase: 'indexes', done: 3, total: 12, unit: 'statements' }
  expect(paceInWords(indexes, { rate_per_s: 0.25, rows_per_s: undefined, left_ms: 36_000 })).toBe(', 36 s left, 0.3/s')
  expect(paceInWords(indexes, { rate_per_s: undefined, rows_per_s: undefined, left_ms: undefined })).toBe('')
})

function shown(
  isTerminal: boolean,
  json: boolean,
): { readonly text: () => string; readonly show: (state: RestoreProgress) => void } {
  const streams = {
    stdout: new PassThrough(),
    stderr: Object.assign(new PassThrough(), { isTTY: isTerminal, columns: 200 }),
  }
  const out = new Output({ ...streams, json, quiet: false, verbose: false, colour: false })
  const show = restoreProgress(out, new Progress(out))
  return { show, text: () => String((json ? streams.stdout : streams.stderr).read() ?? '') }
}

it('is a bar on a terminal, a line elsewhere, and a line of JSON', () => {
  for (const [isTerminal, json, expected] of [
    [true, false, /█{10}░{10} {2}50 % {2}50\.0 MiB of 100 MiB/],
    [false, false, /^rows {5}50\.0 MiB of 100 MiB\n$/],
  ] as const) {
    const { show, text } = shown(isTerminal, json)
    show(rows)
    expect(text()).toMatch(expected)
  }
  const { show, text } = shown(false, true)
  show(rows)
  expect(JSON.parse(text())).toEqual({
    type: 'status',
    phase: 'rows',
    done: 50 << 20,
    total: 100 << 20,
    unit: 'bytes',
    rows: 1_000_000,
    rate_per_s: null,
    rows_per_s: null,
    left_ms: null,
  })
})
