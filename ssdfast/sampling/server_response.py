"""One streamed answer of a vLLM server: read event by event, and not believed.

An answer that cannot be true (another model, ids beyond the vocabulary, another prompt, a text that the ids do not say)
is a ValueError: the server is not what the settings say, and so are all its other answers.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from .engine import Completion, Request, Rules
from .partial_completion import Growing, Likeliest, ranked

_ID = "token_id:"
_LONGEST_QUOTE = 200


class Tokenizer(Protocol):
    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> Any: ...


class Failed(Exception):
    """It may work when asked again."""

    def __init__(self, reason: str, wait: float = 0.0, overloaded: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        """seconds for which the server wants to be left alone"""
        self.overloaded = overloaded
        """nothing is wrong with the server"""


class Refused(Exception):
    """The server will not answer this request, however often it is asked."""


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events. Raises Failed for what is none.

    Lines end at \\n alone: in JSON a text may hold the other characters that end lines elsewhere, such as U+2028.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                try:
                    event = json.loads(data)
                except ValueError:
                    raise Failed("it sent an event that is not JSON") from None
                if not isinstance(event, dict):
                    raise Failed("it sent an event that is not an object")
                yield event


def said(body: bytes | str, key: str) -> str:
    """What the server says went wrong, on one line, shortened, without the key."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    try:
        value = json.loads(text)
        text = str((value.get("error") or value)["message"])
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    return _quote(text.replace(key, "***") if key else text)


def retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for (a number, or a date); 0 where there is none."""
    try:
        return max(float(value or 0), 0.0)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(value or "") - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return 0.0


class Answer:
    """What one server has said to one request so far."""

    def __init__(
        self, request: Request, rules: Rules, url: str, names: frozenset[str], tokenizer: Tokenizer, vocabulary: int
    ) -> None:
        self.request, self.rules, self.url = request, rules, url
        self.names, self.tokenizer, self.vocabulary = names, tokenizer, vocabulary
        self.growing = Growing(request, rules)
        self.text: list[str] = []
        self.finish_reason = ""
        self.looped = False

    def read(self, event: Mapping[str, Any], key: str) -> int:
        """Take in an event; how many tokens it held. Raises Failed, Refused, and ValueError for what cannot be true."""
        if error := event.get("error"):
            code = error.get("code") if isinstance(error, dict) else None
            refused = isinstance(code, int) and 400 <= code < 500
            raise (Refused if refused else Failed)(said(json.dumps(event), key))
        if (model := event.get("model")) is not None and model not in self.names:
            raise self._wrong(f"answers as the model {model!r}, asked was {self._asked()}")
        before = len(self.growing.ids)
        for choice in event.get("choices") or ():
            self._read_choice(choice)
        return len(self.growing.ids) - before

    def _read_choice(self, choice: Mapping[str, Any]) -> None:
        prompt = choice.get("prompt_token_ids")
        if prompt is not None and prompt != self.request.prompt_ids:
            raise self._wrong(f"has read another prompt than it was sent: {_differ(prompt, self.request.prompt_ids)}")
        text, ids = choice.get("text") or "", choice.get("token_ids") or []
        finish_reason = choice.get("finish_reason") or ""
        if (text or finish_reason in ("stop", "length")) and not (ids or self.growing.ids):
            raise self._wrong("returns text without token ids: it has to be vLLM 0.10.2 or newer (return_token_ids)")
        for token in ids:
            if type(token) is not int or not 0 <= token < self.vocabulary:
                raise self._wrong(f"drew the token {token!r}, the vocabulary has {self.vocabulary} entries")
        self.text.append(text)
        try:
            self.looped = self.growing.take(ids, self._likeliest(choice)) or self.looped
        except ValueError as error:
            raise self._wrong(str(error)) from None
        if finish_reason:
            self._finish(finish_reason)

    def _likeliest(self, choice: Mapping[str, Any]) -> list[Likeliest]:
        if not self.rules.top_logprobs:
            return []
        steps = (choice.get("logprobs") or {}).get("top_logprobs") or []
        if any(not name.startswith(_ID) for step in steps[:1] for name in step):
            raise ValueError("log-probabilities came by text, not by id: its vLLM is too old")
        by_id = [{int(name.removeprefix(_ID)): logprob for name, logprob in step.items()} for step in steps]
        return [ranked(step, self.rules.top_logprobs) for step in by_id]

    def _finish(self, finish_reason: str) -> None:
        """Whether it may have ended there. An abort is the server's business: it is asked again."""
        if finish_reason in ("abort", "error"):
            raise Failed(f"it ended the completion by itself ({finish_reason})")
        ids, ends = self.growing.ids, self.rules.end_ids
        if any(token in ends for token in ids[:-1]) or len(ids) > self.request.max_new_tokens:
            raise self._wrong("goes on after the end of a completion: it does not heed stop_token_ids and max_tokens")
        if finish_reason == "stop" and ids[-1] not in ends:
            raise self._wrong(f"ended a completion at token {ids[-1]}, which ends none here ({sorted(ends)})")
        if finish_reason == "length" and len(ids) < self.request.max_new_tokens and not self.looped:
            raise self._wrong(
                f"ended a completion after {len(ids)} tokens where {self.request.max_new_tokens} were asked for:"
                " start it with a larger --max-model-len"
            )
        if finish_reason not in ("stop", "length"):
            raise self._wrong(f"ended a completion for a reason of its own, {_quote(finish_reason)!r}")
        self.finish_reason = finish_reason

    def completion(self) -> Completion:
        """The finished completion. Raises Failed where the stream broke off, ValueError where text and ids differ."""
        if self.looped:
            return self.growing.completion("loop")
        if not self.finish_reason:
            raise Failed("the stream broke off in the middle of a completion")
        stopped = self.finish_reason == "stop"
        ids = self.growing.ids[:-1] if stopped else self.growing.ids  # the end of text is not shown
        text, decoded = "".join(self.text), str(self.tokenizer.decode(ids, skip_special_tokens=True))
        if not same_text(text, decoded):
            raise self._wrong(
                f"has another tokenizer: the text of a completion begins {_quote(text)[:60]!r},"
                f" its ids say {_quote(decoded)[:60]!r}"
            )
        return self.growing.completion("stop" if stopped else "length")

    def _asked(self) -> str:
        return " or ".join(sorted(map(repr, self.names)))

    def _wrong(self, what: str) -> ValueError:
        return ValueError(f"{self.url} {what}")


def same_text(text: str, decoded: str) -> bool:
    """Whether a streamed text is that of the ids, decoded at once.

    Spaces may differ. From the first broken character on, a stream may show more or less of it.
    """
    text, decoded = "".join(text.split()), "".join(decoded.split())
    whole, broken, _ = decoded.partition("\ufffd")
    return text[: len(whole)] == whole[: len(text)] if broken else text == decoded


def _differ(found: Sequence[Any], sent: Sequence[int]) -> str:
    if len(found) != len(sent):
        return f"{len(found)} tokens, not {len(sent)}"
    place = next(i for i, (a, b) in enumerate(zip(found, sent, strict=True)) if a != b)
    return f"token {place} is {found[place]!r}, not {sent[place]}"


def _quote(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_QUOTE else line[:_LONGEST_QUOTE] + "…"
