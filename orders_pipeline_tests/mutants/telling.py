"""Mutants of whether customers are told, once and the truth."""

from orders_pipeline_tests.mutants.mutant import Mutant, mutants

MUTANTS: list[Mutant] = [
    *mutants(
        "orders_pipeline/notifications.py",
        ["unit/test_notification_service.py"],
        (
            '            if found.kind != "absent":\n                return found\n        with',
            "        with",
            "told twice although a look-up found it",
        ),
        (
            "return service.send(claim.message) if may_send() else called_off(in_doubt=False)",
            "return service.send(claim.message)",
            "told by two workers",
        ),
        (
            "service.send_many(messages) if may_send() else [called_off(in_doubt=False)] * len(fresh)",
            "service.send_many(messages)",
            "many are told by two workers",
        ),
        (
            "together([claim for claim in claims if not claim.in_doubt])",
            "together(claims)",
            "told twice in one call for many",
        ),
        (
            "        return called_off(in_doubt=claim.in_doubt)\n",
            "        return called_off(in_doubt=False)\n",
            "doubt is forgotten at a stop",
        ),
    ),
]
