import {
  type BaseManifest,
  describeLease,
  formatTime,
  type Holdings,
  type LeaseRecord,
  nearest,
  type Pin,
  type RepositoryKey,
  readHoldings,
  readLeases,
  readPins,
  WalbackError,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { bytes, count, duration, plural, printable, table } from '../format.ts'
import { baseJson, baseTime, coverageJson, duration_ms, leaseJson, pinJson, windowLines } from '../holdings.ts'
import { passedOverJson, readFirst } from '../readable.ts'
import { flagsOf } from '../selection.ts'
import { encryptionInWords, encryptionJson } from './key.ts'

export const addInfo: AddCommand = (program, bind) => {
  program
    .command('info')
    .description('sizes, pins and leases, and one base backup: when, what, how large')
    .argument('[base]', 'its id, or latest', 'latest')
    .action(bind(info))
}

async function info(context: Context, _: unknown, [id = 'latest']: readonly string[]): Promise<undefined> {
  const { out, signal } = context
  const opened = await readFirst(context, ({ repository, source }) => readHoldings(repository, source, signal))
  const { repository, source, passedOver, value: holdings } = opened
  const all = [...holdings.partialBases, ...holdings.bases]
  const base = choose(all, id)
  const [pins, leases] = [await readPins(repository, source, signal), await readLeases(repository, source, signal)]
  out.data(`${windowLines(holdings).join('\n')}\n`)
  out.data(table(repositoryRows(holdings, pins, leases)))
  out.data(describe(base, repository.key))
  const rows = base.tables.map((one) => [
    printable(`${one.schema}.${one.name}`),
    count(one.rows),
    bytes(one.pieces.reduce((sum, piece) => sum + piece.size_bytes, 0)),
  ])
  if (rows.length > 0) out.data(`\n${table([['TABLE', 'ROWS', 'STORED'], ...rows], [1, 2])}`)
  out.document({
    source,
    repository: repository.storage.url,
    ...passedOverJson(passedOver),
    encryption: encryptionJson(repository.key),
    ...coverageJson(holdings),
    stored_bytes: {
      bases: all.reduce((sum, one) => sum + one.stored_bytes, 0),
      segments: holdings.segments.stored_bytes,
    },
    pins: pins.map(pinJson),
    leases: leases.map(leaseJson),
    base: {
      ...baseJson(base),
      database: base.database.name,
      snapshot: base.snapshot,
      schema_tool: base.schema.tool,
      sequences: base.sequences.length,
      large_objects: base.largeObjects.objects.length,
      roles: base.roles.map(({ name }) => name),
      contents: base.tables.map(({ schema, name, rows: inTable, hash, pieces }) => ({
        schema,
        name,
        rows: inTable,
        hash,
        stored_bytes: pieces.reduce((sum, piece) => sum + piece.size_bytes, 0),
      })),
    },
  })
}

/** What lies in the repository besides this base, and who holds some of it. */
function repositoryRows(
  { bases: full, partialBases, segments }: Holdings,
  pins: readonly Pin[],
  leases: readonly LeaseRecord[],
): string[][] {
  const bases = [...full, ...partialBases]
  const [raw, stored] = [sum(bases.map((one) => one.raw_bytes)), sum(bases.map((one) => one.stored_bytes))]
  return [
    ['bases', `${plural(bases.length, 'base')}, ${bytes(raw)} of rows, ${bytes(stored)} stored${ratio(raw, stored)}`],
    [
      'segments',
      `${plural(segments.count, 'segment')}, ${bytes(segments.raw_bytes)} of stream, ${bytes(segments.stored_bytes)} stored${ratio(segments.raw_bytes, segments.stored_bytes)}`,
    ],
    [
      'pins',
      pins.length === 0
        ? 'none'
        : pins.map(({ id, note }) => printable(note === null ? id : `${id} (${note})`)).join(', '),
    ],
    ['leases', leases.length === 0 ? 'none' : leases.map(describeLease).join('; ')],
  ]
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)

/** `, 4.8 to 1`; nothing to say of nothing. */
const ratio = (raw: number, stored: number): string =>
  raw === 0 || stored === 0 ? '' : `, ${(raw / stored).toFixed(1)} to 1`

function choose(bases: readonly BaseManifest[], id: string): BaseManifest {
  const base = id === 'latest' ? bases.at(-1) : bases.find((candidate) => candidate.id === id)
  if (base) return base
  if (bases.length === 0)
    throw new WalbackError('failed', 'there is no base backup', { hint: 'take one with `walback backup --full`' })
  const meant = nearest(
    id,
    bases.map((candidate) => candidate.id),
  )
  throw new WalbackError('usage', `there is no base backup ${JSON.stringify(id)}`, {
    hint:
      meant === undefined ? `the latest is ${bases.at(-1)?.id}; \`walback list\` shows all` : `did you mean ${meant}?`,
  })
}

function describe(base: BaseManifest, key: RepositoryKey | undefined): string {
  return table([
    ['base', base.id],
    ['snapshot', `${base.lsn}, ${formatTime(baseTime(base))}`],
    ['taken', `${formatStamp(base.started)} in ${duration(duration_ms(base))}`],
    [
      'database',
      `${printable(base.database.name)}, PostgreSQL ${Math.floor(base.serverVersion / 10_000)}.${base.serverVersion % 10_000}, ${base.database.encoding}`,
    ],
    [
      'size',
      `${bytes(base.raw_bytes)} of rows, ${bytes(base.stored_bytes)} stored${ratio(base.raw_bytes, base.stored_bytes)}`,
    ],
    [
      'holds',
      `${plural(base.tables.length, 'table')}, ${plural(base.sequences.length, 'sequence')}, ${plural(base.largeObjects.objects.length, 'large object')}`,
    ],
    ...(base.selection === undefined
      ? []
      : [
          [
            'selected by',
            `${printable(flagsOf(base.selection))}; ${plural(base.leftOut?.length ?? 0, 'table')} left out`,
          ],
        ]),
    ['schema by', base.schema.tool],
    ['encryption', encryptionInWords(key)],
    ['timeline', base.timeline],
  ])
}

const formatStamp = (stamp: string): string => `${stamp.slice(0, 19).replace('T', ' ')}Z`
