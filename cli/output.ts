import type { Writable } from 'node:stream'

export interface OutputOptions {
  readonly stdout: Writable & { readonly isTTY?: boolean }
  readonly stderr: Writable & { readonly isTTY?: boolean; readonly columns?: number }
  readonly json: boolean
  readonly quiet: boolean
  readonly verbose: boolean
  readonly colour: boolean
}

const styles = { bold: [1, 22], red: [31, 39], green: [32, 39], yellow: [33, 39], dim: [2, 22] } as const
export type Style = keyof typeof styles

/** Where a command writes: data to stdout, words to stderr. */
export class Output {
  readonly json: boolean
  readonly quiet: boolean
  readonly verbose: boolean
  readonly stderr: OutputOptions['stderr']
  private readonly stdout: OutputOptions['stdout']
  private readonly colour: boolean

  constructor(options: OutputOptions) {
    this.stdout = options.stdout
    this.stderr = options.stderr
    this.json = options.json
    this.quiet = options.quiet
    this.verbose = options.verbose
    this.colour = options.colour
  }

  /** What the command was asked for, as text. */
  data(text: string): void {
    if (!this.json) this.stdout.write(text.endsWith('\n') ? text : `${text}\n`)
  }

  /** The one line that says what was done: data, but not for those who asked for quiet, such as cron. */
  result(text: string): void {
    if (!this.quiet) this.data(text)
  }

  /** What the command was asked for, as one JSON document. */
  document(content: Readonly<Record<string, unknown>>): void {
    if (this.json) this.stdout.write(`${toJson({ schema_version: 1, ...content })}\n`)
  }

  /** One of several JSON lines. */
  line(content: Readonly<Record<string, unknown>>): void {
    if (this.json) this.stdout.write(`${toJson(content)}\n`)
  }

  /** Words about the work: nothing that a script reads. */
  say(text: string): void {
    if (!this.json && !this.quiet) this.stderr.write(text.endsWith('\n') ? text : `${text}\n`)
  }

  /** Words for `-v` only. */
  detail(text: string): void {
    if (this.verbose) this.say(text)
  }

  /** What should be seen even by those who asked for quiet. */
  warn(text: string): void {
    if (!this.json) this.stderr.write(`${this.paint('warning:', 'yellow')} ${text}\n`)
  }

  /** Styles text that goes to stderr. */
  paint(text: string, style: Style): string {
    return this.colour && this.stderr.isTTY ? styled(text, style) : text
  }

  /** Styles text that goes to stdout. */
  paintData(text: string, style: Style): string {
    return this.colour && this.stdout.isTTY ? styled(text, style) : text
  }
}

const styled = (text: string, style: Style): string => `\u001b[${styles[style][0]}m${text}\u001b[${styles[style][1]}m`

/** 64-bit integers are strings in our JSON: most readers would round them. */
export const toJson = (content: unknown): string =>
  JSON.stringify(content, (_, value: unknown) => (typeof value === 'bigint' ? value.toString() : value))
