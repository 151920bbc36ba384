"""One streamed response of a vLLM server: parsed event by event, and validated.

An invalid response (another model, ids beyond the vocabulary, another prompt, a text that does not match the ids) is a
ValueError: the server does not fit the settings, so all its responses are invalid.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from .engine import Completion, Request, Rules
from .partial_completion import PartialCompletion, TopTokens, top_tokens

_ID = "token_id:"
_LONGEST_QUOTE = 200


class Tokenizer(Protocol):
    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> Any: ...


class RequestFailed(Exception):
    """The request failed; a retry may succeed."""

    def __init__(self, reason: str, wait: float = 0.0, overloaded: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        """The number of seconds that the server asks to wait."""
        self.overloaded = overloaded
        """The server is overloaded and otherwise works."""


class RequestRejected(Exception):
    """The server rejects this request; a retry cannot succeed."""


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events. Raises RequestFailed for an event that is no
    JSON object.

    Lines end at \\n only: text in JSON may contain other line separators, such as U+2028.
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
                    raise RequestFailed("it sent an event that is not JSON") from None
                if not isinstance(event, dict):
                    raise RequestFailed("it sent an event that is not an object")
                yield event


def error_message(body: bytes | str, key: str) -> str:
    """The server's error message on one line, shortened, without the key."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    try:
        value = json.loads(text)
        text = str((value.get("error") or value)["message"])
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    return _quote(text.replace(key, "***") if key else text)


def retry_after(value: str | None) -> float:
    """The seconds of a Retry-After header (a number or a date); 0 where there is none."""
    try:
        return max(float(value or 0), 0.0)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(value or "") - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return 0.0


class ServerResponse:
    """The response of a server to one request, as far as it was received."""

    def __init__(
        self, request: Request, rules: Rules, url: str, names: frozenset[str], tokenizer: Tokenizer, vocabulary: int
    ) -> None:
        self.request, self.rules, self.url = request, rules, url
        self.names, self.tokenizer, self.vocabulary = names, tokenizer, vocabulary
        self.partial = PartialCompletion(request, rules)
        self.text: list[str] = []
        self.finish_reason = ""
        self.looped = False

    def read(self, event: Mapping[str, Any], key: str) -> int:
        """Process an event; returns its number of tokens. Raises RequestFailed, RequestRejected, and ValueError for an
        invalid response."""
        if error := event.get("error"):
            code = error.get("code") if isinstance(error, dict) else None
            rejected = isinstance(code, int) and 400 <= code < 500
            raise (RequestRejected if rejected else RequestFailed)(error_message(json.dumps(event), key))
        if (model := event.get("model")) is not None and model not in self.names:
            raise self._invalid(f"responds as the model {model!r}, requested was {self._requested()}")
        before = len(self.partial.ids)
        for choice in event.get("choices") or ():
            self._read_choice(choice)
        return len(self.partial.ids) - before

    def _read_choice(self, choice: Mapping[str, Any]) -> None:
        prompt = choice.get("prompt_token_ids")
        if prompt is not None and prompt != self.request.prompt_ids:
            raise self._invalid(
                f"read a different prompt than was sent: {_first_difference(prompt, self.request.prompt_ids)}"
            )
        text, ids = choice.get("text") or "", choice.get("token_ids") or []
        finish_reason = choice.get("finish_reason") or ""
        if (text or finish_reason in ("stop", "length")) and not (ids or self.partial.ids):
            raise self._invalid("returns text without token ids: use vLLM 0.10.2 or newer (return_token_ids)")
        for token in ids:
            if type(token) is not int or not 0 <= token < self.vocabulary:
                raise self._invalid(f"sampled the token {token!r}, the vocabulary has {self.vocabulary} entries")
        self.text.append(text)
        try:
            self.looped = self.partial.add(ids, self._top_tokens(choice)) or self.looped
        except ValueError as error:
            raise self._invalid(str(error)) from None
        if finish_reason:
            self._finish(finish_reason)

    def _top_tokens(self, choice: Mapping[str, Any]) -> list[TopTokens]:
        if not self.rules.top_logprobs:
            return []
        steps = (choice.get("logprobs") or {}).get("top_logprobs") or []
        if any(not name.startswith(_ID) for step in steps[:1] for name in step):
            raise ValueError("returns log-probabilities by text, not by id: use a newer vLLM")
        by_id = [{int(name.removeprefix(_ID)): logprob for name, logprob in step.items()} for step in steps]
        return [top_tokens(step, self.rules.top_logprobs) for step in by_id]

    def _finish(self, finish_reason: str) -> None:
        """Validate the end of the completion. A request that the server aborted is retried."""
        if finish_reason in ("abort", "error"):
            raise RequestFailed(f"the server ended the completion ({finish_reason})")
        ids, ends = self.partial.ids, self.rules.end_ids
        if any(token in ends for token in ids[:-1]) or len(ids) > self.request.max_new_tokens:
            raise self._invalid("continues after the end of a completion: it ignores stop_token_ids or max_tokens")
        if finish_reason == "stop" and ids[-1] not in ends:
            raise self._invalid(f"ended a completion at token {ids[-1]}, which is no end of text ({sorted(ends)})")
        if finish_reason == "length" and len(ids) < self.request.max_new_tokens and not self.looped:
            raise self._invalid(
                f"ended a completion after {len(ids)} tokens where {self.request.max_new_tokens} were requested:"
                " start it with a larger --max-model-len"
            )
        if finish_reason not in ("stop", "length"):
            raise self._invalid(f"ended a completion for an unknown reason, {_quote(finish_reason)!r}")
        self.finish_reason = finish_reason

    def completion(self) -> Completion:
        """The finished completion. Raises RequestFailed where the stream was interrupted, ValueError where text and ids
        differ."""
        if self.looped:
            return self.partial.completion("loop")
        if not self.finish_reason:
            raise RequestFailed("the stream was interrupted before the end of the completion")
        stopped = self.finish_reason == "stop"
        ids = self.partial.ids[:-1] if stopped else self.partial.ids  # the text leaves the end of text out
        text, decoded = "".join(self.text), str(self.tokenizer.decode(ids, skip_special_tokens=True))
        if not same_text(text, decoded):
            raise self._invalid(
                f"has a different tokenizer: the text of a completion begins {_quote(text)[:60]!r},"
                f" its ids decode to {_quote(decoded)[:60]!r}"
            )
        return self.partial.completion("stop" if stopped else "length")

    def _requested(self) -> str:
        return " or ".join(sorted(map(repr, self.names)))

    def _invalid(self, what: str) -> ValueError:
        return ValueError(f"{self.url} {what}")


def same_text(text: str, decoded: str) -> bool:
    """Whether a streamed text equals the text of the ids decoded at once.

    Spaces may differ. From the first incomplete character on, a stream may contain more or less of it.
    """
    text, decoded = "".join(text.split()), "".join(decoded.split())
    whole, incomplete, _ = decoded.partition("\ufffd")
    return text[: len(whole)] == whole[: len(text)] if incomplete else text == decoded


def _first_difference(received: Sequence[Any], sent: Sequence[int]) -> str:
    if len(received) != len(sent):
        return f"{len(received)} tokens, not {len(sent)}"
    position = next(i for i, (a, b) in enumerate(zip(received, sent, strict=True)) if a != b)
    return f"token {position} is {received[position]!r}, not {sent[position]}"


def _quote(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_QUOTE else line[:_LONGEST_QUOTE] + "…"
