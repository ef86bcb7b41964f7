import type pg from 'pg'
import { codeOf } from '../base/errors.ts'
import {
  readDatabase,
  readPopulatedViews,
  readRoles,
  readSequences,
  readTablesWithoutRows,
} from '../postgres/catalog.ts'
import { readCatalogStamp } from '../postgres/catalog-stamp.ts'
import { readNotCarried } from '../postgres/check-sql.ts'
import { readExtensions, readRelationSizes } from '../postgres/extent.ts'
import type { BaseManifest } from '../repository/base.ts'

/** What a manifest says of the database beside its tables. */
export type Catalogs = Pick<
  BaseManifest,
  | 'database'
  | 'catalog'
  | 'tablesWithoutRows'
  | 'sequences'
  | 'materializedViews'
  | 'roles'
  | 'notCarried'
  | 'extensions'
  | 'sizes'
>

/** Reads it as the session's snapshot sees it, but for sequences, which know no snapshots. Leaves no lock behind. */
export async function readCatalogs(leader: pg.Client, serverVersion: number): Promise<Catalogs> {
  await leader.query('SAVEPOINT catalogs')
  const catalogs = {
    database: await readDatabase(leader, serverVersion),
    tablesWithoutRows: await readTablesWithoutRows(leader),
    sequences: await readSequences(leader),
    materializedViews: await readPopulatedViews(leader),
    roles: await readRoles(leader),
    notCarried: await readNotCarried(leader),
    extensions: await readExtensions(leader),
    ...(await sizesOf(leader)),
    ...(await stampOf(leader)),
  }
  // A sequence stays locked against ALTER once it has been asked, until the end of the transaction or this.
  await leader.query('ROLLBACK TO SAVEPOINT catalogs')
  return catalogs
}

async function sizesOf(leader: pg.Client): Promise<Pick<BaseManifest, 'sizes'>> {
  const sizes = await readRelationSizes(leader)
  return sizes === undefined ? {} : { sizes }
}

/** The catalogs' stamp; nothing where the role may not read them, which is no reason to have no base. */
async function stampOf(leader: pg.Client): Promise<Pick<BaseManifest, 'catalog'>> {
  await leader.query('SAVEPOINT stamp')
  try {
    return { catalog: await readCatalogStamp(leader) }
  } catch (error) {
    if (codeOf(error) === undefined) throw error
    await leader.query('ROLLBACK TO SAVEPOINT stamp')
    return {}
  }
}
