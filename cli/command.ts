import type { Command } from 'commander'
import type { CommonFlags, Context } from './context.ts'

/** A command's work; what it gives is the exit status, 0 when nothing. */
export type Work<Options> = (
  context: Context,
  options: Options,
  words: readonly string[],
) => Promise<number | undefined>

/** Makes a commander action of a command's work. */
export type Bind = <Options>(work: Work<Options & CommonFlags>) => (...all: unknown[]) => Promise<void>

/** Adds one command to the program. */
export type AddCommand = (program: Command, bind: Bind) => void
