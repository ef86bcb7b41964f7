import { MadeArchive } from '../retention/made-archive.ts'

/** Two timelines, bases in rounds, parts, an unfinished base, and what interrupted work has left. */
export async function richArchive(days = 4): Promise<MadeArchive> {
  const archive = await MadeArchive.begin()
  for (let day = 0; day < days; day++) {
    const snapshot = archive.currentSnapshot()
    await archive.segment({ commits: 2, hours: 12, heartbeat: 1, parts: day === 1 ? 2 : 0 })
    await archive.base({ earlier: day % 2 === 0 ? [] : [snapshot] })
    await archive.segment({ commits: 2, hours: 12, heartbeat: 0 })
    if (day === 1) await archive.unfinished()
    if (day === 2) await archive.breakTimeline()
  }
  await archive.litter()
  return archive
}
