package storetest

import "testing"

// Run runs the suite: every subtest opens a store of its own.
func Run(t *testing.T, open Open) {
	for _, subject := range []struct {
		name  string
		tests []test
	}{
		{"user", users()},
		{"insert", inserts()},
		{"insert_once", insertsOnce()},
		{"edit", edits()},
		{"edit_images", imageEdits()},
		{"delete", deletions()},
		{"list", []test{{"page_ends_with_its_products", lastPage}}},
		{"pipeline", []test{{"first_document_is_kept", pipelines}}},
	} {
		t.Run(subject.name, func(t *testing.T) {
			t.Parallel()
			for _, one := range subject.tests {
				t.Run(one.name, func(t *testing.T) {
					t.Parallel()
					one.run(&Fixture{T: t, Parts: open(t)})
				})
			}
		})
	}
}

// test is one promise of a store. Its name is the condition under test.
type test struct {
	name string
	run  func(f *Fixture)
}

func users() []test {
	return []test{
		{"is_read_back", userReadBack},
		{"email_conflicts_in_any_case", emailTaken},
		{"concurrent_same_email_conflicts", emailTogether},
		{"unknown_id_is_not_found", userNotFound},
	}
}

func inserts() []test {
	return []test{
		{"product_is_read_back", productReadBack},
		{"prices_are_exact", pricesExact},
		{"finished_images_are_kept", wholeImages},
		{"queued_images_are_dated", requestsDated},
		{"announce_sees_ids_and_bodies_are_kept", announced},
		{"unstorable_message_undoes_product", insertUndone},
		{"unknown_user_is_invalid", unknownUser},
		{"unknown_product_is_not_found", productNotFound},
		{"canceled_context_is_returned", callerGone},
	}
}

func insertsOnce() []test {
	return []test{
		{"repetition_gets_saved_reply", onceOnly},
		{"response_is_kept_byte_for_byte", responseKept},
		{"other_fingerprint_is_refused", keyReused},
		{"other_principal_has_its_own_keys", keyOfAnother},
		{"second_request_in_progress_is_refused", keyInProgress},
		{"ended_request_frees_key", keyFreed},
		{"reply_error_undoes_product_and_key", answerFails},
		{"unknown_user_leaves_key_unused", keyOfUnknownUser},
		{"unstorable_message_leaves_key_unused", keyUndone},
		{"concurrent_requests_insert_one_product", onceTogether},
	}
}

func edits() []test {
	return []test{
		{"every_field_is_written", everyField},
		{"one_field_is_written", oneField},
		{"every_field_is_cleared", clearedFields},
		{"function_sees_images_in_order_and_time", editSees},
		{"only_new_version_moves_update_time", updateTime},
		{"unchanged_product_is_not_written", nothingChanged},
		{"function_error_undoes_all_and_is_returned", functionFails},
		{"function_panic_undoes_all_and_unlocks", functionPanics},
		{"unstorable_message_undoes_edit", editUndone},
		{"version_never_falls", versionFalls},
		{"revision_is_kept_and_never_falls", revisions},
		{"concurrent_edits_are_all_kept", finishTogether},
		{"time_is_read_after_lock", timeAfterWait},
	}
}

func imageEdits() []test {
	return []test{
		{"added_dropped_and_moved_at_once", rearranged},
		{"two_images_swap", swapped},
		{"all_images_move_up", movedUp},
		{"all_images_dropped_and_new_ones_added", allGone},
		{"announce_sees_new_ids", announcedLater},
		{"announce_alone_is_a_change", announcedAlone},
		{"unstorable_message_undoes_image_changes", rearrangingUndone},
		{"inconsistent_images_are_refused", refusedImages},
		{"dropped_image_leaves_its_scheduled_deletions", outlived},
	}
}

func deletions() []test {
	return []test{
		{"product_keeps_id_and_version", deleted},
		{"deleted_product_only_sends_and_schedules", afterDeletion},
		{"prefix_is_canceled_once", canceledOnce},
		{"cancel_without_schedule_is_refused", cancelMissing},
		{"cancel_is_all_or_nothing", cancelAll},
	}
}
