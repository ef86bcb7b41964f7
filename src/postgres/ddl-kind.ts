/**
 * What a statement of DDL is, told from its syntax tree: the tag under which event triggers see it, as `CreateCommandTag`
 * of PostgreSQL's `utility.c` gives it, and the names by which its objects can be known.
 */

type Tree = Readonly<Record<string, unknown>>

const isTree = (value: unknown): value is Tree => typeof value === 'object' && value !== null && !Array.isArray(value)
const treeOf = (value: unknown): Tree => (isTree(value) ? value : {})
const textOf = (value: unknown): string => (typeof value === 'string' ? value : '')

/** Of each kind of statement: its tag, or the verb of its tag where an object's type follows, and the fields with names. */
const kinds: Readonly<Record<string, readonly [tag: string, ...fields: string[]]>> = {
  AlterCollationStmt: ['ALTER COLLATION', 'collname'],
  AlterDefaultPrivilegesStmt: ['ALTER DEFAULT PRIVILEGES'],
  AlterDomainStmt: ['ALTER DOMAIN', 'typeName'],
  AlterEnumStmt: ['ALTER TYPE', 'typeName'],
  AlterExtensionContentsStmt: ['ALTER EXTENSION', 'extname'],
  AlterExtensionStmt: ['ALTER EXTENSION', 'extname'],
  AlterFdwStmt: ['ALTER FOREIGN DATA WRAPPER', 'fdwname'],
  AlterForeignServerStmt: ['ALTER SERVER', 'servername'],
  AlterFunctionStmt: ['ALTER', 'func'],
  AlterObjectDependsStmt: ['ALTER', 'object', 'relation'],
  AlterObjectSchemaStmt: ['ALTER', 'newschema'],
  AlterOpFamilyStmt: ['ALTER OPERATOR FAMILY', 'opfamilyname'],
  AlterOperatorStmt: ['ALTER OPERATOR', 'opername'],
  AlterOwnerStmt: ['ALTER', 'object', 'relation'],
  AlterPolicyStmt: ['ALTER POLICY', 'policy_name', 'table'],
  AlterPublicationStmt: ['ALTER PUBLICATION', 'pubname'],
  AlterSeqStmt: ['ALTER SEQUENCE', 'sequence'],
  AlterStatsStmt: ['ALTER STATISTICS', 'defnames'],
  AlterSubscriptionStmt: ['ALTER SUBSCRIPTION', 'subname'],
  AlterTableMoveAllStmt: ['ALTER'],
  AlterTableStmt: ['ALTER', 'relation'],
  AlterTSConfigurationStmt: ['ALTER TEXT SEARCH CONFIGURATION', 'cfgname'],
  AlterTSDictionaryStmt: ['ALTER TEXT SEARCH DICTIONARY', 'dictname'],
  AlterTypeStmt: ['ALTER TYPE', 'typeName'],
  AlterUserMappingStmt: ['ALTER USER MAPPING', 'servername'],
  CommentStmt: ['COMMENT', 'object'],
  CompositeTypeStmt: ['CREATE TYPE', 'typevar'],
  CreateAmStmt: ['CREATE ACCESS METHOD', 'amname'],
  CreateCastStmt: ['CREATE CAST', 'sourcetype', 'targettype'],
  CreateConversionStmt: ['CREATE CONVERSION', 'conversion_name'],
  CreateDomainStmt: ['CREATE DOMAIN', 'domainname'],
  CreateEnumStmt: ['CREATE TYPE', 'typeName'],
  CreateExtensionStmt: ['CREATE EXTENSION', 'extname'],
  CreateFdwStmt: ['CREATE FOREIGN DATA WRAPPER', 'fdwname'],
  CreateForeignServerStmt: ['CREATE SERVER', 'servername'],
  CreateForeignTableStmt: ['CREATE FOREIGN TABLE', 'base'],
  CreateFunctionStmt: ['CREATE', 'funcname'],
  CreateOpClassStmt: ['CREATE OPERATOR CLASS', 'opclassname'],
  CreateOpFamilyStmt: ['CREATE OPERATOR FAMILY', 'opfamilyname'],
  CreatePLangStmt: ['CREATE LANGUAGE', 'plname'],
  CreatePolicyStmt: ['CREATE POLICY', 'policy_name', 'table'],
  CreatePublicationStmt: ['CREATE PUBLICATION', 'pubname'],
  CreateRangeStmt: ['CREATE TYPE', 'typeName'],
  CreateSchemaStmt: ['CREATE SCHEMA', 'schemaname'],
  CreateSeqStmt: ['CREATE SEQUENCE', 'sequence'],
  CreateStatsStmt: ['CREATE STATISTICS', 'defnames'],
  CreateStmt: ['CREATE TABLE', 'relation'],
  CreateSubscriptionStmt: ['CREATE SUBSCRIPTION', 'subname'],
  CreateTableAsStmt: ['CREATE', 'into'],
  CreateTransformStmt: ['CREATE TRANSFORM', 'type_name', 'lang'],
  CreateTrigStmt: ['CREATE TRIGGER', 'trigname', 'relation'],
  CreateUserMappingStmt: ['CREATE USER MAPPING', 'servername'],
  DefineStmt: ['CREATE', 'defnames'],
  DropOwnedStmt: ['DROP OWNED'],
  DropStmt: ['DROP'],
  DropSubscriptionStmt: ['DROP SUBSCRIPTION', 'subname'],
  DropUserMappingStmt: ['DROP USER MAPPING', 'servername'],
  GrantStmt: ['GRANT'],
  ImportForeignSchemaStmt: ['IMPORT FOREIGN SCHEMA', 'local_schema'],
  IndexStmt: ['CREATE INDEX', 'idxname'],
  RefreshMatViewStmt: ['REFRESH MATERIALIZED VIEW', 'relation'],
  ReindexStmt: ['REINDEX'],
  RenameStmt: ['ALTER', 'newname'],
  RuleStmt: ['CREATE RULE', 'rulename', 'relation'],
  SecLabelStmt: ['SECURITY LABEL', 'object'],
  SelectStmt: ['SELECT INTO'],
  ViewStmt: ['CREATE VIEW', 'view'],
}

