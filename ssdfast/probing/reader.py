"""A model in memory, and how it reads long traces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..chunked_forward import ReadingStrategy, prepare
from ..models import LanguageModel


@dataclass(frozen=True)
class Reader:
    model: LanguageModel

    @cached_property
    def way(self) -> ReadingStrategy:
        """Tried out when the model reads its first trace."""
        return prepare(self.model)
