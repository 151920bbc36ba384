"""One run of the probe: its settings, its directories, and who may write to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import run_dir
from ..config import ExecutionConfig, ManyProbesConfig, ProbeConfig, load, read_yaml
from ..hub import local_path
from ..manifest import write_manifest
from ..probe_models import MODELS, model_directory
from ..processor import device_name
from ..schemas import ProbeSummary
from ..sharded_table import ShardedTable, is_run_name
from ..traces import traces_path
from .recorded_sampling import Resolved, resolve_train_sampling
from .targets import Target, baseline_table

RESULTS = ("positions", "vocabulary.json", "spill", "summary.json", "report.html", "trajectory.json", MODELS)


@dataclass(frozen=True)
class Run:
    """What is to do in `out`: the settings, and where they come from."""

    config: ProbeConfig | ManyProbesConfig
    out: Path
    execution: ExecutionConfig
    targets: list[Target]
    resolved: dict[str, Resolved]

    @staticmethod
    def of(
        config: ProbeConfig | ManyProbesConfig, out: Path, execution: ExecutionConfig, baseline: Path | None = None
    ) -> Run:
        """baseline: of one trained model, the directory beside `out` that has the baseline's columns.

        Raises ValueError as `resolve_train_sampling`, for both models in memory with several trained ones, and for a
        `baseline` elsewhere.
        """
        if baseline and (baseline.resolve().parent != out.resolve().parent or not is_run_name(baseline.name)):
            raise ValueError(
                f"{baseline} is not found by a reader of {out}: the baseline's columns lie beside the probe, in a"
                " directory whose name has letters, digits, ., - and _"
            )
        mismatch = execution.on_sampling_mismatch
        if isinstance(config, ManyProbesConfig) and execution.model_loading == "both":
            raise ValueError(
                "model_loading: both is for one trained model: several follow one another, so leave it out"
            )
        if isinstance(config, ProbeConfig):
            resolved = {"": resolve_train_sampling(config, mismatch)}
            config = resolved[""].config
            shared = ShardedTable.from_run(baseline, None) if baseline else None
            return Run(config, out, execution, [Target("", config, out, shared)], resolved)
        resolved = {model.name: resolve_train_sampling(config.pair(model.name), mismatch) for model in config.trained}
        shared = baseline_table(config, out)
        targets = [Target(name, pair.config, model_directory(out, name), shared) for name, pair in resolved.items()]
        return Run(config, out, execution, targets, resolved)

    @property
    def is_many(self) -> bool:
        return isinstance(self.config, ManyProbesConfig)

    @property
    def shared_inputs(self) -> list[Path]:
        traces = [traces_path(Path(source.path)) for source in self.config.traces]
        return [local_path(self.config.baseline), *traces]

    def inputs(self, target: Target) -> list[Path]:
        """Of one target: all, or the trained model where the others are those of the run."""
        trained, (baseline, *traces) = local_path(target.config.trained), self.shared_inputs
        return [trained] if self.is_many else [baseline, trained, *traces]

    def with_earlier(self) -> ProbeConfig | ManyProbesConfig:
        """The settings with the models that earlier runs probed."""
        file = self.out / run_dir.CONFIG
        if not isinstance(self.config, ManyProbesConfig) or not (self.out / MODELS).exists():
            return self.config
        earlier = load(ManyProbesConfig, read_yaml(file), str(file)).trained
        given = {model.name for model in self.config.trained}
        kept = [m for m in earlier if m.name not in given and model_directory(self.out, m.name).exists()]
        return self.config.model_copy(update={"trained": (*kept, *self.config.trained)})

    @property
    def tables(self) -> list[ShardedTable]:
        """Raises ValueError for a place that cannot be used."""
        return [table for target in self.targets for table in (target.baseline, target.table) if table]

    def is_done(self, overwrite: bool) -> bool:
        """Whether nothing is left to do. Changes nothing.

        Raises ValueError where `out` or the inputs cannot be used.
        """
        out = self.out
        changeable = ("trained",) if self.is_many else ()
        if self.is_many and not overwrite and any((out / name).exists() for name in ("positions", "summary.json")):
            raise ValueError(f"{out} holds the probe of one model: choose another --out for several, or --overwrite it")
        if not self.is_many and not overwrite and (out / MODELS).exists():
            given = self.targets[0].config.trained
            raise ValueError(
                f"{out} holds the probe of several models: name this one, --trained NAME={given}, to add it, or choose"
                " another --out"
            )
        run_dir.check_claim(out, self.config, RESULTS, overwrite, changeable)
        for target in self.targets if self.is_many else ():
            run_dir.check_claim(target.directory, target.config, RESULTS, overwrite)
        _ = self.tables  # before anything is written
        inputs = [path for target in self.targets for path in self.inputs(target)]
        for path in [*self.shared_inputs, *inputs]:
            if not path.exists():
                raise ValueError(f"{path} does not exist: name a model or traces that exist")
        summaries = [target.directory / "summary.json" for target in self.targets]
        shared = self.targets[0].baseline if self.is_many else None
        if shared and any(len(shared.files()) < len(target.table.files()) for target in self.targets):
            return False
        if overwrite or not all(file.exists() and not ProbeSummary.read(file).failed for file in summaries):
            return False
        self.claim(overwrite)
        return True

    def claim(self, overwrite: bool) -> None:
        """Make `out` the home of this run, and a directory in it that of each of several models."""
        if overwrite and self.config.table_dir:
            for table in self.tables:
                table.clear()
        device, seed = device_name(), self.config.seed
        if self.is_many:
            config = self.config if overwrite else self.with_earlier()
            run_dir.claim(self.out, config, RESULTS, overwrite, ("trained",))
            write_manifest(self.out, device, seed, self.shared_inputs)
        for target in self.targets:
            run_dir.claim(target.directory, target.config, RESULTS, overwrite)
            write_manifest(target.directory, device, seed, self.inputs(target))