/** Types whose name in tags is not the name in the syntax tree, or that are altered as part of another. */
const typeNames: Readonly<Record<string, string>> = {
  ATTRIBUTE: 'TYPE',
  COLUMN: 'TABLE',
  DOMCONSTRAINT: 'DOMAIN',
  FDW: 'FOREIGN DATA WRAPPER',
  FOREIGN_SERVER: 'SERVER',
  MATVIEW: 'MATERIALIZED VIEW',
  OPCLASS: 'OPERATOR CLASS',
  OPFAMILY: 'OPERATOR FAMILY',
  STATISTIC_EXT: 'STATISTICS',
  TABCONSTRAINT: 'TABLE',
  TSCONFIGURATION: 'TEXT SEARCH CONFIGURATION',
  TSDICTIONARY: 'TEXT SEARCH DICTIONARY',
  TSPARSER: 'TEXT SEARCH PARSER',
  TSTEMPLATE: 'TEXT SEARCH TEMPLATE',
}

/** `OBJECT_FOREIGN_TABLE` is `FOREIGN TABLE` in tags. */
function typeName(objectType: unknown): string {
  const name = textOf(objectType).replace(/^OBJECT_/, '')
  return typeNames[name] ?? name.replaceAll('_', ' ')
}

/** The command tag of a statement; undefined if none of its kind fires event triggers. */
export function tagOf(kind: string, node: unknown): string | undefined {
  const tree = treeOf(node)
  switch (kind) {
    case 'CreateFunctionStmt':
      return tree['is_procedure'] ? 'CREATE PROCEDURE' : 'CREATE FUNCTION'
    case 'CreateTableAsStmt':
      return tree['objtype'] === 'OBJECT_MATVIEW' ? 'CREATE MATERIALIZED VIEW' : 'CREATE TABLE AS'
    case 'SelectStmt':
      return intoOf(tree) === undefined ? undefined : 'SELECT INTO'
    case 'DefineStmt':
      return `CREATE ${typeName(tree['kind'])}`
    case 'DropStmt':
      return `DROP ${typeName(tree['removeType'])}`
    case 'GrantStmt':
      return tree['is_grant'] ? 'GRANT' : 'REVOKE'
    case 'RenameStmt':
      return `ALTER ${typeName(tree['renameType'] === 'OBJECT_COLUMN' ? tree['relationType'] : tree['renameType'])}`
    case 'AlterFunctionStmt':
    case 'AlterTableMoveAllStmt':
    case 'AlterTableStmt':
      return `ALTER ${typeName(tree['objtype'])}`
    case 'AlterObjectDependsStmt':
    case 'AlterObjectSchemaStmt':
    case 'AlterOwnerStmt':
      return `ALTER ${typeName(tree['objectType'])}`
    default:
      return kinds[kind]?.[0]
  }
}

