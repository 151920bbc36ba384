"""``ssdfast attribute``: attribution of probes that were made one by one, outside a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import run_dir
from ..config import AttributeConfig
from ..manifest import write_manifest
from ..schemas import AttributionResults, DecodingCurves

RESULTS = ("attribution.json", "decoding_curves.json")


def attribute(
    arms: Mapping[str, Sequence[Path]], control: str, out: Path, overwrite: bool = False
) -> AttributionResults:
    """Fill `out` with config.yaml, manifest.json, attribution.json and decoding_curves.json.

    Does nothing more where they are there. arms and control: as in `attribution.attribute.attribute`, which says what
    is raised; ValueError too where `out` holds the attribution of other probes.
    """
    from ..attribution.attribute import attribute as attribute_probes
    from ..attribution.decoding_curves import decoding_curves

    paths = {name: tuple(map(str, directories)) for name, directories in arms.items()}
    config = AttributeConfig(arms=paths, control=control)
    summaries = [directory / "summary.json" for directories in arms.values() for directory in directories]
    with run_dir.lock(out):
        run_dir.check_claim(out, config, RESULTS, overwrite)
        done = all((out / name).exists() for name in RESULTS) and not overwrite
        if not done:
            results = attribute_probes(arms, control)
            curves = {arm: decoding_curves(directories[0]) for arm, directories in arms.items()}
        run_dir.claim(out, config, RESULTS, overwrite)
        write_manifest(out, "cpu", 0, summaries)
        if not done:
            DecodingCurves.model_validate({"arms": curves}).write(out / "decoding_curves.json")
            results.write(out / "attribution.json")
        return AttributionResults.read(out / "attribution.json")
