import { type Pace, PaceMeter, type RestoreProgress } from '../src/index.ts'
import { bytes, count, duration } from './format.ts'
import type { Output } from './output.ts'

/** Live words about long work: one line that is written over on a terminal, else a line per phase and every 10 s. */
export class Progress implements Disposable {
  private readonly out: Output
  private readonly isLive: boolean
  private phase: string | undefined
  private shown_ms = 0
  private isOpen = false
  /** What was last said of the phase and not shown. */
  private held: string | undefined

  constructor(out: Output) {
    this.out = out
    this.isLive = Boolean(out.stderr.isTTY) && !out.quiet && !out.json
  }

  /** Says where a phase is. */
  note(phase: string, text: string): void {
    const now = performance.now()
    const isNew = phase !== this.phase
    const line = `${phase.padEnd(8)} ${text}`
    if (!isNew && now - this.shown_ms < (this.isLive ? liveEvery_ms : lineEvery_ms)) {
      this.held = line
      return
    }
    if (isNew) this.close()
    this.phase = phase
    this.shown_ms = now
    this.held = undefined
    this.show(line)
  }

  private show(line: string): void {
    if (!this.isLive) {
      this.out.say(line)
      return
    }
    this.out.stderr.write(`\r\u001b[K${line.slice(0, (this.out.stderr.columns || 80) - 1)}`)
    this.isOpen = true
  }

  /** Shows a part of a known whole as a bar. */
  bar(phase: string, share: number | undefined, text: string): void {
    if (share === undefined) {
      this.note(phase, text)
      return
    }
    const filled = Math.round(share * barWidth)
    this.note(
      phase,
      this.isLive
        ? `${'█'.repeat(filled)}${'░'.repeat(barWidth - filled)} ${String(Math.floor(share * 100)).padStart(3)} %  ${text}`
        : text,
    )
  }

  /** Ends the line that is being written over, also before an error is shown. */
  [Symbol.dispose](): void {
    this.close()
    this.phase = undefined
  }

  /** A phase ends with what it came to. */
  private close(): void {
    if (this.held !== undefined) this.show(this.held)
    this.held = undefined
    if (!this.isOpen) return
    this.out.stderr.write('\n')
    this.isOpen = false
  }
}

const liveEvery_ms = 100
const lineEvery_ms = 10_000
const barWidth = 20

/** Shows what a restore, or what works as one, is doing: as a bar, or as JSON in a line. */
export function restoreProgress(out: Output, progress: Progress): (state: RestoreProgress) => void {
  const meter = new PaceMeter()
  const show = out.json ? jsonProgress(out) : textProgress(progress)
  return (state) => show(state, meter.observe(state, performance.now()))
}

type Show = (state: RestoreProgress, pace: Pace) => void

const textProgress =
  (progress: Progress): Show =>
  (state, pace) =>
    progress.bar(state.phase, shareOf(state), `${amountOf(state)}${paceInWords(state, pace)}`)

const shareOf = ({ done, total }: RestoreProgress): number | undefined =>
  total ? Math.min(1, done / total) : undefined

function amountOf({ unit, done, total }: RestoreProgress): string {
  const show = unit === 'bytes' ? bytes : count
  return `${show(done)}${total === undefined ? '' : ` of ${show(total)}`}${unit === 'bytes' ? '' : ` ${unit}`}`
}

/** What is left comes first: a narrow terminal cuts the end off. */
export function paceInWords({ unit, done, total }: RestoreProgress, { rate_per_s, rows_per_s, left_ms }: Pace): string {
  const rate = (value: number): string => (value < 10 ? value.toFixed(1) : count(Math.round(value)))
  const isOver = total !== undefined && done >= total
  const words = [
    ...(left_ms === undefined || isOver ? [] : [`${duration(left_ms)} left`]),
    ...(rate_per_s === undefined ? [] : [unit === 'bytes' ? `${bytes(rate_per_s)}/s` : `${rate(rate_per_s)}/s`]),
    ...(rows_per_s === undefined ? [] : [`${rate(rows_per_s)} rows/s`]),
  ]
  return words.map((word) => `, ${word}`).join('')
}

/** A line when a phase begins and ends, and one a second in between. */
function jsonProgress(out: Output): Show {
  let [phase, shown_ms] = ['', 0]
  return (state, pace) => {
    const now = performance.now()
    if (state.phase === phase && now - shown_ms < 1000 && state.done !== state.total) return
    phase = state.phase
    shown_ms = now
    const { done, total = null, unit, rows = null } = state
    out.line({ type: 'status', phase, done, total, unit, rows, ...paceJson(pace) })
  }
}

const paceJson = ({ rate_per_s, rows_per_s, left_ms }: Pace): Record<string, number | null> => ({
  rate_per_s: whole(rate_per_s),
  rows_per_s: whole(rows_per_s),
  left_ms: whole(left_ms),
})

const whole = (value: number | undefined): number | null => (value === undefined ? null : Math.round(value))
