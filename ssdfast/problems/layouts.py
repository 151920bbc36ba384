"""Rows of other programs as rows of problems where there is one way to read them, else the conversion in a sentence.

Alpaca           instruction, input: one question, the instruction and then the input
ShareGPT, TRL    conversations, messages or prompt, a list of turns: the only user turn
verl             prompt, reward_model.ground_truth, data_source
lm-eval          --log_samples: doc, target
inspect          a sample of a log: id, input, target
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .columns import lower_keys, value_of

Turns = list[tuple[str, str]]
"""role and text of each turn"""
CONVERSATIONS = ("prompt", "input", "messages", "conversations", "conversation")
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
_SYSTEM = ("system", "developer")


def problem_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the columns question, answer, problem_id and source of a known layout; any other row unchanged.

    Raises ValueError that says how to convert a row of a known layout that is no single question.
    """
    keys = lower_keys(row)
    if is_lm_eval(keys):
        return _from_lm_eval(keys)
    if is_inspect_sample(keys):
        return _from_inspect(keys)
    refuse_unread(keys)
    if is_batch_output(keys):
        raise ValueError("output of an OpenAI batch holds no question; name the file that the batch was made from")
    added: dict[str, Any] = {}
    if isinstance(keys.get("reward_model"), Mapping):
        added = {"answer": keys["reward_model"].get("ground_truth"), "source": keys.get("data_source")}
        added = {name: value for name, value in added.items() if value is not None and value_of(keys, name) is None}
    if (question := question_in(keys)) is not None:
        added["question"] = question
    return {**row, **added}


def question_in(keys: Mapping[str, Any]) -> str | None:
    """The question of an instruction and its input, or of a conversation; None for a row with a column of the question.
    Raises ValueError for a conversation that is no single question."""
    if any(isinstance(keys.get(name), str) for name in ("question", "problem", "prompt", "query")):
        return None
    if keys.get("instruction") is not None:
        return _from_instruction(keys["instruction"], keys.get("input"))
    for name in CONVERSATIONS:
        if isinstance(keys.get(name), str):
            return None
        if (turns := turns_of(keys.get(name))) is not None:
            return only_question(turns)
    return None


def _from_instruction(instruction: Any, given: Any) -> str:
    if not isinstance(instruction, str) or not isinstance(given, str | None):
        raise ValueError("'instruction' and 'input' are not both text; write the question under the key question")
    return f"{instruction}\n\n{given}" if given and given.strip() else instruction


def turns_of(value: Any) -> Turns | None:
    """The turns of a conversation, with roles as OpenAI names them; None for anything else."""
    if not isinstance(value, list) or not value or not all(isinstance(turn, Mapping) for turn in value):
        return None
    turns = []
    for turn in value:
        role = turn.get("role") or turn.get("from")
        content = turn.get("content") if turn.get("content") is not None else turn.get("value")
        if not isinstance(role, str):
            return None
        turns.append((_ROLES.get(role, role), _text(content)))
    return turns


def _text(content: Any) -> str:
    """The text of a turn. Raises ValueError where there is anything else, such as an image."""
    texts: list[str] = []
    for part in [content] if isinstance(content, str | Mapping) else content or []:
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str):
            raise ValueError("a turn of its conversation holds something other than text; leave it out")
        texts.append(text)
    return "".join(texts)


def only_question(turns: Turns) -> str:
    """The only user turn. Raises ValueError where a question would lose what stands before it."""
    if any(role in _SYSTEM and text.strip() for role, text in turns):
        raise ValueError(
            "its conversation has a system turn, which a question would lose; set prompt.system to it and remove the"
            " turn"
        )
    roles = [role for role, _ in turns if role not in _SYSTEM]
    if roles.count("user") != 1 or roles[0] != "user":
        raise ValueError(
            f"its conversation has {roles.count('user')} user turns in {len(roles)}, and a problem is one question;"
            " write a line per question, with the keys question and answer"
        )
    return next(text for role, text in turns if role == "user")


def is_lm_eval(keys: Mapping[str, Any]) -> bool:
    return "doc" in keys and ("resps" in keys or "arguments" in keys)


def is_inspect_sample(keys: Mapping[str, Any]) -> bool:
    output = keys.get("output")
    return "input" in keys and "target" in keys and isinstance(output, Mapping) and "choices" in output


def is_batch_output(keys: Mapping[str, Any]) -> bool:
    return "custom_id" in keys and "response" in keys


def refuse_unread(keys: Mapping[str, Any]) -> None:
    """Raises ValueError with the conversion, for what is known and not read."""
    if "eval" in keys and ("samples" in keys or "plan" in keys):
        raise ValueError(
            "a whole log of inspect, not a sample; write a line per sample, as"
            " inspect log dump LOG | jq -c '.samples[]' does"
        )
    if "results" in keys and ("n_shot" in keys or "n-shot" in keys or "configs" in keys):
        raise ValueError("results of lm-eval without samples; run it with --log_samples and name samples_TASK.jsonl")
    if "custom_id" in keys and "body" in keys and "response" not in keys:
        raise ValueError(
            "a request of an OpenAI batch; write its user message under question, custom_id under problem_id"
        )


def lm_eval_doc(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a sample of lm-eval, with the columns of a problem and lower-case keys."""
    doc = keys["doc"]
    if not isinstance(doc, Mapping):
        raise ValueError("'doc' of lm-eval is not an object; run it again with --log_samples")
    doc = lower_keys(problem_row(doc))
    if "choices" in doc or not isinstance(keys.get("target", ""), str | int | float):
        raise ValueError("a multiple choice of lm-eval; write the question with its choices under the key question")
    if not isinstance(value_of(doc, "question"), str):
        raise ValueError(f"'doc' of lm-eval has no question among {', '.join(doc)}; write it under the key question")
    return doc


def _from_lm_eval(keys: Mapping[str, Any]) -> dict[str, Any]:
    doc = lm_eval_doc(keys)
    answer = keys.get("target")
    row = {
        "problem_id": value_of(doc, "problem_id"),
        "question": value_of(doc, "question"),
        "answer": value_of(doc, "answer") if answer in (None, "") else answer,
    }
    return {name: value for name, value in row.items() if value is not None}


def inspect_question(keys: Mapping[str, Any]) -> str:
    turns = turns_of(keys["input"])
    question = keys["input"] if turns is None else only_question(turns)
    if keys.get("choices"):
        raise ValueError("a multiple choice of inspect; write the question with its choices under the key question")
    if not isinstance(question, str):
        raise ValueError("'input' of inspect is neither text nor a conversation; write the question under question")
    return question


def _from_inspect(keys: Mapping[str, Any]) -> dict[str, Any]:
    target = keys["target"]
    if isinstance(target, list) and len(target) > 1:
        raise ValueError(f"'target' of inspect lists {len(target)} answers; write the answer under the key answer")
    return {"problem_id": keys.get("id"), "question": inspect_question(keys), "answer": target}
