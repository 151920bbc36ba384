"""The settings of every stage: strict, frozen, complete, and importable without torch.

A stage's settings come from its defaults, then a preset, then a YAML file, then flags; what they resolve to is
saved as ``config.yaml`` beside the results.
"""

from .attribute import AttributeConfig
from .base import NamedPath, Settings, dump, load, read_yaml
from .conventions import ConventionsConfig
from .evaluate import EvalConfig, EvalExecution, ExtractionConfig, SequentialConfig, SweepConfig
from .plan import PlanConfig
from .probe import (
    BASELINE,
    BaselinePath,
    ExecutionConfig,
    ManyProbesConfig,
    PositionClassConfig,
    PositionConfig,
    ProbeConfig,
    ProbeSettings,
    TokenClassConfig,
    probe_class,
    trained_words,
)
from .sample import (
    ColumnsConfig,
    FewshotExample,
    LoopConfig,
    ProblemsConfig,
    PromptConfig,
    SampleConfig,
    SampleExecution,
    ServerConfig,
    VllmConfig,
)
from .sampling_params import PRESETS, EngineSamplingParams, Preset, SamplingParams
from .study import ArmConfig, StudyConfig, StudyExecution
from .train import SCHEDULES, TrainConfig, TrainExecution, TrainingRunConfig

__all__ = [
    "BASELINE",
    "PRESETS",
    "SCHEDULES",
    "ArmConfig",
    "AttributeConfig",
    "BaselinePath",
    "ColumnsConfig",
    "ConventionsConfig",
    "EngineSamplingParams",
    "EvalConfig",
    "EvalExecution",
    "ExecutionConfig",
    "ExtractionConfig",
    "FewshotExample",
    "LoopConfig",
    "ManyProbesConfig",
    "NamedPath",
    "PlanConfig",
    "PositionClassConfig",
    "PositionConfig",
    "Preset",
    "ProbeConfig",
    "ProbeSettings",
    "ProblemsConfig",
    "PromptConfig",
    "SampleConfig",
    "SampleExecution",
    "SamplingParams",
    "SequentialConfig",
    "ServerConfig",
    "Settings",
    "StudyConfig",
    "StudyExecution",
    "SweepConfig",
    "TokenClassConfig",
    "TrainConfig",
    "TrainExecution",
    "TrainingRunConfig",
    "VllmConfig",
    "dump",
    "load",
    "probe_class",
    "read_yaml",
    "trained_words",
]
