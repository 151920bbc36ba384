"""The JSON files that stages hand to each other, each with one model that writer and reader share."""

from .attribution import (
    COMPONENT_TITLES,
    ArmResults,
    AttributionResults,
    AttributionSettings,
    Component,
    ControlComparison,
    Curves,
    DecodingCurves,
    FitParameters,
    GroupMetrics,
    MetricTest,
    Shift,
    SingleFit,
    Verdict,
)
from .base import Interval, JsonFile, Record
from .evaluation import Comparison, EvaluationResults, LengthSummary, RunResults, RunSelection, SequentialResults
from .manifest import Manifest
from .probe import FailedTrace, GroupSummary, ProbeSummary, read_vocabulary, vocabulary_file, write_vocabulary
from .sampling import SamplingSummary
from .stage import StageDone
from .training import DescribedTraces, StepMetrics, TraceSelection, TrainingRecord, read_metrics
from .trajectory import Trajectory, TrajectoryPoint

__all__ = [
    "COMPONENT_TITLES",
    "ArmResults",
    "AttributionResults",
    "AttributionSettings",
    "Comparison",
    "Component",
    "ControlComparison",
    "Curves",
    "DecodingCurves",
    "DescribedTraces",
    "EvaluationResults",
    "FailedTrace",
    "FitParameters",
    "GroupMetrics",
    "GroupSummary",
    "Interval",
    "JsonFile",
    "LengthSummary",
    "Manifest",
    "MetricTest",
    "ProbeSummary",
    "Record",
    "RunResults",
    "RunSelection",
    "SamplingSummary",
    "SequentialResults",
    "Shift",
    "SingleFit",
    "StageDone",
    "StepMetrics",
    "TraceSelection",
    "TrainingRecord",
    "Trajectory",
    "TrajectoryPoint",
    "Verdict",
    "read_metrics",
    "read_vocabulary",
    "vocabulary_file",
    "write_vocabulary",
]
