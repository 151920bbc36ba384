"""Rows of other programs as rows of completions, with lower-case keys.

Layouts are those of `problems.layouts`, whose answers are completions here, and the output of OpenAI's batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..problems.columns import lower_keys, value_of
from ..problems.layouts import (
    CONVERSATIONS,
    inspect_question,
    is_batch_output,
    is_inspect_sample,
    is_lm_eval,
    lm_eval_doc,
    only_question,
    question_in,
    refuse_unread,
    turns_of,
)


class CompletionRows:
    """Reads the rows of one file. Two filters of a sample of lm-eval are one sample, so the second is left out."""

    def __init__(self) -> None:
        self._filter_by_doc: dict[tuple[str, str], str] = {}

    def read(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The row with problem_id or question, and text, once for each completion that has a reason to end of its own;
        empty for a repeated sample. Raises ValueError that says how to convert a row that is no completion."""
        keys = lower_keys(row)
        if is_lm_eval(keys):
            return [] if self._is_repeated(keys) else [_from_lm_eval(keys)]
        if is_inspect_sample(keys):
            return [_from_inspect(keys)]
        if is_batch_output(keys):
            return _from_batch(keys)
        refuse_unread(keys)
        return [_from_conversation(keys)]

    def _is_repeated(self, keys: Mapping[str, Any]) -> bool:
        name = str(keys.get("filter"))
        doc = (str(keys.get("doc_id")), str(keys.get("doc_hash")))
        return self._filter_by_doc.setdefault(doc, name) != name


def _from_lm_eval(keys: Mapping[str, Any]) -> dict[str, Any]:
    doc = lm_eval_doc(keys)
    responses = keys.get("resps")
    flat = responses[0] if isinstance(responses, list) and len(responses) == 1 else None
    if not isinstance(flat, list) or not flat or not all(isinstance(text, str) for text in flat):
        raise ValueError("'resps' of lm-eval are not generated texts; grade a task of the type generate_until")
    return {
        "problem_id": value_of(doc, "problem_id"),
        "question": value_of(doc, "question"),
        "text": flat,
        "prompt": _lm_eval_prompt(keys.get("arguments")),
    }


def _lm_eval_prompt(arguments: Any) -> str | None:
    """The first argument of the first request, which newer versions name and older ones list."""
    match arguments:
        case {"gen_args_0": {"arg_0": str(prompt)}} | [[str(prompt), *_], *_]:
            return prompt
    return None


def _from_inspect(keys: Mapping[str, Any]) -> dict[str, Any]:
    output, epoch = keys["output"], keys.get("epoch")
    if keys.get("error"):
        raise ValueError("a sample of inspect that failed; run inspect eval-retry, or leave the sample out")
    choices = output["choices"]
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], Mapping):
        raise ValueError("'output' of inspect does not hold one choice; write a line per completion, with the key text")
    content = _content(choices[0], "inspect")
    usage = output.get("usage")
    return {
        "problem_id": keys.get("id"),
        "question": inspect_question(keys) if keys.get("id") is None else None,
        "text": content,
        "sample": epoch - 1 if isinstance(epoch, int) and epoch > 0 else None,
        "finish_reason": choices[0].get("stop_reason"),
        "tokens": usage.get("output_tokens") if isinstance(usage, Mapping) else None,
    }


def _from_batch(keys: Mapping[str, Any]) -> list[dict[str, Any]]:
    response = keys["response"]
    body = response.get("body") if isinstance(response, Mapping) else None
    choices = body.get("choices") if isinstance(body, Mapping) else None
    if keys.get("error") or not isinstance(choices, list) or not choices:
        raise ValueError(
            f"the request {keys['custom_id']!r} of an OpenAI batch has no completion; send it again, or leave it out"
        )
    assert isinstance(body, Mapping)
    usage = body.get("usage")
    tokens = usage.get("completion_tokens") if len(choices) == 1 and isinstance(usage, Mapping) else None
    return [
        {
            "problem_id": keys["custom_id"],
            "text": _content(choice, "an OpenAI batch"),
            "finish_reason": choice.get("finish_reason"),
            "tokens": tokens,
        }
        for choice in choices
    ]


def _content(choice: Mapping[str, Any], origin: str) -> str:
    """The text of a choice. Reasoning that a server has parsed off is no part of it."""
    message = choice.get("message")
    content = message.get("content") if isinstance(message, Mapping) else choice.get("text")
    if isinstance(content, list):
        parts = [part for part in content if not (isinstance(part, Mapping) and part.get("type") == "reasoning")]
        content = "".join(str(part.get("text", "")) if isinstance(part, Mapping) else str(part) for part in parts)
    if not isinstance(content, str):
        raise ValueError(f"a choice of {origin} has no text; request it again, or leave the line out")
    return content


def _from_conversation(keys: dict[str, Any]) -> dict[str, Any]:
    """A row whose completion, question or prompt is a list of turns, or an instruction and its input."""
    completion = turns_of(keys.get("completion"))
    if completion is not None:
        if [role for role, _ in completion] != ["assistant"]:
            raise ValueError("'completion' is not one assistant turn; write its text under the key text")
        keys["completion"] = completion[0][1]
    elif value_of(keys, "text") is None:
        if keys.get("chosen") is not None and keys.get("rejected") is not None:
            raise ValueError("a pair of 'chosen' and 'rejected' completions; write the one to grade under the key text")
        _split_conversation(keys)
    if value_of(keys, "problem_id") in (None, "") and (question := question_in(keys)) is not None:
        keys["question"] = question
    return keys


def _split_conversation(keys: dict[str, Any]) -> None:
    """The last assistant turn of a conversation becomes the text, and the turns before it the prompt."""
    name = next((name for name in CONVERSATIONS if turns_of(keys.get(name)) is not None), None)
    turns = turns_of(keys.get(name)) if name else None
    if not name or not turns or turns[-1][0] != "assistant":
        return
    if not isinstance(value_of(keys, "question"), str) and value_of(keys, "problem_id") in (None, ""):
        keys["question"] = only_question(turns[:-1])
    keys["text"] = turns[-1][1]
    keys["prompt"] = keys.pop(name)[:-1]
