import {
  addPin,
  formatLsn,
  formatTime,
  micros,
  nearest,
  type Pin,
  parseLsn,
  planRestore,
  type RecoveryTarget,
  type Repository,
  readBaseHeads,
  readPins,
  removePin,
  WalbackError,
} from '../../src/index.ts'
import { audited } from '../audited.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { printable, table } from '../format.ts'
import { pinJson } from '../holdings.ts'

interface Options {
  readonly base?: string
  readonly mark?: string
  readonly time?: string
  readonly note?: string
}

export const addPins: AddCommand = (program, bind) => {
  const command = program
    .command('pin')
    .description('keep a recovery point for ever, whatever retention says')
    .option('--base <id>', 'the moment of a base backup')
    .option('--mark <name>', 'a mark')
    .option('--time <time>', 'everything committed up to and including this time')
    .option('--note <text>', 'why, for whoever wonders later')
    .action(bind<Options>(pin))
  command.command('list').description('the pins').action(bind(list))
  program
    .command('unpin')
    .description('take a pin away; what only it kept goes with the next prune')
    .argument('<pin>', 'its id, as `pin list` shows it')
    .action(bind(unpin))
}

type Point = Parameters<typeof addPin>[2]

async function pin(context: Context, options: Options): Promise<undefined> {
  const { out } = context
  const given = [options.base, options.mark, options.time].filter((one) => one !== undefined)
  if (given.length !== 1) {
    throw new WalbackError('usage', given.length === 0 ? 'pin what?' : 'more than one thing to pin', {
      hint: 'give one of --base ID, --mark NAME, --time TIME',
    })
  }
  const note = options.note ?? null
  if (note !== null && !/^\P{Cc}{1,200}$/u.test(note))
    throw new WalbackError('usage', 'not a note', { hint: 'use 1 to 200 printable characters' })
  const { repository, source } = await context.openSource()
  const target = targetOf(context, options)
  const find = (): Promise<Omit<Point, 'note'>> =>
    target === undefined
      ? pointOfBase(context, repository, source, options.base ?? '')
      : pointOf(context, repository, source, target)
  const point = await find()
  const { result: made, audit } = await audited<Pin>(
    context,
    { repository, source },
    {
      action: 'pin',
      role: null,
      asked: `${inWords(point)}${note === null ? '' : ` (${note})`}`,
      facts: { ...point, note },
      came: ({ id }) => ({ words: `pin ${id}`, facts: { pin: id } }),
    },
    async () => {
      const added = await addPin(repository, source, { ...point, note })
      try {
        // A prune may have ended between the look and the pin.
        await find()
        return added
      } catch (error) {
        await removePin(repository, source, added.id)
        throw error
      }
    },
  )
  out.result(`pin ${made.id}: ${inWords(made)} is kept until \`walback unpin ${made.id}\``)
  out.document({ source, pin: pinJson(made), audit })
}

function targetOf(context: Context, { mark, time }: Options): RecoveryTarget | undefined {
  if (mark !== undefined) return { kind: 'mark', name: mark }
  return time === undefined ? undefined : { kind: 'time', time: context.readTime(time) }
}

async function pointOfBase(
  { signal }: Context,
  repository: Repository,
  source: string,
  id: string,
): Promise<Omit<Point, 'note'>> {
  const bases = await readBaseHeads(repository, source, { of: 'any', signal })
  const base = bases.find((one) => one.id === id)
  if (base === undefined) {
    const meant = nearest(
      id,
      bases.map((one) => one.id),
    )
    throw new WalbackError('usage', `there is no base backup ${JSON.stringify(id)}`, {
      hint: meant === undefined ? '`walback list` shows all' : `did you mean ${meant}?`,
    })
  }
  return { timeline: base.timeline, lsn: base.lsn, time: base.time, base: base.id, mark: null }
}

/** Where the target is now; one that cannot be restored is refused as a restore refuses it. */
async function pointOf(
  { signal }: Context,
  repository: Repository,
  source: string,
  target: RecoveryTarget,
): Promise<Omit<Point, 'note'>> {
  const plan = await planRestore(repository, source, target, { signal })
  const lsn = target.kind === 'mark' ? plan.reached : plan.cut
  const times = [BigInt(plan.base.time), BigInt(plan.lastKept?.time ?? 0)].sort((a, b) => (a < b ? -1 : 1))
  const time = target.kind === 'time' ? target.time.toString() : String(times[1])
  const mark = target.kind === 'mark' ? target.name : null
  return { timeline: plan.timeline.id, lsn: formatLsn(lsn), time, base: null, mark }
}

async function list(context: Context): Promise<undefined> {
  const { out, signal } = context
  const { repository, source } = await context.openSource()
  const pins = await readPins(repository, source, signal)
  const rows = pins.map((one) => [one.id, inWords(one), printable(one.note ?? '')])
  out.data(pins.length === 0 ? 'no pins' : table([['PIN', 'KEEPS', 'NOTE'], ...rows]))
  out.document({ source, pins: pins.map(pinJson) })
}

async function unpin(context: Context, _: unknown, [id = '']: readonly string[]): Promise<undefined> {
  const { out, signal } = context
  const { repository, source } = await context.openSource()
  const pins = await readPins(repository, source, signal)
  const found = pins.find((one) => one.id === id)
  if (found === undefined) {
    throw new WalbackError('usage', `there is no pin ${JSON.stringify(id)}`, { hint: '`walback pin list` shows all' })
  }
  const { audit } = await audited(
    context,
    { repository, source },
    {
      action: 'unpin',
      role: null,
      asked: `pin ${id} of ${inWords(found)}`,
      facts: { pin: id, lsn: found.lsn, timeline: found.timeline },
      came: () => ({ words: 'taken away', facts: {} }),
    },
    () => removePin(repository, source, id),
  )
  out.result(`pin ${id} is gone: ${inWords(found)} is kept only as far as retention says`)
  out.document({ source, unpinned: pinJson(found), audit })
}

function inWords({ base, mark, lsn, time }: Omit<Point, 'note'>): string {
  const at = `${formatTime(micros(BigInt(time)))} (${formatLsn(parseLsn(lsn))})`
  if (base !== null) return `base ${base}, ${at}`
  return mark === null ? at : `mark ${printable(mark)}, ${at}`
}
