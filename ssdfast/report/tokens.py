"""The texts of the tokens that a page mentions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from .sanitize import inert


@dataclass
class TokenTable:
    """Each text once, in order of first use."""

    vocabulary: dict[int, str]
    place: dict[int, int] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    size: int = 0  # bytes that the table takes on the page

    def index(self, token_id: int) -> int:
        if token_id not in self.place:
            self.place[token_id] = len(self.texts)
            text = inert(self.vocabulary.get(token_id, f"⟨token {token_id}⟩"))
            self.texts.append(text)
            self.size += len(json.dumps(text)) + len(str(token_id)) + 2
        return self.place[token_id]

    def keep_first(self, count: int) -> None:
        """Forget the tokens that came after the first ``count``."""
        self.place = dict(list(self.place.items())[:count])
        del self.texts[count:]
