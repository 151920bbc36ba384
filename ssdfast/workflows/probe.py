"""``ssdfast probe``: the probe of one or several trained models, their trajectory, and the page."""

from __future__ import annotations

import logging
from pathlib import Path

from .. import run_dir
from ..config import ExecutionConfig, ManyProbesConfig, ProbeConfig
from ..distributed import is_first
from ..probe_models import MODELS, finished_models
from ..schemas import FailedTrace

_log = logging.getLogger("ssdfast.probing")

TRAJECTORY = "trajectory.json"


def probe(
    config: ProbeConfig | ManyProbesConfig,
    out: Path,
    execution: ExecutionConfig | None = None,
    overwrite: bool = False,
) -> list[FailedTrace]:
    """Fill `out` as `probing.runner.probe`, which says what is returned and raised, and write report.html.

    Where at least two of the trained models are checkpoints of one training, trajectory.json has the components of
    their shift by step.
    """
    from ..probing.runner import probe as run
    from ..report import write_report

    failed = run(config, out, execution, overwrite)
    if is_first():
        if isinstance(config, ManyProbesConfig):
            _write_trajectory(out)
        write_report(out)
    return failed


def _write_trajectory(out: Path) -> None:
    """trajectory.json, unless it is that of the probes that are there."""
    from ..attribution.trajectory import trajectory

    path, probes = out / TRAJECTORY, finished_models(out)
    written = [out / MODELS, *(probe / "summary.json" for probe in probes.values())]
    newest = max(file.stat().st_mtime_ns for file in written)
    if path.exists() and path.stat().st_mtime_ns > newest:
        return
    run_dir.remove(path)
    try:
        result = trajectory(probes)
    except ValueError as error:
        _log.warning("there is no trajectory of the checkpoints: %s", error)
        return
    if result:
        result.write(path)
