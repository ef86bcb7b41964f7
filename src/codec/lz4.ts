import { createRequire } from 'node:module'
import type * as Lz4 from 'lz4-napi'

/**
 * LZ4 frames by `lz4-napi`. Its allocator (mimalloc) keeps what was freed, and since one thread compresses and another
 * collects the garbage, that is most of what ever passed: 338 MiB were resident for a field of 500 MB, and 238 when what
 * is free goes back at once. It reads its settings from the environment as it is loaded, so they are made here, before.
 */
process.env.MIMALLOC_PURGE_DELAY ??= '0'
const lz4 = createRequire(import.meta.url)('lz4-napi') as typeof Lz4

export const { compressFrame, compressFrameSync, decompressFrame, decompressFrameSync } = lz4
