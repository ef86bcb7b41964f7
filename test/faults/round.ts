/** What goes wrong in a round of the fault loop, and when: drawn from its seed alone. */
import type { StoreFaults } from '../support/flaky.ts'
import { Random } from '../support/random.ts'
import type { Way } from './cutting-proxy.ts'

export type Injection =
  | { readonly kind: 'network cut' }
  | { readonly kind: 'network half open'; readonly way: Way }
  | { readonly kind: 'network slow'; readonly delay_ms: number; readonly for_ms: number }
  | { readonly kind: 'agent'; readonly by: AgentEnd; readonly store: StoreFaults | undefined }
  | { readonly kind: 'server'; readonly by: 'kill' | 'fast' | 'immediate'; readonly down_ms: number }
  | { readonly kind: 'terminate'; readonly what: 'walsender' | 'control' }
  | { readonly kind: 'store hangs'; readonly for_ms: number }
  | { readonly kind: 'incremental' }
  | { readonly kind: 'second agent'; readonly for_ms: number; readonly by: AgentEnd }
  | { readonly kind: 'base'; readonly killed_ms: number }

export type AgentEnd = 'kill' | 'stop'

export interface Round {
  readonly seed: number
  /** How the store is of the agent that the round begins with. */
  readonly store: StoreFaults | undefined
  readonly steps: readonly Step[]
  /** Whether the agent has to find its way back, and store, before the round ends. */
  readonly recovers: boolean
  readonly end: AgentEnd
}

export interface Step {
  /** Whether it waits, for some seconds at most, until the agent has stored something since the step before. */
  readonly streams: boolean
  readonly wait_ms: number
  readonly injection: Injection
}

export function drawRound(seed: number): Round {
  const random = new Random(seed)
  const count = random.int(3, 6)
  const steps = Array.from({ length: count }, () => ({
    streams: random.chance(0.6),
    wait_ms: random.int(0, 1000),
    injection: draw(random),
  }))
  return { seed, store: drawStore(random), steps, recovers: random.chance(0.4), end: drawEnd(random) }
}

const kinds = [
  'network cut',
  'network half open',
  'network slow',
  'agent',
  'agent',
  'server',
  'server',
  'terminate',
  'store hangs',
  'incremental',
  'second agent',
  'base',
] as const satisfies readonly Injection['kind'][]

function draw(random: Random): Injection {
  const kind = random.pick(kinds)
  switch (kind) {
    case 'network cut':
    case 'incremental':
      return { kind }
    case 'network half open':
      return { kind, way: random.pick(['to client', 'to server'] as const) }
    case 'network slow':
      return { kind, delay_ms: random.int(5, 200), for_ms: random.int(500, 3000) }
    case 'agent':
      return { kind, by: drawEnd(random), store: drawStore(random) }
    case 'server':
      return { kind, by: random.pick(['kill', 'fast', 'immediate'] as const), down_ms: random.int(0, 800) }
    case 'terminate':
      return { kind, what: random.pick(['walsender', 'control'] as const) }
    case 'store hangs':
      return { kind, for_ms: random.int(500, 4000) }
    case 'second agent':
      return { kind, for_ms: random.int(0, 4000), by: drawEnd(random) }
    case 'base':
      return { kind, killed_ms: random.int(0, 2500) }
  }
}

const drawEnd = (random: Random): AgentEnd => random.pick(['kill', 'stop'] as const)

/** Of two agents, one has a store that flaps. */
function drawStore(random: Random): StoreFaults | undefined {
  const faults = { seed: random.int(0, 1_000_000), rate: random.pick([0.02, 0.1, 0.3]), stall_ms: 3000 }
  return random.chance(0.5) ? faults : undefined
}

/** The round in one line, for the log. */
export function describeRound({ seed, store, steps, recovers, end }: Round): string {
  const said = steps.map(({ streams, wait_ms, injection: { kind, ...facts } }) => {
    const details = Object.values(facts).map(inWords).join(' ')
    return `${streams ? 'stored' : ''}+${wait_ms} ms ${kind}${details === '' ? '' : ` (${details})`}`
  })
  const ends = `${recovers ? 'recovers, ' : ''}ends by ${end}`
  return [`round ${seed}: agent with ${inWords(store)}`, ...said, ends].join('; ')
}

function inWords(fact: StoreFaults | string | number | undefined): string {
  if (fact === undefined) return 'sound store'
  return typeof fact === 'object' ? `store failing ${fact.rate}` : String(fact)
}
