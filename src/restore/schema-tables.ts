/** What a dump's statements say of tables: their names, what is below what, and foreign keys. Dumps qualify every name. */

import { z } from 'zod'
import type { QualifiedName } from '../model/catalog.ts'
import type { Statement } from '../postgres/split-sql.ts'

const rangeVar = z
  .object({ schemaname: z.string(), relname: z.string() })
  .transform(({ schemaname, relname }): QualifiedName => ({ schema: schemaname, name: relname }))

const createStmt = z.object({
  relation: rangeVar,
  inhRelations: z.array(z.object({ RangeVar: rangeVar })).default([]),
})

const command = z.object({
  subtype: z.string(),
  def: z
    .object({
      PartitionCmd: z.object({ name: rangeVar.optional() }).optional(),
      Constraint: z
        .object({ contype: z.string(), conname: z.string().default(''), pktable: rangeVar.optional() })
        .optional(),
    })
    .optional(),
})

const alterTableStmt = z.object({ relation: rangeVar, cmds: z.array(z.object({ AlterTableCmd: command })) })

/** Whether the parser knew what it is. */
export const isUnderstood = ({ kind }: Statement): boolean => kind !== 'unknown'

/** The tables that are made, partitioned ones too. */
export const tablesIn = (statements: readonly Statement[]): QualifiedName[] =>
  statements.flatMap(({ kind, node }) =>
    kind === 'CreateStmt' ? (createStmt.safeParse(node).data?.relation ?? []) : [],
  )

interface Inheritance {
  readonly parent: QualifiedName
  readonly child: QualifiedName
}

/** Which table is below which, as a partition or an heir. */
export function inheritanceIn(statements: readonly Statement[]): Inheritance[] {
  return statements.flatMap(({ kind, node }): Inheritance[] => {
    if (kind === 'CreateStmt') {
      const made = createStmt.safeParse(node).data
      return made?.inhRelations.map(({ RangeVar }) => ({ parent: RangeVar, child: made.relation })) ?? []
    }
    return commandsOf(kind, node).flatMap(({ relation, subtype, def }) => {
      const child = subtype === 'AT_AttachPartition' ? def?.PartitionCmd?.name : undefined
      return child === undefined ? [] : { parent: relation, child }
    })
  })
}

export interface ForeignKey {
  readonly name: string
  readonly from: QualifiedName
  readonly to: QualifiedName
}

/** The foreign key that a statement makes. */
export function foreignKeyIn({ kind, node }: Statement): ForeignKey | undefined {
  for (const { relation, def } of commandsOf(kind, node)) {
    const { contype, conname, pktable } = def?.Constraint ?? {}
    if (contype === 'CONSTR_FOREIGN' && conname !== undefined && pktable !== undefined)
      return { name: conname, from: relation, to: pktable }
  }
  return undefined
}

function commandsOf(kind: string, node: unknown): (z.infer<typeof command> & { readonly relation: QualifiedName })[] {
  const altered = kind === 'AlterTableStmt' ? alterTableStmt.safeParse(node).data : undefined
  return altered?.cmds.map(({ AlterTableCmd }) => ({ ...AlterTableCmd, relation: altered.relation })) ?? []
}
