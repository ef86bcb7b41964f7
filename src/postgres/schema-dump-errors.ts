import { WalbackError } from '../base/errors.ts'

/** Says what a failed `pg_dump` meant, from what it wrote to its standard error. */
export function explainPgDumpFailure(
  stderr: string,
  context: { readonly tool: string; readonly cause?: unknown },
): WalbackError {
  const complaint = unprefixed(stderr)
  const hint = hintFor(complaint)
  return new WalbackError('database', `pg_dump failed: ${complaint.split('\n', 1)[0]}`, {
    ...(hint && { hint: hint.text, retryable: hint.retryable ?? false }),
    facts: { tool: context.tool, stderr: complaint },
    ...(context.cause !== undefined && { cause: context.cause }),
  })
}

/**
 * Without `pg_dump: error: query failed: ERROR:` before the reason, with its lines apart: the built-in one runs the lines
 * of its standard error together, and begins with a complaint that it cannot find itself among the files.
 */
function unprefixed(stderr: string): string {
  const text = stderr
    .replace(/^pg_dump failed with exit code \d+\. \nError message: /, '')
    .replace(/(?:\/\S*\/)?pg_dump: (?=error: |detail: |hint: |warning: )/g, '\n')
    .replace(/(?=(?:DETAIL|HINT|CONTEXT): {2})/g, '\n')
    .replace(/^could not find a "pg_dump" to execute/, '')
    .replace(/^error: (?:query failed: )?(?:ERROR: {2})?/gm, '')
  return text.replace(/\n+/g, '\n').trim() || 'it gave no reason'
}

interface Hint {
  readonly text: string
  readonly retryable?: boolean
}

function hintFor(complaint: string): Hint | undefined {
  if (/lock timeout|statement timeout|could not obtain lock/.test(complaint)) return lockHint(complaint)
  const denied = /permission denied for (\w+(?: \w+)?) ([^\n]+)/.exec(complaint)
  if (denied) return permissionHint(denied[1] ?? '', denied[2] ?? '', complaint)
  if (/server version mismatch|unsupported server version/.test(complaint)) {
    return { text: "install the server's own major version of pg_dump, or a newer one, on this machine" }
  }
  if (/out of shared memory/.test(complaint)) {
    return {
      text: 'pg_dump holds a lock on every table at once: raise max_locks_per_transaction, which times max_connections must be well above the number of tables, and restart the server',
    }
  }
  if (/snapshot/.test(complaint)) {
    return {
      text: 'a snapshot lasts as long as the transaction that exported it: keep that session open until the dump is done',
    }
  }
  return undefined
}

/** The tables that `pg_dump` was locking: 16 and newer lock many in one statement. */
const tablesBeingLocked = (complaint: string): string[] =>
  /LOCK TABLE (?:ONLY )?([\s\S]+?) IN ACCESS SHARE MODE/.exec(complaint)?.[1]?.split(', ') ?? []

function permissionHint(kind: string, name: string, complaint: string): Hint {
  // The server leaves the schema out, the statement does not.
  const table = tablesBeingLocked(complaint).find(
    (qualified) => qualified.endsWith(`.${name}`) || qualified.endsWith(`."${name}"`),
  )
  const grant = kind === 'schema' ? `GRANT USAGE ON SCHEMA ${name}` : `GRANT SELECT ON ${table ?? name}`
  return {
    text: `pg_dump must lock every table that it describes: ${grant} TO the user walback connects as, or GRANT pg_read_all_data`,
  }
}

/** `pg_dump` waits for locks under a statement timeout while it locks tables, so that either timeout means a lock. */
function lockHint(complaint: string): Hint {
  const tables = tablesBeingLocked(complaint)
  const named =
    tables.length === 0 ? 'a table' : tables.length > 3 ? `one of ${tables.length} tables` : tables.join(' or ')
  return {
    text:
      `another session holds a lock on ${named} that keeps readers out (ALTER TABLE, TRUNCATE, VACUUM FULL): ` +
      `find it with SELECT pid, query FROM pg_stat_activity WHERE pid IN (SELECT pid FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted)`,
    retryable: true,
  }
}
