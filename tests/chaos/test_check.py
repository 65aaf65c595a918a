#!/usr/bin/env python3
"""The checker finds what it is for: histories by hand, each with one thing wrong. Run by ./dev check."""

import copy
import unittest

from check import judge


def a_run():
    """A payment of 100.00 with transfers of 60.00 and 30.00, of which 50.00 were refunded, and all is well."""
    def reversal(at, amount):
        return {"id": f"r{at}", "claim": "re_1", "amount": amount, "status": "reversed", "stripe_id": f"trr_{at}", "reason": ""}

    def transfer(at, amount, back):
        names = {"id": f"t{at}", "stripe_id": f"tr_{at}", "destination": f"acct_{at}"}
        return names | {"amount": amount, "withheld": 0, "status": "partially_reversed", "amount_reversed": back,
                        "reversals": [reversal(at, back)]}

    def at_stripe(at, amount, back):
        reversals = [{"id": f"trr_{at}", "amount": back, "claim": "re_1", "key": "k"}]
        return {"type": "stripe_transfer", "id": f"tr_{at}", "amount": amount, "destination": f"acct_{at}", "created": False,
                "reversals": reversals}

    def registered(at, amount):
        return {"id": f"tr_{at}", "position": at - 1, "amount": amount, "destination": f"acct_{at}"}

    changes = [("c1", None, "matched")]
    for at in (1, 2):
        changes += [(f"r{at}", None, "pending"), (f"r{at}", "pending", "reversed")]
        changes += [(f"t{at}", before, after) for before, after in
                    ((None, "completed"), ("completed", "reversal_pending"), ("reversal_pending", "partially_reversed"))]
    return [
        {"type": "payment", "ref": "pi_1", "amount": 10_000, "transfers": [registered(1, 6_000), registered(2, 3_000)]},
        {"type": "claim", "ref": "re_1", "kind": "refund", "payment": "pi_1", "amount": 5_000, "ending": "succeeded"},
        {"type": "sent", "claim": "re_1", "event": "evt_1", "status": None},
        {"type": "sent", "claim": "re_1", "event": "evt_1", "status": 200},
        {"type": "fault", "fault": "kill_worker", "kills": 1},
        at_stripe(1, 6_000, 3_000),
        at_stripe(2, 3_000, 1_500),
        {"type": "ledger_claim", "ref": "re_1", "id": "c1", "kind": "refund", "amount": 5_000, "status": "matched",
         "reason": "matched to payment pi_1", "attention": None, "reversals": [reversal(1, 3_000), reversal(2, 1_500)]},
        {"type": "ledger_payment", "ref": "pi_1", "amount": 10_000, "transfers": [transfer(1, 6_000, 3_000), transfer(2, 3_000, 1_500)]},
        *({"type": "change", "id": row, "from": before, "to": after} for row, before, after in changes),
        {"type": "run", "seed": 7, "seconds": 3},
    ]


def find(lines, kind, nth=0):
    return [line for line in lines if line["type"] == kind][nth]


