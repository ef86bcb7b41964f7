import { expect, it } from 'vitest'
import { findTransactions, parseTransactionName } from '../../src/history/find-transaction.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { Undo } from '../../src/undo/undo.ts'
import { packages, Subject } from '../restore/round-trip.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { runLoad } from '../support/load.ts'
import { createNasty } from '../support/nasty.ts'
import { endingKinds } from '../support/nasty-endings.ts'
import { rowKinds } from '../support/nasty-kinds.ts'
import { ourObjects } from '../support/walback.ts'

const seed = Number(process.env.WALBACK_SEED ?? 1 + Math.floor(Math.random() * 1e6))

it(`undoing every transaction of a load gives the rows that were there before it, and again (seed ${seed})`, async () => {
  await using subject = await Subject.start(packages[18])
  await createNasty(subject.url)
  const archive = await subject.open()
  await archive.base()
  const before = await fingerprint(subject.url)
  // The rows that a truncation took are not in the stream.
  const kinds = [...rowKinds, ...endingKinds(false)].filter(({ name }) => name !== 'truncate' && name !== 'bulk')
  await runLoad(subject.url, kinds, { clients: 2, transactions: 20, seed, sampling: 0 })
  const after = await fingerprint(subject.url)
  await archive.catchUp()
  const { transactions } = await archive.history()
  const xids = transactions.filter(({ counts }) => counts.length > 0).map(({ xid }) => xid)
  expect(xids.length).toBeGreaterThan(15)

  const undo = async (names: readonly string[]): Promise<bigint> => {
    const found = await findTransactions(archive.repository, archive.source, names.map(parseTransactionName))
    await using work = await Undo.begin(archive.repository, found, resolveConninfo(subject.url, {}), {
      memory_bytes: 20_000,
    })
    expect(await work.preview()).toMatchObject({ conflicts: 0 })
    const report = await work.apply('abort')
    expect({ conflicts: report.conflicts, shown: report.shown }).toEqual({ conflicts: 0, shown: [] })
    return report.xid ?? 0n
  }
  const undone = await undo(xids)
  expect(differences(before, await fingerprint(subject.url), ourObjects)).toEqual([])
  await archive.catchUp()
  await undo([String(undone)])
  expect(differences(after, await fingerprint(subject.url), ourObjects)).toEqual([])
})
