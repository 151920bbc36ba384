"""The files of a probe: summary.json and vocabulary.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import ProbeConfig
from ..probe_models import MODELS
from ..run_dir import read_json, write_json
from .base import Interval, JsonFile, Record


class GroupSummary(Record):
    """Means over the positions of a group, with 95 % intervals over traces; ``delta_…`` is trained minus baseline."""

    positions: int
    position_fraction: float | None
    kl_trained_base: Interval
    """The shift, KL(trained ‖ baseline), in nats per position."""
    kl_base_trained: Interval
    """KL(baseline ‖ trained), in nats per position."""
    js: Interval
    """Jensen-Shannon divergence, in nats."""
    delta_top1_prob: Interval
    delta_prob_at_base_top1: Interval
    delta_nucleus_size: Interval
    """In tokens."""
    delta_tail_mass: Interval
    delta_entropy: Interval
    """In nats."""
    ssd_alignment: Interval
    """Mean correlation of the shift with the direction of self-distillation."""
    ssd_variance_fraction: Interval
    """The fraction of the shift's variance along that direction."""


class SourceSummary(Record):
    """The summaries of one trace source."""

    all: GroupSummary
    by_position_class: dict[str, GroupSummary]


class FailedTrace(Record):
    """A trace that a model failed on."""

    trace_source: str
    trace_id: str
    reason: str


class Selection(Record):
    """What was scored."""

    traces: dict[str, int]
    """By trace source."""
    positions: int
    strata: list[dict[str, Any]]
    """The strata from which traces were sampled, empty where all were taken."""


class VocabularySizes(Record):
    """Rows of the heads; where they differ, the tokens are compared and the padding is not."""

    compared: int
    baseline: int
    trained: int


class ProbeSummary(JsonFile):
    """summary.json."""

    positions: int
    """Number of positions with finite logits."""
    traces: int
    invalid: int
    """Number of positions without finite logits, which are left out."""
    trace_sources: dict[str, int]
    """Positions by trace source."""
    all: GroupSummary
    by_position_class: dict[str, GroupSummary]
    by_lock_kind: dict[str, GroupSummary]
    by_trace_source: dict[str, SourceSummary]
    settings: ProbeConfig
    token_classes: list[str]
    eos_ids: list[int]
    """The token ids that end the text or the thinking."""
    logits: str
    """The precision of the logits."""
    vocabulary: VocabularySizes | None = None
    selected: Selection
    left_out: dict[str, int]
    """Number of traces that were not scored, by reason."""
    train_sampling_origin: str
    """Where `train_sampling` comes from, as a sentence."""
    failed: list[FailedTrace]


def write_vocabulary(path: Path, texts: dict[int, str]) -> None:
    """Write vocabulary.json: the text of each token id."""
    write_json(path, {str(token_id): text for token_id, text in texts.items()})


def vocabulary_file(run_dir: Path) -> Path:
    """The vocabulary.json of a probe: its own, or that of the run in whose ``models`` it is one of several."""
    own, shared = run_dir / "vocabulary.json", run_dir.absolute().parent.parent / "vocabulary.json"
    return shared if not own.exists() and run_dir.absolute().parent.name == MODELS else own


def read_vocabulary(path: Path) -> dict[int, str]:
    """The text of each token id. Raises ValueError for a file of another schema version."""
    return {int(key): text for key, text in read_json(path).items() if key.isdigit()}
