// Placeholder so that the tree runs until its owner overwrites this file.
import type { ObjectState } from '../model/ddl-message.ts'
export const repairSql = (_w: ObjectState | null, _h: ObjectState | null, _o: unknown, _v: unknown): { statements: string[]; unresolved: string[] } => ({ statements: [], unresolved: [] })
export const sameState = (a: ObjectState | null, b: ObjectState | null, _v: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)
