"""A valid summary.json without numbers, for tests that read only its settings."""

from __future__ import annotations

from ssdfast.schemas import GroupSummary, Interval, ProbeSummary
from ssdfast.schemas.probe import Selection

_UNDEFINED = Interval(value=None, ci_low=None, ci_high=None)


def summary_without_numbers(settings, token_classes, eos_ids) -> ProbeSummary:
    names = [name for name, field in GroupSummary.model_fields.items() if field.annotation is Interval]
    group = GroupSummary(positions=0, position_fraction=None, **dict.fromkeys(names, _UNDEFINED))
    return ProbeSummary(
        positions=0, traces=0, invalid=0, trace_sources={}, all=group, by_position_class={}, by_lock_kind={},
        by_trace_source={}, settings=settings, token_classes=list(token_classes), eos_ids=eos_ids, logits="",
        selected=Selection(traces={}, positions=0, strata=[]), left_out={}, train_sampling_origin="", failed=[],
    )  # fmt: skip
