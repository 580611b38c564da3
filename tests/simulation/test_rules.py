"""Planted bugs that runs show only by luck, or after hours: each is shown by a test of the very rule, or by a story.

The test holds for the real cores, and fails when every core that it makes has the bug: so neither can rot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from simulation import test_directed as directed
from simulation import test_seeds as seeds
from support.mutations import MUTATIONS, planted
from unit import test_client_core as client
from unit import test_master_election as election
from unit import test_master_moves as moves
from unit import test_master_recovery as recovery
from unit import test_master_register as register
from unit import test_master_sessions as sessions
from unit import test_master_settled as settled
from unit import test_master_tables as tables
from unit import test_master_transactions as transactions
from unit import test_storage_ahead as ahead
from unit import test_storage_copying as copying
from unit import test_storage_decisions as decisions
from unit import test_storage_reign as reign
from unit import test_storage_tables as cells
from unit import test_storage_values as values
from unit import test_storage_votes as votes

RULES: Final[dict[str, tuple[Callable[..., None], ...]]] = {
    "adopted_table_not_durable": (reign.test_adopted_table_is_relied_on_when_it_is_durable_here,),
    "anew_too_early": (
        directed.test_vote_that_recovery_has_committed_is_not_voted_again_under_another_name,
        client.test_vote_committed_before_its_session_was_given_up_is_not_voted_again,
    ),
    "any_source": (copying.test_only_a_readable_cell_gives,),
    "client_keeps_old_primary": (client.test_lower_epoch_than_promised_is_never_heard,),
    "copy_not_saved": (cells.test_joining_cell_is_not_ready_before_history_is_durable,),
    "earlier_reigns_trusted": (copying.test_what_was_equal_in_one_reign_is_compared_again_in_the_next,),
    "early_attempt_forgotten": (
        directed.test_who_gives_up_after_an_attempt_that_may_count_waits_for_a_durable_abort,
        client.test_unresolved_conflict_needs_an_abort_after_a_lost_answer,
        client.test_new_epoch_votes_from_scratch_and_notes_that_the_old_votes_may_count,
    ),
    "fate_unsought": (
        seeds.test_a_client_that_comes_back_in_a_later_reign_is_told_the_truth,
        sessions.test_client_that_was_given_up_is_told_of_a_commit_that_only_history_knows,
        sessions.test_client_is_told_aborted_only_when_no_partition_knows_of_it,
    ),
    "finish_any_epoch": (transactions.test_finish_with_votes_of_an_earlier_epoch_is_refused,),
    "gone_unheard": (sessions.test_readable_node_that_is_away_must_tell_too,),
    "join_survives_break": (cells.test_lead_does_not_take_up_a_join_that_a_break_has_ended,),
    "locks_not_rebuilt": (cells.test_new_lead_locks_what_is_voted,),
    "joining_not_awaited": (cells.test_lead_syncs_and_awaits_a_cell_that_joins,),
    "lease_forgotten": (reign.test_restarted_storage_waits_out_the_lease_that_it_may_have_given,),
    "leave_ignored": (sessions.test_client_that_leaves_is_given_up_at_once,),
    "name_kept": (
        client.test_session_given_up_fails_only_what_tpc_vote_had_promised,
        client.test_what_went_ahead_goes_again_under_the_new_session,
        client.test_locks_are_asked_for_again_under_the_new_session,
    ),
    "new_votes_before_stable": (votes.test_new_vote_waits_for_the_cells_of_the_last_stable_table,),
    "abort_cuts": (ahead.test_abort_that_overtakes_pieces_cuts_nobody,),
    "uploads_remembered": (client.test_what_went_ahead_is_named_in_the_vote_and_sent_again_after_a_loss,),
    "not_taken_back": (client.test_transaction_without_effect_takes_back_what_went_ahead,),
    "parts_unsaid": (ahead.test_lost_client_takes_along_what_went_ahead,),
    "parts_too_late": (
        ahead.test_sync_of_what_is_committed_leaves_nothing,
        ahead.test_client_that_gives_up_takes_back_what_went_ahead,
    ),
    "parts_across_tables": (
        ahead.test_cell_that_joins_again_is_sent_all_that_went_ahead,
        ahead.test_cell_that_is_not_written_any_more_keeps_nothing_of_what_went_ahead,
    ),
    "parts_across_reigns": (ahead.test_new_epoch_keeps_nothing_of_what_went_ahead,),
    "no_attempts": (recovery.test_votes_of_different_attempts_do_not_add_up,),
    "no_fencing": (
        votes.test_forward_of_an_older_epoch_is_dropped,
        decisions.test_only_the_primary_that_is_obeyed_decides,
        decisions.test_nothing_is_decided_between_fence_and_start,
    ),
    "no_grace": (recovery.test_fully_voted_without_client_waits_for_the_grace_then_is_committed_above_the_ceilings,),
    "no_lead_sync": (
        reign.test_lead_agrees_with_a_readable_cell_that_comes_back,
        cells.test_new_lead_makes_the_other_cells_agree,
    ),
    "no_lease": (
        election.test_without_lease_nothing_is_decided,
        reign.test_other_master_waits_for_the_end_of_the_lease,
    ),
    "no_patience": (
        votes.test_cell_that_was_never_connected_is_reported_after_a_short_patience,
        votes.test_cell_that_a_new_table_brings_is_given_time_to_connect,
    ),
    "no_reset": (
        recovery.test_client_that_knows_another_tid_must_reset,
        recovery.test_client_of_an_earlier_reign_must_reset_for_what_nobody_can_compare,
    ),
    "old_stream_accepted": (
        cells.test_what_was_sent_before_the_join_is_ignored,
        cells.test_out_of_date_cell_takes_nothing,
    ),
    "promotion_not_cancelled": (
        directed.test_promotion_counts_only_when_the_lead_has_it_durable,
        tables.test_promotion_is_taken_back_when_a_readable_node_is_lost_before_it_has_it,
    ),
    "recovery_unordered": (recovery.test_doubts_are_committed_in_the_order_of_their_floors,),
    "stale_lead_accepted": (
        directed.test_former_lead_that_knows_of_nothing_gets_no_vote_stored,
        votes.test_cell_refuses_who_does_not_lead,
        votes.test_cell_takes_of_a_forward_what_its_sender_leads,
    ),
    "stale_ready": (tables.test_ready_of_an_earlier_join_does_not_count,),
    "tombstone_kept": (reign.test_tombstones_end_with_the_reign,),
    "welcome_too_early": (
        sessions.test_client_comes_back_to_aborted_only_when_every_readable_node_has_told,
        sessions.test_readable_node_that_is_away_must_tell_too,
    ),
    "blank_votes": (register.test_a_master_without_its_former_disk_is_no_voter,),
    "left_out_counts": (register.test_who_was_left_out_of_a_reign_is_not_believed,),
    "left_out_remembers": (reign.test_storage_that_was_left_out_of_a_reign_forgets_its_decisions,),
    "left_out_started": (register.test_who_was_left_out_of_a_reign_is_not_believed,),
    "lone_register": (register.test_a_lone_master_does_not_trust_the_table_of_its_register,),
    "master_lease_forgotten": (register.test_a_restarted_master_waits_out_the_lease_that_it_may_have_given,),
    "minority_rules": (
        register.test_one_master_of_three_waits_for_every_storage,
        register.test_a_reign_that_leaves_somebody_out_has_its_table_at_a_majority_before_any_start,
    ),
    "no_cover_lease": (register.test_a_primary_whose_leases_are_no_cover_decides_nothing,),
    "no_heir": (moves.test_a_feeding_cell_takes_the_place_of_the_last_that_is_up_to_date,),
    "old_epoch_held": (register.test_a_register_of_a_lower_epoch_than_the_promise_is_not_held,),
    "only_newest_table": (register.test_while_a_table_is_not_stable_an_abort_counts_with_the_cells_of_the_stable_one,),
    "promise_ignores_lease": (register.test_while_a_lease_lives_no_other_claim_is_heard,),
    "promise_not_durable": (register.test_a_promise_is_on_disk_before_it_is_given,),
    "register_first": (register.test_any_other_table_goes_to_the_storages_first,),
    "runs_uncovered": (register.test_a_reign_runs_only_when_its_table_is_covered,),
    "seal_not_repeated": (transactions.test_seal_is_repeated_to_a_storage_that_comes_back,),
    "stable_uncovered": (register.test_a_table_is_stable_when_it_is_covered,),
    "storages_first": (
        register.test_a_table_that_takes_readable_cells_away_goes_to_the_masters_first,
        register.test_a_reign_that_leaves_somebody_out_has_its_table_at_a_majority_before_any_start,
    ),
    "taken_back_held": (register.test_a_promotion_that_is_taken_back_is_held_by_no_master,),
    "values_outlive_removals": (values.test_what_is_emptied_is_forgotten_although_a_vote_relies_on_its_serial,),
    "unsettled_held": (settled.test_a_commit_that_a_storage_does_not_have_durably_is_not_told,),
    "old_disk_trusted": (
        settled.test_a_disk_that_is_older_than_it_was_stops_recovery,
        settled.test_the_only_copy_is_not_taken_back_into_a_running_cluster_if_its_disk_is_old,
    ),
    "any_holding_believed": (settled.test_a_master_that_missed_a_truncation_is_not_believed,),
    "position_not_durable": (reign.test_only_what_is_durable_of_the_log_is_told,),
    "voters_by_few": (register.test_voters_are_chosen_anew_only_by_all_masters,),
    "young_cell_counts": (register.test_a_cell_whose_promotion_no_majority_holds_does_not_count,),
}
"""By planted bug, the tests of the rule that it breaks."""


def shown(rule: Callable[..., None]) -> None:
    """Run the test of a rule. Those of clients take a client with a session."""
    needs: list[Any] = [client.Bench().ready()] if "bench" in rule.__annotations__ else []
    rule(*needs)


CASES = [pytest.param(name, rule, id=f"{name}-{rule.__name__[5:]}") for name, rules in RULES.items() for rule in rules]


@pytest.mark.parametrize(("name", "rule"), CASES)
def test_rule_is_kept_and_its_breach_is_noticed(name: str, rule: Callable[..., None]) -> None:
    shown(rule)
    with planted(MUTATIONS[name]), pytest.raises(AssertionError):
        shown(rule)
    shown(rule)


def test_every_planted_bug_is_noticed_by_quick_runs_or_by_a_rule() -> None:
    assert RULES.keys() >= {name for name, m in MUTATIONS.items() if m.is_rare}
