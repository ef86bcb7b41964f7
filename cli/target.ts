import type { Command } from 'commander'
import { formatLsn, formatTime, parseLsn, type RecoveryTarget, WalbackError } from '../src/index.ts'
import type { Context } from './context.ts'

/** What a command line says of the moment that is meant. */
export interface TargetFlags {
  readonly to?: string
  /** The same, where a command has it. */
  readonly at?: string
  readonly toLsn?: string
  readonly toTx?: string
  readonly beforeTx?: string
  readonly toMark?: string
}

/** `flag`: what names a time. */
export const addTargetFlags = (command: Command, flag: '--to' | '--at' = '--to'): Command =>
  command
    .option(`${flag} <time>`, 'everything committed up to and including this time; or latest')
    .option('--to-lsn <lsn>', 'every transaction whose commit ends at or before this position')
    .option('--to-tx <xid>', 'this transaction is the last kept')
    .option('--before-tx <xid>', 'this transaction is the first left out')
    .option('--to-mark <name>', 'up to a mark')

/** The one target that is given; `question` is what is asked if there is none. */
export async function targetOf(
  context: Context,
  options: TargetFlags,
  question: 'restore to when?' | 'query as of when?',
): Promise<RecoveryTarget> {
  const target = findTarget(context, options)
  if (target !== undefined) return target
  if (context.isInteractive) {
    const answer = await context.ask(`${question} (a time, latest, before-tx:81240, tx:81240, mark:NAME, a position) `)
    if (answer !== '') return readTarget(context, answer)
  }
  throw new WalbackError('usage', question, { hint: oneOf(question === 'restore to when?' ? '--to' : '--at') })
}

/** The same where there need be none. */
export function findTarget(context: Context, options: TargetFlags): RecoveryTarget | undefined {
  const given = [
    ['--to', options.to],
    ['--at', options.at],
    ['--to-lsn', options.toLsn],
    ['--to-tx', options.toTx],
    ['--before-tx', options.beforeTx],
    ['--to-mark', options.toMark],
  ].filter(([, value]) => value !== undefined)
  if (given.length > 1)
    throw new WalbackError('usage', `more than one target: ${given.map(([flag]) => flag).join(', ')}`, {
      hint: oneOf('--to'),
    })
  if (options.toLsn !== undefined) return { kind: 'lsn', lsn: parseLsn(options.toLsn) }
  if (options.toTx !== undefined) return { kind: 'tx', xid: parseXid(options.toTx), inclusive: true }
  if (options.beforeTx !== undefined) return { kind: 'tx', xid: parseXid(options.beforeTx), inclusive: false }
  if (options.toMark !== undefined) return { kind: 'mark', name: options.toMark }
  const moment = options.to ?? options.at
  return moment === undefined ? undefined : context.readMoment(moment)
}

const oneOf = (flag: string): string =>
  `give one of ${flag} TIME, ${flag} latest, --to-lsn LSN, --to-tx XID, --before-tx XID, --to-mark NAME`

/**
 * A target in one word, where a command takes several: a time, `latest` or `now`, a position, and, as `log` and `status`
 * show them, `tx:81240`, `before-tx:81240`, `mark:NAME`.
 */
export function readTarget(context: Context, text: string): RecoveryTarget {
  const word = text.trim()
  if (word === 'now') return { kind: 'latest' }
  if (/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/i.test(word)) return { kind: 'lsn', lsn: parseLsn(word) }
  const [, name, value = ''] = /^(tx|before-tx|mark):(.+)$/s.exec(word) ?? []
  if (name === 'mark') return { kind: 'mark', name: value }
  if (name !== undefined) return { kind: 'tx', xid: parseXid(value), inclusive: name === 'tx' }
  return context.readMoment(word)
}

function parseXid(text: string): bigint {
  const digits = /^\s*(?:tx:)?(\d{1,20})\s*$/.exec(text)?.[1]
  if (digits !== undefined) return BigInt(digits)
  throw new WalbackError('usage', `not a transaction id: ${JSON.stringify(text)}`, {
    hint: 'it is a number, as `walback log` shows it',
  })
}

/** A target as our JSON has it. */
export function targetInJson(target: RecoveryTarget): Record<string, unknown> {
  switch (target.kind) {
    case 'latest':
      return { kind: 'latest' }
    case 'time':
      return { kind: 'time', time: formatTime(target.time) }
    case 'lsn':
      return { kind: 'lsn', lsn: formatLsn(target.lsn) }
    case 'tx':
      return { kind: 'tx', xid: target.xid.toString(), inclusive: target.inclusive }
    case 'mark':
      return { kind: 'mark', name: target.name }
  }
}