/** The table that SELECT makes; of a set operation, its leftmost arm says it. */
function intoOf(select: Tree): unknown {
  const arm = treeOf(select['larg'])
  return select['intoClause'] ?? (Object.keys(arm).length > 0 ? intoOf(arm) : undefined)
}

/** One object that a statement is about. */
export interface Subject {
  /** Every name that its identity has in it: schema if the statement says it, table of a trigger, … */
  readonly words: readonly string[]
  /** Whether it is a column or a constraint, where a relation of the same name would be told in the same words. */
  readonly isPart?: boolean
  /** What its name begins with, where the server chose it. */
  readonly prefix?: string
  /** Argument types, each by the words of its name, where the statement gives them. */
  readonly args?: readonly (readonly string[])[]
}

/** What the statement is about, after it: a renamed object by its new name. Empty where that cannot be told. */
export function subjectsOf(kind: string, node: unknown): Subject[] {
  const tree = treeOf(node)
  if (kind === 'DropStmt') return listOf(tree['objects']).map(subject).filter(isNamed)
  if (kind === 'RenameStmt') return [renamed(tree)]
  if (kind === 'IndexStmt' && tree['idxname'] === undefined) {
    // The server shortens a long table name, but not to less than this.
    return [{ words: [], prefix: textOf(treeOf(tree['relation'])['relname']).slice(0, 12) }]
  }
  if (kind === 'CreateSchemaStmt')
    return [subject(tree['schemaname'] ?? treeOf(tree['authrole'])['rolename'])].filter(isNamed)
  if (kind === 'SelectStmt') return [subject(intoOf(tree))].filter(isNamed)
  if (kind === 'AlterObjectSchemaStmt') {
    const name = wordsOf(tree['object'] ?? tree['relation']).at(-1)
    // An extension has no schema in its identity.
    const schema = tree['objectType'] === 'OBJECT_EXTENSION' ? [] : wordsOf(tree['newschema'])
    return [{ words: name === undefined ? [] : [...schema, name] }].filter(isNamed)
  }
  const fields = kinds[kind]?.slice(1) ?? []
  const args = argumentsOf(tree['func'] ?? tree['object'] ?? (kind === 'CreateFunctionStmt' ? tree : undefined))
  const words = fields.flatMap((field) => wordsOf(tree[field]))
  return [{ words, ...(args && { args }) }].filter(isNamed)
}

/** Whether something in a GRANT or a REVOKE is of this schema, or is it. */
export function schemasGrantedOn(node: unknown): (string | undefined)[] {
  const tree = treeOf(node)
  const isSchema = tree['objtype'] === 'OBJECT_SCHEMA' || tree['targtype'] === 'ACL_TARGET_ALL_IN_SCHEMA'
  return listOf(tree['objects']).map((object) => {
    const words = wordsOf(object)
    return isSchema || words.length > 1 ? words[0] : undefined
  })
}

/** What a GRANT or a REVOKE is about, as `stringify_grant_objtype` of event_trigger.c says it: `TABLE`. */
export function grantedType(kind: string, node: unknown): string | undefined {
  if (kind !== 'GrantStmt') return undefined
  const type = textOf(treeOf(node)['objtype']).replace('OBJECT_', '')
  return type === 'FDW' ? 'FOREIGN DATA WRAPPER' : type.replaceAll('_', ' ')
}

/** Whether it makes something temporary, and says so. */
export function makesTemporary(node: unknown): boolean {
  const { relation, view, sequence, into } = treeOf(node)
  return [relation, view, sequence, treeOf(into)['rel']].some((made) => treeOf(made)['relpersistence'] === 't')
}

