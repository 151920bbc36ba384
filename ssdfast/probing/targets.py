"""What a probe makes: the table of each trained model, and that of the baseline where several share its columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..config import BASELINE, ManyProbesConfig, ProbeConfig
from ..models import ModelInfo, model_info
from ..probe_models import model_directory
from ..sharded_table import ShardedTable


@dataclass(frozen=True)
class Target:
    """A trained model with the settings of its probe and its own directory."""

    name: str
    """empty where there is one model alone"""
    config: ProbeConfig
    directory: Path
    baseline: ShardedTable | None = None
    """the columns of the baseline, where several models share them"""

    @cached_property
    def trained(self) -> ModelInfo:
        return model_info(self.config.trained)

    @property
    def table(self) -> ShardedTable:
        return ShardedTable.from_run(self.directory, self.config.table_dir)


def baseline_table(config: ManyProbesConfig, out: Path) -> ShardedTable:
    """The columns of the baseline that several models share."""
    return ShardedTable.from_run(model_directory(out, BASELINE), config.table_of(BASELINE))
