"""A study: several arms from sampling to verdicts."""

from __future__ import annotations

from pathlib import Path

from .attribution import Attribution
from .evaluation import Evaluation
from .model import Model
from .probe import Probe


class Study(Attribution):
    """A run of `ssdfast.study`: an attribution with all that led to it.

    >>> study = ssd.load("runs/study")
    >>> study.verdicts()["arm"].tolist()
    ['ssd']
    >>> study.probe("ssd", seed=0).summary().traces > 0
    True
    """

    @property
    def report(self) -> Path:
        """The page."""
        return self.directory / "report.html"

    def probe(self, arm: str, seed: int = 0) -> Probe:
        """The probe of one training. Raises ValueError for an arm or a seed that the study does not have."""
        arms = self.results().arms
        if arm not in arms:
            raise ValueError(f"{self.directory} has no arm {arm!r}: its arms are {', '.join(arms)}")
        names = [Path(entry.probe).name for entry in arms[arm].shift.by_seed]
        for name in names:
            if name.rpartition("-")[0] == f"{arm}-{seed}":
                return Probe(self.directory / "probe" / name)
        seeds = ", ".join(name.rpartition("-")[0].removeprefix(f"{arm}-") for name in names)
        raise ValueError(f"{self.directory} has no seed {seed} of {arm!r}: its seeds are {seeds}")

    def model(self, arm: str, seed: int = 0) -> Model:
        """The model of one training. Raises ValueError as `probe`."""
        trained = Path(self.probe(arm, seed).summary().settings.trained)  # .../train/NAME/train/model
        return Model(self.directory / "train" / trained.parent.parent.name)

    def evaluation(self) -> Evaluation:
        """Every trained model's accuracy beside the baseline's. Raises ValueError for a study that is not finished."""
        link = self.directory / "evaluation"
        if not link.is_dir():
            raise ValueError(f"{link} is not there, which a finished study has: start the study again")
        return Evaluation(link.resolve())