/** Whether it is CREATE TABLE AS, or CREATE MATERIALIZED VIEW, … WITH NO DATA. */
export const isWithoutData = (node: unknown): boolean => treeOf(treeOf(node)['into'])['skipData'] === true

/** Whether it is DETACH PARTITION … CONCURRENTLY or FINALIZE. */
export const detachesInSteps = (node: unknown): boolean =>
  listOf(treeOf(node)['cmds']).some((item) => {
    const { subtype, def } = treeOf(treeOf(item)['AlterTableCmd'])
    return subtype === 'AT_DetachPartitionFinalize' || treeOf(treeOf(def)['PartitionCmd'])['concurrent'] === true
  })

/** Whether CREATE or ALTER EXTENSION says which version. */
export const namesVersion = (node: unknown): boolean =>
  listOf(treeOf(node)['options']).some((option) => treeOf(treeOf(option)['DefElem'])['defname'] === 'new_version')

/** The provider that SECURITY LABEL names. */
export const providerOf = (node: unknown): unknown => treeOf(node)['provider']

const isNamed = ({ words }: Subject): boolean => words.length > 0
const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [])

function subject(value: unknown): Subject {
  const args = argumentsOf(value)
  return { words: wordsOf(value), ...(args && { args }) }
}

/** Of what belongs to a relation, the relation and the new name; else the schema and the new name. */
function renamed(tree: Tree): Subject {
  const type = textOf(tree['renameType']).replace('OBJECT_', '')
  const isPart = ['ATTRIBUTE', 'COLUMN', 'DOMCONSTRAINT', 'TABCONSTRAINT'].includes(type)
  const isOfRelation = ['ATTRIBUTE', 'COLUMN', 'POLICY', 'RULE', 'TABCONSTRAINT', 'TRIGGER'].includes(type)
  const old = type === 'DOMCONSTRAINT' ? [] : wordsOf(tree['relation'] ?? tree['object'])
  return { words: [...(isOfRelation ? old : old.slice(0, -1)), textOf(tree['newname'])], isPart }
}

/** How `format_type` spells what the grammar, or a habit, calls otherwise. */
const sqlTypes: Readonly<Record<string, string>> = {
  bool: 'boolean',
  bpchar: 'character',
  float4: 'real',
  float8: 'double precision',
  int2: 'smallint',
  int4: 'integer',
  int8: 'bigint',
  time: 'time without time zone',
  timestamp: 'timestamp without time zone',
  timestamptz: 'timestamp with time zone',
  timetz: 'time with time zone',
  varbit: 'bit varying',
  varchar: 'character varying',
}

/** The names in a part of the tree, in the order of the text. */
function wordsOf(value: unknown): string[] {
  if (typeof value === 'string') return [value]
  if (Array.isArray(value)) return value.flatMap(wordsOf)
  if (!isTree(value)) return []
  if (typeof value['relname'] === 'string') return [...wordsOf(value['schemaname']), value['relname']]
  if (value['names'] !== undefined) {
    const names = wordsOf(value['names'])
    const own = names[0] === 'pg_catalog' ? names.slice(1) : names
    return own.length === 1 ? (sqlTypes[own[0] ?? ''] ?? own[0] ?? '').split(' ') : own
  }
  const inner = [
    'sval',
    'objname',
    'items',
    'rel',
    'relation',
    'String',
    'List',
    'TypeName',
    'ObjectWithArgs',
    'RangeVar',
  ]
  return inner.flatMap((key) => wordsOf(value[key]))
}

/** Types of the arguments that tell one overloaded function from another. */
function argumentsOf(value: unknown): string[][] | undefined {
  const tree = treeOf(value)
  const object = treeOf(tree['ObjectWithArgs'] ?? tree)
  if (object['funcname'] !== undefined) {
    return listOf(object['parameters'])
      .map((parameter) => treeOf(treeOf(parameter)['FunctionParameter']))
      .filter(({ mode }) => mode !== 'FUNC_PARAM_OUT' && mode !== 'FUNC_PARAM_TABLE')
      .map(({ argType }) => wordsOf(argType))
  }
  if (object['objname'] === undefined || object['args_unspecified']) return undefined
  return listOf(object['objargs']).map(wordsOf)
}
