import { type CommanderError, InvalidArgumentError } from 'commander'
import { exitStatus, explainLostSession, messageOf, WalbackError } from '../src/index.ts'
import { printable } from './format.ts'
import { type Output, toJson } from './output.ts'

/** Commander's complaint in our form; undefined where it is none: help and version were shown. */
export function usageError(error: CommanderError, command: string): WalbackError | undefined {
  if (['commander.helpDisplayed', 'commander.version'].includes(error.code)) return undefined
  if (error.code === 'commander.help')
    return error.exitCode === 0
      ? undefined
      : new WalbackError('usage', 'which command?', { hint: 'see `walback --help`' })
  const [message = '', ...rest] = error.message.replace(/^error: /, '').split('\n')
  const suggestion = rest
    .join(' ')
    .trim()
    .replace(/^\((.*)\)$/, '$1')
  const help = `see \`walback${command === '' ? '' : ` ${command}`} --help\``
  return new WalbackError('usage', message, {
    hint: suggestion === '' ? help : `${suggestion.replace(/^Did/, 'did')} ${help}`,
  })
}

/** Reports what went wrong and gives the exit status. */
export function report(error: unknown, output: Output): number {
  const explained = explainLostSession(error)
  const known = explained instanceof WalbackError ? explained : undefined
  const exit = known?.exit ?? exitStatus.failed
  const message = known?.message ?? `unexpected error (a bug in walback): ${messageOf(error)}`
  const hint = known
    ? known.hint
    : output.verbose
      ? 'please report it with the stack below'
      : 'please report it, with what -v shows'
  if (output.json) {
    const facts = known && Object.keys(known.facts).length > 0 ? { facts: known.facts } : {}
    const name = known?.code ?? 'unexpected'
    output.stderr.write(
      `${toJson({ type: 'error', code: exit, name, message, hint: hint ?? null, retryable: known?.retryable ?? false, ...facts })}\n`,
    )
    return exit
  }
  output.stderr.write(`${output.paint('error:', 'red')} ${indented(message, 'error: ')}\n`)
  if (hint) output.stderr.write(`${output.paint('hint:', 'bold')} ${indented(hint, 'hint: ')}\n`)
  if (output.verbose) output.stderr.write(`${stackOf(error)}\n`)
  return exit
}

const indented = (text: string, head: string): string =>
  text
    .split('\n')
    .map(printable)
    .join(`\n${' '.repeat(head.length)}`)

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return `${error.stack}${error.cause === undefined ? '' : `\ncaused by: ${stackOf(error.cause)}`}`
}

/** For commander's option parsers: our own message instead of its wrapping. */
export function invalid(message: string): never {
  throw new InvalidArgumentError(message)
}
