import type { ServerLoad, TriggerState } from '../postgres/check-server-sql.ts'
import { eventTriggers } from '../postgres/ddl-capture-sql.ts'
import { runAs, triggersSql } from '../postgres/setup-sql.ts'
import type { SourceFacts } from '../postgres/source.ts'
import { type Finding, finding } from './check-finding.ts'

export interface Following {
  readonly state: TriggerState
  readonly load: ServerLoad
  /** A table made without a key cannot be updated if it is published and nothing gives it an identity. */
  readonly allTables: boolean
  readonly identity: 'full' | 'skip'
}

/** How changes of the schema are followed, and what keeps them from being. Before `init`, it is what will be possible. */
export function triggerFindings(facts: SourceFacts, following: Following, isSetUp: boolean): Finding[] {
  const { state, load } = following
  const missing = eventTriggers.filter((name) => state.enabled[name] === undefined)
  const findings: Finding[] = []
  const hasNone = missing.length === eventTriggers.length
  if (hasNone && !facts.role.eventTriggers) return [notFollowed(facts)]
  if (hasNone && !isSetUp) return silenced(load)
  if (missing.length > 0) findings.push(...missing.map((name) => missingFinding(name, facts, following)))
  else if (!state.current) {
    const why = 'event triggers and their functions are not those of this version of walback, or not whole'
    findings.push(
      finding('event-trigger-old', 'warning', why, { object: 'schema walback', ...reinstall(facts, following) }),
    )
  }
  for (const [name, enabled] of Object.entries(state.enabled)) {
    if (enabled === 'A') continue
    findings.push(disabledFinding(name, enabled, facts, following))
  }
  return [...findings, ...silenced(load)]
}

function silenced(load: ServerLoad): Finding[] {
  const findings: Finding[] = []
  if (!load.eventTriggersOn) {
    findings.push(
      finding('event-triggers-off', 'warning', `it is off: ${unseen}`, {
        object: 'event_triggers',
        sql: 'ALTER SYSTEM RESET event_triggers; SELECT pg_reload_conf()',
      }),
    )
  }
  for (const setting of load.silencing) {
    findings.push(
      finding('event-triggers-off', 'warning', `a setting silences event triggers: ${unseen}`, {
        object: setting,
        hint: 'ALTER ROLE or ALTER DATABASE … RESET it',
      }),
    )
  }
  return findings
}

const thenBase = 'then run `walback backup --full`, for what has changed meanwhile'

const unseen = 'changes of the schema are not in the stream, and restores to after one are refused or not exact'

function notFollowed({ role }: SourceFacts): Finding {
  const why = `role ${role.name} may not make event triggers: what changes in the schema, and the rows of new tables, are not restored to before the next base`
  return finding('ddl-not-followed', 'warning', why, {
    hint: 'let a superuser run init; or run `walback backup --full` after every migration, as the agent does of itself once it sees one',
  })
}

/** Without the triggers a new table without a key cannot be updated, where all tables are published. */
const harm = ({ allTables }: Following): { level: 'error' | 'warning'; also: string } =>
  allTables
    ? { level: 'error', also: '; and updates of tables that are made without a key fail, since all are published' }
    : { level: 'warning', also: '; and tables made later are not captured' }

function reinstall(facts: SourceFacts, { identity, allTables }: Following): Pick<Finding, 'hint' | 'fix'> {
  const hint = `\`walback init\` installs them anew (\`walback init --print-sql\` shows it); ${thenBase}`
  if (!facts.role.eventTriggers) return { hint: `as a superuser: ${hint}`, fix: null }
  const sql = triggersSql({ identity, runAs: runAs(facts.role, allTables) })
  return { hint, fix: { title: 'event triggers and their functions', sql } }
}

function missingFinding(name: string, facts: SourceFacts, following: Following): Finding {
  const { level, also } = harm(following)
  return finding('event-trigger-missing', level, `there is no such event trigger: ${unseen}${also}`, {
    object: name,
    ...reinstall(facts, following),
  })
}

function disabledFinding(name: string, enabled: string, facts: SourceFacts, following: Following): Finding {
  const sql = `ALTER EVENT TRIGGER ${name} ENABLE ALWAYS`
  const mend = {
    object: name,
    sql,
    hint: facts.role.superuser ? thenBase : `as a superuser; ${thenBase}`,
    fix: facts.role.superuser ? { title: `event trigger ${name}`, sql } : null,
  }
  if (enabled === 'O') {
    const why =
      'it does not fire where session_replication_role is replica: what is done there to the schema is not followed'
    return finding('event-trigger-disabled', 'warning', why, mend)
  }
  const { level, also } = harm(following)
  return finding('event-trigger-disabled', level, `it does not fire: ${unseen}${also}`, mend)
}
