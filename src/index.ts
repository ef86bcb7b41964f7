/** walback's public face: what the command line, the agent and programs of others may use. */

export { takeBase } from './backup/base-backup.ts'
export type { BaseBackupOptions, BaseProgress } from './backup/base-options.ts'
export { sleep, throwIfAborted } from './base/abort.ts'
export { codeOf, type ErrorCode, exitStatus, messageOf, WalbackError } from './base/errors.ts'
export { nearest } from './base/nearest.ts'
export { parseDuration, parseSize } from './base/quantity.ts'
export { version } from './base/version.ts'
export { type CanaryOutcome, canaryFindings, obstacleTo, sendCanary } from './capture/canary.ts'
export { type CheckOptions, type CheckReport, checkSource, fixesOf, runFixes } from './capture/check.ts'
export {
  type Finding,
  type FindingCode,
  type Fix,
  finding,
  findingCodes,
  type Level,
  sorted as sortFindings,
  waive as waiveFindings,
} from './capture/check-finding.ts'
export { completeBase } from './capture/complete-base.ts'
export { emit } from './capture/heartbeat.ts'
export type { IdentityWatchOptions } from './capture/identity-watch.ts'
export { type PublishedTables, publishing } from './capture/publish-tables.ts'
export { releaseSlot, unrest } from './capture/release-slot.ts'
export {
  type CaptureSessionOptions,
  captureContinuously,
  captureUpToNow,
  requireTimeline,
} from './capture/session.ts'
export { planSetup, type SetupOptions, type SetupPlan, setUp } from './capture/setup.ts'
export {
  measures,
  mib,
  nearestLimit,
  readSlotReading,
  SlotGrowth,
  type SlotLimits,
  type SlotReading,
  slotPressure,
} from './capture/slot-pressure.ts'
export { supervise } from './capture/supervise.ts'
export { hasNothing, namesOf, planTeardown, type TeardownPlan, tearDown } from './capture/teardown.ts'
export { type CompactionOutcome, compactApart, type OpeningPlace } from './compact/apart.ts'
export { type CompactOptions, compact } from './compact/compact.ts'
export { type CompactionPlan, nothingInWords, planCompaction, type Stop, stopInWords } from './compact/plan.ts'
export { basesLacking, basesRemoved } from './copy/bases-lacking.ts'
export { type CopyOptions, type CopyReport, copySource, damageError } from './copy/copy.ts'
export type { CopyProgress } from './copy/delivery.ts'
export { RequiredCopy } from './copy/required.ts'
export { type Survey, surveyCopy } from './copy/survey.ts'
export { findTarget, openTarget } from './copy/target.ts'
export { type FoundTransaction, findTransactions, parseTransactionName } from './history/find-transaction.ts'
export {
  type LoggedTransaction,
  type LogSelection,
  type Operation,
  operations,
  parseRowCondition,
  type RowCounts,
  readLog,
  rowOperations,
  selectTransactions,
  type TableChange,
  type TransactionLog,
} from './history/log.ts'
export { type ShownChange, type ShownRow, type ShownValue, showTransaction } from './history/show.ts'
export {
  type Coverage,
  coverageOf,
  type Gap,
  type Holdings,
  type MarkPoint,
  type Point,
  readHoldings,
  type Window,
} from './history/status.ts'
export { readUnseen, type UncertainSpan } from './history/uncertain.ts'
export { type EventKind, eventKinds, type Severity, type WalbackEvent } from './model/event.ts'
export { formatLsn, type Lsn, parseLsn } from './model/lsn.ts'
export { everything, isEverything, matchTables, type Selection } from './model/selection.ts'
export { type RecoveryTarget, targetText } from './model/target.ts'
export {
  formatTime,
  formatTimeIn,
  localZone,
  type Micros,
  micros,
  nowMicros,
  parseTime,
  type TimeReading,
} from './model/time.ts'
export { readServerLoad } from './postgres/check-server-sql.ts'
export { type ConnectOptions, connect } from './postgres/connect.ts'
export { type Conninfo, describeConninfo, resolveConninfo, withDatabase } from './postgres/conninfo.ts'
export { type EmbeddedServer, startEmbedded } from './postgres/embedded.ts'
export { explainLostSession } from './postgres/replication-failure.ts'
export { askServerHistory } from './postgres/server-history.ts'
export { setIdentityDefaultSql } from './postgres/setup-sql.ts'
export {
  currentInsertLsn,
  readSlot,
  readSourceFacts,
  type SlotState,
  type SourceFacts,
  slotLimit_bytes,
} from './postgres/source.ts'
export type { FullTable, Trace } from './postgres/traces-sql.ts'
export { type EncryptionSettings, readAccess, withFilesFrom } from './repository/access.ts'
export { type Audited, recorded } from './repository/audit.ts'
export { type AuditBreak, type AuditedAction, type AuditTrail, readAudit } from './repository/audit-record.ts'
export {
  type BaseHead,
  type BaseManifest,
  type BaseTable,
  baseKind,
  readBaseHeads,
  readManifests,
  tablesOf,
} from './repository/base.ts'
export {
  type Credential,
  type KeyAccess,
  readKeyFile,
  readPassphraseFile,
  recipientOfIdentity,
} from './repository/credential.ts'
export { addRecipient, dropRecipient, type ListedKey, listKey, rotateKey } from './repository/key-changes.ts'
export { fingerprintOf } from './repository/key-record.ts'
export { checkSourceName, suggestSourceName } from './repository/layout.ts'
export { breakStaleLeases, describeLease, type LeaseRecord, readLeases } from './repository/lease.ts'
export { addPin, type Pin, readPins, removePin } from './repository/pins.ts'
export { probeStorage } from './repository/probe.ts'
export { findProof, type ProofRecord } from './repository/proof-record.ts'
export { makeRecipient, type NewRecipient, type Recipient } from './repository/recipients.ts'
export { Repository } from './repository/repository.ts'
export type { Access, RepositoryKey } from './repository/repository-key.ts'
export type { SegmentSummary, TransactionEntry } from './repository/segment-format.ts'
export { readHead, scanSegments, timeOf } from './repository/segments.ts'
export { currentTimeline, readTimelines, type Timeline } from './repository/timeline.ts'
export { type UnseenChange, UnseenChanges, unseenInWords } from './repository/unseen-changes.ts'
export { findVerification, type Verification } from './repository/verification.ts'
export {
  discardRestore,
  type InterruptedRestore,
  interruptedRestores,
  pauseRestore,
  readRequest,
} from './restore/interrupted.ts'
export {
  type LiveOptions,
  type LiveReport,
  type LiveTableReport,
  type LiveUse,
  type MergePreview,
  restoreIntoLive,
} from './restore/live.ts'
export { type MergeMode, mergeModes } from './restore/live-table.ts'
export { type Pace, PaceMeter } from './restore/pace.ts'
export { planRestore, type RestorePlan } from './restore/plan.ts'
export { planSelected } from './restore/plan-selected.ts'
export type { RestoreProgress } from './restore/progress.ts'
export { type RestoreOptions, type RestoreReport, restore } from './restore/restore.ts'
export type { RoleOptions, RolePlan } from './restore/role-plan.ts'
export type { TargetFinding } from './restore/target-check.ts'
export { type LookOptions, lookAtTarget, type TargetLook } from './restore/target-look.ts'
export { pruneAudited, removesNothing } from './retention/audited.ts'
export type { BaseVerdict, KeptMoment, KeptWindow, PrunePlan, UnfinishedVerdict } from './retention/plan.ts'
export { isEmptyPolicy, type RetentionPolicy } from './retention/policy.ts'
export { Prune, type PruneReport, previewPrune } from './retention/prune.ts'
export type { RetentionMode, RetentionSettings } from './retention/settings.ts'
export { openStorage } from './storage/open.ts'
export { placesIn, type RepositoryPlace } from './storage/places.ts'
export type { GetOptions, PutOptions, Storage, StoredObject } from './storage/storage.ts'
export {
  type InPlaceOptions,
  type InPlaceReport,
  planRollback,
  type RollbackPlan,
  restoreInPlace,
  rollBack,
} from './swap/in-place.ts'
export type { SwapReport } from './swap/swap.ts'
export type { Assertion } from './throwaway/assertions.ts'
export type { RowDifference, SampleRow } from './throwaway/compare.ts'
export { diffPasts, type TableDifference } from './throwaway/diff.ts'
export { type Preview, previewPast, type RowCount, type TablePreview } from './throwaway/preview.ts'
export {
  estimateRestore_ms,
  type ProofFinding,
  type ProofReport,
  type ProveOptions,
  proveRestore,
} from './throwaway/prove.ts'
export { checkQuery, runQuery, type TextRow } from './throwaway/query.ts'
export { randomTarget } from './throwaway/random-target.ts'
export { type SqlOutReport, type SqlSink, writeSql } from './throwaway/sql-out.ts'
export { openStage, type Past, type Stage, type StageOptions } from './throwaway/stage.ts'
export type { Policy as UndoPolicy } from './undo/apply-rows.ts'
export type { Conflict as UndoConflict, UndoTable } from './undo/report.ts'
export { Undo, type UndoOptions, type UndoReport } from './undo/undo.ts'
export {
  type Damage,
  damageKinds,
  isDamage,
  type LostTargets,
  noteKinds,
  type VerifyFinding,
} from './verify/finding.ts'
export { nextSubset, parseSubset, type ReadSubset, whole as wholeSubset } from './verify/subset.ts'
export { type VerifyOptions, type VerifyReport, verifySource } from './verify/verify.ts'
export type { VerifyProgress } from './verify/walk.ts'
