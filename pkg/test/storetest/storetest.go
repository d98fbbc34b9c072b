package storetest

import "testing"

// Run runs the suite. Every subtest opens a store of its own.
func Run(t *testing.T, open Open) {
	for _, subject := range []struct {
		name  string
		tests []test
	}{
		{"user", users()},
		{"user_once", usersOnce()},
		{"insert", inserts()},
		{"insert_once", insertsOnce()},
		{"edit", edits()},
		{"edit_once", editsOnce()},
		{"edit_images", imageEdits()},
		{"delete", deletions()},
		{"job", jobs()},
		{"list", []test{
			{"page_ends_with_its_products", pageEndsWithItsProducts},
			{"page_ends_with_its_bytes", pageEndsWithItsBytes},
		}},
		{"pipeline", []test{{"first_document_is_kept", firstDocumentIsKept}}},
	} {
		t.Run(subject.name, func(t *testing.T) {
			t.Parallel()
			for _, test := range subject.tests {
				t.Run(test.name, func(t *testing.T) {
					t.Parallel()
					test.run(&Fixture{T: t, Parts: open(t)})
				})
			}
		})
	}
}

// test is one requirement of a store. Its name is the condition under test.
type test struct {
	name string
	run  func(f *Fixture)
}

func users() []test {
	return []test{
		{"is_read_back", userIsReadBack},
		{"email_conflicts_in_any_spelling", emailConflictsInAnySpelling},
		{"concurrent_same_email_conflicts", concurrentSameEmailConflicts},
		{"unknown_id_is_not_found", unknownUserIDIsNotFound},
	}
}

func inserts() []test {
	return []test{
		{"product_is_read_back", productIsReadBack},
		{"prices_are_exact", pricesAreExact},
		{"finished_images_are_kept", finishedImagesAreKept},
		{"queued_images_are_dated", queuedImagesAreDated},
		{"announce_sees_ids_and_bodies_are_kept", announceSeesIDs},
		{"unstorable_message_undoes_product", unstorableMessageUndoesInsert},
		{"unknown_user_is_invalid", unknownUserIsInvalid},
		{"unknown_product_is_not_found", unknownProductIsNotFound},
		{"cancelled_context_is_returned", cancelledContextIsReturned},
	}
}

func insertsOnce() []test {
	return []test{
		{"repetition_gets_saved_response", repetitionGetsSavedResponse},
		{"response_is_kept_byte_for_byte", responseIsKeptByteForByte},
		{"other_fingerprint_is_refused", otherFingerprintIsRefused},
		{"other_principal_has_own_keys", otherPrincipalHasOwnKeys},
		{"second_request_in_progress_is_refused", requestInProgressIsRefused},
		{"ended_request_frees_key", endedRequestFreesKey},
		{"response_error_undoes_product_and_key", responseErrorUndoesInsert},
		{"unknown_user_leaves_key_unused", unknownUserLeavesKeyUnused},
		{"unstorable_message_leaves_key_unused", unstorableMessageLeavesKeyUnused},
		{"concurrent_requests_insert_one_product", concurrentRequestsInsertOnce},
	}
}

func edits() []test {
	return []test{
		{"every_field_is_written", everyFieldIsWritten},
		{"one_field_is_written", oneFieldIsWritten},
		{"every_field_is_cleared", everyFieldIsCleared},
		{"function_sees_images_in_order_and_time", functionSeesImagesAndTime},
		{"only_new_version_moves_update_time", onlyNewVersionMovesUpdateTime},
		{"unchanged_product_is_not_written", unchangedProductIsNotWritten},
		{"function_error_undoes_all_and_is_returned", functionErrorUndoesEdit},
		{"function_panic_undoes_all_and_unlocks", functionPanicUndoesEdit},
		{"unstorable_message_undoes_edit", unstorableMessageUndoesEdit},
		{"version_never_falls", versionNeverFalls},
		{"revision_is_kept_and_never_falls", revisionNeverFalls},
		{"concurrent_edits_are_all_kept", concurrentEditsAreKept},
		{"time_is_read_after_lock", timeIsReadAfterLock},
	}
}

func imageEdits() []test {
	return []test{
		{"images_added_removed_and_moved_at_once", imagesAddedRemovedAndMoved},
		{"two_images_swap", twoImagesSwap},
		{"all_images_move_up", allImagesMoveUp},
		{"all_images_removed_and_new_ones_added", allImagesReplaced},
		{"unstorable_message_undoes_image_changes", unstorableMessageUndoesImageChanges},
		{"inconsistent_images_are_refused", inconsistentImagesAreRefused},
		{"removed_image_keeps_its_scheduled_deletions", removedImageKeepsScheduledDeletions},
	}
}

func jobs() []test {
	return []test{
		{"live_job_is_released_with_its_image", liveJobIsReleased},
		{"bulk_job_waits_for_the_scheduler", bulkJobWaits},
		{"replaced_job_waits_until_it_is_due", replacedJobWaits},
		{"reprocessed_image_has_a_new_job", reprocessedImageHasNewJob},
		{"job_ends_with_outcome_image_and_product", jobEnds},
		{"image_with_job_keeps_its_last_outcome", imageKeepsLastOutcome},
		{"job_of_a_backfill_keeps_what_clients_see", backfillJobKeepsImage},
	}
}

func deletions() []test {
	return []test{
		{"product_keeps_id_and_version", deletedProductKeepsIDAndVersion},
		{"deleted_product_only_sends_and_schedules", deletedProductOnlySendsAndSchedules},
		{"prefix_is_cancelled_once", prefixIsCancelledOnce},
		{"cancel_without_schedule_is_refused", cancelWithoutScheduleIsRefused},
		{"cancel_is_all_or_nothing", cancelIsAllOrNothing},
	}
}
