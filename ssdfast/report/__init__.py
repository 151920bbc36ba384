"""The report: one self-contained page that shows whether a shift is self-distillation or just training."""

from .page import write_report

__all__ = ["write_report"]