class Checker(unittest.TestCase):
    def wrong(self, change):
        """What is wrong in a run after `change`: lost, doubled, unexplained."""
        lines = copy.deepcopy(a_run())
        change(lines)
        result, shown = judge(lines)
        return {name for name in ("lost", "doubled", "unexplained") if result[name]}, result, shown

    def test_a_run_in_which_all_is_well_is_accepted(self):
        wrong, result, shown = self.wrong(lambda lines: None)
        self.assertEqual((wrong, shown), (set(), []))
        self.assertEqual((result["refunds"], result["kills"], result["seed"], result["reversals"]), (1, 1, 7, 2))

    def test_a_claim_that_the_ledger_forgot_is_lost(self):
        def change(lines):
            lines.remove(find(lines, "ledger_claim"))
            for at in (0, 1):
                find(lines, "stripe_transfer", at)["reversals"] = []
            find(lines, "ledger_payment")["transfers"] = []
        self.assertIn("lost", self.wrong(change)[0])

    def test_a_claim_that_nobody_accepted_may_be_absent(self):
        lines = [line for line in a_run() if line["type"] in ("payment", "claim", "run")]
        result, _ = judge(lines)
        self.assertEqual((result["lost"], result["accepted"]), (0, 0))

    def test_a_reversal_that_is_still_open_is_lost(self):
        def change(lines):
            find(lines, "ledger_claim")["reversals"][0]["status"] = "pending"
        self.assertIn("lost", self.wrong(change)[0])

    def test_a_debt_that_was_never_recorded_is_lost(self):
        def change(lines):
            find(lines, "stripe_transfer", 1)["reversals"] = []
            find(lines, "ledger_claim")["reversals"].pop()
            transfer = find(lines, "ledger_payment")["transfers"][1]
            transfer.update(reversals=[], amount_reversed=0, status="completed")
        self.assertIn("lost", self.wrong(change)[0])

    def test_a_debt_that_failed_visibly_is_listed_and_not_lost(self):
        def change(lines):
            find(lines, "stripe_transfer", 1)["reversals"] = []
            for row in (find(lines, "ledger_claim")["reversals"][1], find(lines, "ledger_payment")["transfers"][1]["reversals"][0]):
                row.update(status="permanently_failed", stripe_id=None, reason="resource_missing no such transfer")
            find(lines, "ledger_payment")["transfers"][1].update(status="permanently_failed", amount_reversed=0)
            for line in lines:
                if line["type"] == "change" and (line["id"], line["from"]) in (("r2", "pending"), ("t2", "reversal_pending")):
                    line["to"] = "permanently_failed"
        wrong, result, _ = self.wrong(change)
        self.assertEqual((wrong, result["visible"]), (set(), 1))

    def test_a_transfer_that_was_reversed_twice_for_one_claim_is_doubled(self):
        def change(lines):
            find(lines, "stripe_transfer")["reversals"].append({"id": "trr_9", "amount": 3_000, "claim": "re_1", "key": "k2"})
        self.assertLessEqual({"doubled", "unexplained"}, self.wrong(change)[0])

    def test_a_transfer_that_gave_too_much_for_its_claims_is_doubled_whatever_the_ledger_says(self):
        def change(lines):
            find(lines, "stripe_transfer")["reversals"][0]["amount"] = 3_002
            find(lines, "ledger_claim")["reversals"][0]["amount"] = 3_002
            find(lines, "ledger_payment")["transfers"][0]["amount_reversed"] = 3_002
        self.assertEqual(self.wrong(change)[0], {"doubled"})

    def test_a_transfer_that_was_created_twice_is_doubled(self):
        def change(lines):
            for at in (0, 1):
                find(lines, "stripe_transfer", at).update(created=True, destination="acct_1")
        self.assertIn("doubled", self.wrong(change)[0])

    def test_a_claim_that_failed_and_took_money_without_a_word_is_doubled(self):
        def change(lines):
            lines.insert(-1, {"type": "ending", "ref": "re_1", "ending": "failed"})
            find(lines, "ledger_claim")["status"] = "failed"
            find(lines, "change")["to"] = "failed"
        self.assertEqual(self.wrong(change)[0], {"doubled"})

        def told(lines):
            change(lines)
            find(lines, "ledger_claim")["attention"] = "pay 45.00 back"
        self.assertEqual((self.wrong(told)[0], self.wrong(told)[1]["visible"]), (set(), 1))

    def test_what_a_later_claim_counted_on_is_lost_unless_somebody_is_told(self):
        def change(lines, attention):
            failed = {"id": "r9", "claim": "re_9", "amount": 1_500, "status": "called_off", "stripe_id": None, "reason": "not_owed"}
            find(lines, "stripe_transfer", 1)["reversals"] = []
            find(lines, "ledger_claim")["reversals"].pop()
            find(lines, "ledger_payment")["transfers"][1].update(reversals=[failed], amount_reversed=0)
            lines.insert(-1, {"type": "claim", "ref": "re_9", "kind": "refund", "payment": "pi_1", "amount": 5_000, "ending": "failed"})
            lines.insert(-1, find(lines, "ledger_claim") | {"ref": "re_9", "id": "c9", "status": "failed", "attention": attention,
                                                            "reversals": [failed]})
            lines += [{"type": "change", "id": "c9", "from": None, "to": "failed"},
                      {"type": "change", "id": "r9", "from": None, "to": "called_off"}]
        self.assertEqual(self.wrong(lambda lines: change(lines, None))[0], {"lost"})
        self.assertEqual(self.wrong(lambda lines: change(lines, "15.00 were not taken"))[0], set())

    def test_a_status_that_the_history_does_not_lead_to_is_unexplained(self):
        for row in ("c1", "r1", "t2"):
            def change(lines, row=row):
                lines.remove([line for line in lines if line["type"] == "change" and line["id"] == row][-1])
            self.assertEqual(self.wrong(change)[0], {"unexplained"}, row)

    def test_a_reversal_that_only_one_of_both_sides_knows_is_unexplained(self):
        def change(lines):
            find(lines, "ledger_claim")["reversals"][0]["stripe_id"] = "trr_8"
        self.assertEqual(self.wrong(change)[0], {"unexplained"})

    def test_fractions_may_go_to_either_transfer_but_only_once(self):
        def change(lines, first, second):
            find(lines, "claim")["amount"] = find(lines, "ledger_claim")["amount"] = 3_333
            for at, back in ((0, first), (1, second)):
                find(lines, "stripe_transfer", at)["reversals"][0]["amount"] = back
                find(lines, "ledger_claim")["reversals"][at]["amount"] = back
                find(lines, "ledger_payment")["transfers"][at]["amount_reversed"] = back
        # 9,000 * 3,333 / 10,000 = 2,999.7: 2,999 in all, 1,999.3 and 999.7 of it.
        self.assertEqual(self.wrong(lambda lines: change(lines, 2_000, 999))[0], set())
        self.assertEqual(self.wrong(lambda lines: change(lines, 1_999, 1_000))[0], set())
        self.assertEqual(self.wrong(lambda lines: change(lines, 2_000, 1_000))[0], {"doubled"})
        self.assertEqual(self.wrong(lambda lines: change(lines, 1_999, 999))[0], {"lost"})


if __name__ == "__main__":
    unittest.main()
