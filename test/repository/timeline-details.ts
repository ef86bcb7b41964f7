/** What a timeline is begun with, where a test asks for no server: its log from 0/100 on, in transaction 700. */
export const timelineDetails = {
  source: 'app',
  systemIdentifier: '1',
  database: { name: 'app', oid: 5 },
  slot: 's',
  publications: ['p'],
  replicaIdentity: 'full' as const,
  allTables: true,
  ddl: 'triggers' as const,
  insertsOnly: [],
  encoding: 'UTF8',
  serverVersion: 180000,
  start: '0/100',
  xid: '700',
  snapshot: '700:700:',
}
