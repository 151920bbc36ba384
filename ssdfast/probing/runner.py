"""The probe: two models read the same traces, and every completion position gets its statistics.

A part is a number of traces, written whole: a run that was killed goes on at the first part that is missing,
and ends with the same bytes.

Shape legend: N rows of a block, S scored positions of a trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from .. import models, rundir, traces
from ..config import DecodingConfig, ProbeConfig
from ..kernels import Decoding, ProbeSpec, ProbeStats, linear_probe_stats
from ..models import LanguageModel
from ..progress import progress, say
from ..traces import Trace
from . import position_classes, token_classes
from .summary import summarize

RESULTS = ("probe", "summary.json", "report.html")

Rows = tuple[Tensor, Tensor, Tensor]  # hidden states [N, H] of a and of b, the tokens [N] they predict


@dataclass(frozen=True)
class Labelled:
    label: str
    trace: Trace


def probe(config: ProbeConfig, out: Path, overwrite: bool = False) -> None:
    """Fill `out` with config.yaml, manifest.json, probe/part-*.parquet, probe/vocabulary.json and summary.json.

    Finishes what an earlier run with the same settings left; does nothing where all is there.
    Raises ValueError for models that do not fit together and for traces that do not fit the models.
    """
    rundir.claim(out, config, RESULTS, overwrite)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    inputs = [config.baseline, config.trained, *(source.path for source in config.traces)]
    for path in inputs:
        if not Path(path).exists():
            raise ValueError(f"there is nothing at {path}: name a model or traces that exist")
    rundir.write_manifest(out, device, config.seed, map(Path, inputs))
    if (out / "summary.json").exists():
        return
    rundir.sweep(out / "probe")
    counts = _write_parts(config, out / "probe")
    summary = summarize(out / "probe", config.seed)
    settings = {**config.model_dump(mode="json"), **counts}
    rundir.write_json(out / "summary.json", {**summary, "settings": settings, "class_names": token_classes.CLASS_NAMES})


def _write_parts(config: ProbeConfig, directory: Path) -> dict[str, int]:
    a, b = models.load(config.baseline, config.dtype), models.load(config.trained, config.dtype)
    models.check_same_vocabulary(a, b)
    kept, overlong = _survey(config, a, b)
    if overlong:
        say(f"{overlong} traces are longer than the models' context and are skipped")
    measure = _Measure(a, b, _spec(config, token_classes.classify(a.tokenizer, a.vocabulary)), config)
    source, index = _traces(config, a, b), 0
    with progress("probing", kept, "traces") as advance:
        while part := list(islice(source, config.traces_per_part)):
            path = traces.part_path(directory, index)
            if not path.exists():
                with rundir.atomic(path) as temporary:
                    pq.write_table(measure(part), temporary, compression="zstd")
            advance(len(part))
            index += 1
    texts = {str(i): a.tokenizer.decode([i]) for i in _ids_within(sorted(directory.glob("part-*.parquet")))}
    rundir.write_json(directory / "vocabulary.json", texts)
    return {"overlong_skipped": overlong}


def _survey(config: ProbeConfig, a: LanguageModel, b: LanguageModel) -> tuple[int, int]:
    """(traces to probe, overlong ones), found before any work is done. Raises ValueError for the first unfit one."""
    kept = overlong = 0
    seen: set[tuple[str, str]] = set()
    for source in config.traces:
        for trace in traces.read(Path(source.path)):
            if (source.label, trace.trace_id) in seen:
                raise ValueError(
                    f"{trace} is there twice under the label {source.label!r}: give each source its own label"
                )
            seen.add((source.label, trace.trace_id))
            traces.check_ids(trace, a.vocabulary)
            if len(trace) > _context(a, b):
                if config.overlong == "error":
                    raise ValueError(
                        f"{trace} has {len(trace)} tokens, the models' context is {_context(a, b)}:"
                        " leave such traces out with --overlong skip"
                    )
                overlong += 1
            elif len(trace.completion_ids):
                kept += 1
    if not kept:
        where = ", ".join(source.path for source in config.traces)
        raise ValueError(f"there is nothing to probe: {where} holds no completion tokens within the models' context")
    return kept, overlong


def _traces(config: ProbeConfig, a: LanguageModel, b: LanguageModel) -> Iterator[Labelled]:
    """The traces that have positions to score, in order."""
    for source in config.traces:
        for trace in traces.read(Path(source.path)):
            if len(trace.completion_ids) and len(trace) <= _context(a, b):
                yield Labelled(source.label, trace)


def _context(a: LanguageModel, b: LanguageModel) -> float:
    return min(a.context, b.context)


def _spec(config: ProbeConfig, token_class: Tensor) -> ProbeSpec:
    def decoding(setting: DecodingConfig) -> Decoding:
        return Decoding(setting.temperature, setting.top_k, setting.top_p)

    return ProbeSpec(
        top=config.top,
        decoding=decoding(config.decoding),
        train=decoding(config.train),
        temperatures=config.temperatures,
        token_class=token_class,
        n_classes=len(token_classes.CLASS_NAMES),
    )


@dataclass
class _Measure:
    """Traces in, a table of positions out."""

    a: LanguageModel
    b: LanguageModel
    spec: ProbeSpec
    config: ProbeConfig

    def __call__(self, part: list[Labelled]) -> pa.Table:
        columns: dict[str, list[np.ndarray]] = {}
        for hidden_a_NH, hidden_b_NH, token_N in _blocks(self._scored(part), self.config.max_rows):
            stats = linear_probe_stats(hidden_a_NH, self.a.head, hidden_b_NH, self.b.head, token_N, self.spec)
            for name, column in _columns(stats):
                columns.setdefault(name, []).append(column)
        return self._table(part, {name: np.concatenate(blocks) for name, blocks in columns.items()})

    def _scored(self, part: list[Labelled]) -> Iterator[Rows]:
        for item in part:
            token_S = torch.tensor(item.trace.completion_ids, dtype=torch.int64, device=self.a.device)
            yield self.a.hidden_states(item.trace), self.b.hidden_states(item.trace), token_S

    def _table(self, part: list[Labelled], columns: dict[str, np.ndarray]) -> pa.Table:
        lengths = [len(item.trace.completion_ids) for item in part]
        row_of = pa.array(np.repeat(np.arange(len(part)), lengths))
        token_N = np.concatenate([item.trace.completion_ids for item in part]).astype(np.int32)
        table: dict[str, pa.Array] = {
            "trace_id": pa.array([item.trace.trace_id for item in part]).take(row_of),
            "problem_id": pa.array([item.trace.problem_id for item in part]).take(row_of),
            "label": pa.array([item.label for item in part]).take(row_of),
            "position": pa.array(np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])),
            "token_id": pa.array(token_N),
        }
        table |= {name: _arrow(values) for name, values in columns.items()}
        top_p = np.exp(columns["a_top_logprobs"][:, :2])
        codes = position_classes.classify(
            top_p[:, 0], top_p[:, 1], columns["a_nucleus_size"], columns["a_tail_mass"], self.config.classes
        )
        table["position_class"] = pa.DictionaryArray.from_arrays(codes, list(position_classes.POSITION_CLASSES))
        top_a_N, top_b_N = columns["a_top_ids"][:, 0], columns["b_top_ids"][:, 0]
        assert self.spec.token_class is not None
        in_class_V = (self.spec.token_class == token_classes.SELF_CORRECTION).numpy()
        table["swap"] = pa.array(position_classes.swaps(top_a_N, top_b_N))
        table["self_correction"] = pa.array(position_classes.self_corrections(top_a_N, token_N, in_class_V))
        return pa.table(table)


def _blocks(scored: Iterable[Rows], max_rows: int) -> Iterator[Rows]:
    """Rows of several traces in blocks of `max_rows`, the last one shorter: small products waste a processor."""
    waiting: list[Rows] = []
    rows = 0
    for item in scored:
        waiting.append(item)
        rows += len(item[2])
        if rows < max_rows:
            continue
        joined = _join(waiting)
        whole = rows - rows % max_rows
        for start in range(0, whole, max_rows):
            yield _rows(joined, start, start + max_rows)
        rows -= whole
        waiting = [_rows(joined, whole, whole + rows)] if rows else []
    if waiting:
        yield _join(waiting)


def _rows(item: Rows, start: int, stop: int) -> Rows:
    a, b, token = item
    return a[start:stop], b[start:stop], token[start:stop]


def _join(items: list[Rows]) -> Rows:
    a, b, token = zip(*items, strict=True)
    return torch.cat(a), torch.cat(b), torch.cat(token)


def _columns(stats: ProbeStats) -> Iterator[tuple[str, np.ndarray]]:
    """Every column as float32 or int32, [N] or [N, w], by its name in the table."""
    for prefix, group in (("a_", stats.a), ("b_", stats.b), ("", stats.pair)):
        for name, column in vars(group).items():
            dtype = torch.float32 if column.is_floating_point() else torch.int32
            wide = column.flatten(1) if column.dim() > 1 else column
            yield prefix + name, wide.to(dtype).cpu().numpy()


def _arrow(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _ids_within(parts: list[Path]) -> list[int]:
    """Every token id that the parts mention."""
    found: set[int] = set()
    for part in parts:
        table = pq.read_table(part, columns=["token_id", "a_top_ids", "b_top_ids"])
        for name in table.column_names:
            column = table[name].combine_chunks()
            found.update(np.unique((column if name == "token_id" else column.flatten()).to_numpy()).tolist())
    return sorted(found - {-1})
