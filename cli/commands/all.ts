import type { AddCommand } from '../command.ts'
import { addAgent } from './agent.ts'
import { addAudit } from './audit.ts'
import { addBackup } from './backup.ts'
import { addCheck } from './check.ts'
import { addCompact } from './compact.ts'
import { addCopy } from './copy.ts'
import { addDemo } from './demo.ts'
import { addDiff } from './diff.ts'
import { addInfo } from './info.ts'
import { addInit } from './init.ts'
import { addKey } from './key.ts'
import { addList } from './list.ts'
import { addLog } from './log.ts'
import { addMark } from './mark.ts'
import { addPins } from './pin.ts'
import { addPrune } from './prune.ts'
import { addQuery } from './query.ts'
import { addRestore } from './restore.ts'
import { addShow } from './show.ts'
import { addStatus } from './status.ts'
import { addUndo } from './undo.ts'
import { addUninstall } from './uninstall.ts'
import { addVerify } from './verify.ts'

/** Every command, in the order of the help. */
export const commands: readonly AddCommand[] = [
  addInit,
  addCheck,
  addBackup,
  addAgent,
  addStatus,
  addList,
  addInfo,
  addLog,
  addShow,
  addUndo,
  addMark,
  addRestore,
  addQuery,
  addDiff,
  addCompact,
  addCopy,
  addPrune,
  addPins,
  addKey,
  addVerify,
  addAudit,
  addUninstall,
  addDemo,
]
