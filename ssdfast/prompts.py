"""Prompts: a problem worded in a model's chat template, and the token ids that end the model's answer.

A template is a program that comes with a tokenizer. It is checked before any problem is worded: it must parse, accept
the system message, contain the question, and have a thinking mode where the settings switch one on or off.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import TemplateSyntaxError

from .config import PromptConfig
from .messages import one_line

_PROBE = "What is 6 times 7?"
_ANSWER = "It is 42."


class Prompter:
    """Words problems by `config`, in the chat template of `tokenizer` or of the file that replaces it.

    Raises ValueError for a template that is missing, does not parse, rejects the system message or the examples, omits
    the system message or the question, or has no thinking mode where `config.enable_thinking` is set.
    """

    def __init__(self, tokenizer: Any, config: PromptConfig) -> None:
        self.tokenizer, self.config = tokenizer, config
        self.template, self._described = _template(tokenizer, config)
        # Other added tokens are ordinary vocabulary, such as Gemma's runs of newlines and HTML tags.
        self._control_ids = {
            token.content: token_id
            for token_id, token in tokenizer.added_tokens_decoder.items()
            if token.special or (token.content in self.template and re.search(r"[^\w\s]", token.content))
        }
        if tokenizer.unk_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id):
            self._control_ids.pop(tokenizer.unk_token, None)  # it stands for unknown words
        longest_first = sorted(self._control_ids, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._before = [{"role": "system", "content": config.system}] if config.system else []
        for example in config.fewshot:
            self._before += [self._user(example.question), {"role": "assistant", "content": example.answer}]
        text = self._render([*self._before, self._user(_PROBE)])
        self._check(text)
        self._own = self._count(self._encode(text))

    def prompt_ids(self, question: str, name: str) -> list[int]:
        """Token ids of the conversation up to the start of the model's answer.

        Control tokens in the template and in the settings are control tokens; in `question` they are plain text. The
        beginning of text occurs where the template writes it, once.
        name: the problem, for messages. Raises ValueError where the template fails on the question, the question is not
        valid Unicode, or the tokenizer cannot encode a control token in the question as text.
        """
        try:
            question.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{name}: character {error.start + 1} of the question is half a character"
                f" ({question[error.start]!a}): repair its encoding"
            ) from None
        cut = self._cut_mark(question)
        broken = self._control.sub(lambda match: match[0][0] + cut + match[0][1:], question)
        text = self._render([*self._before, self._user(broken)], name=name)
        ids = [token_id for piece in text.split(cut) for token_id in self._encode(piece)]
        if not ids:
            raise ValueError(f"{name}: {self._described} gives an empty prompt: use another --prompt.chat-template")
        self._check_control(ids, text.replace(cut, ""), question, name)
        return ids

    def end_ids(self, path: str) -> frozenset[int]:
        """The ids that end an answer of the model at `path`, a directory or a GGUF file; no weights are read.

        They are those of generation_config.json (config.json where it names none), the tokenizer's end of text, and the
        control token that the template writes after an answer. The tokenizer's alone is not enough: it is often the end
        of a document, as in pretraining (<|endoftext|>), while a chat model ends its turn with a token of the template
        (<|im_end|>, <|eot_id|>, <end_of_turn>) and, if it is not stopped there, continues with the user's turn.
        Raises ValueError where none of them names an id, or a file is not JSON.
        """
        candidates = {*_saved_end_ids(Path(path)), self.tokenizer.eos_token_id, self._turn_end()}
        ends = frozenset(token_id for token_id in candidates if token_id is not None)
        if not ends:
            raise ValueError(
                f"{path} has no token that ends an answer: give its tokenizer an eos_token, or set eos_token_id in"
                " its generation_config.json"
            )
        return ends

    def _user(self, question: str) -> dict[str, str]:
        return {"role": "user", "content": self.config.instruction.replace("{question}", question)}

    def _render(
        self, messages: list[dict[str, str]], prompt: bool = True, name: str = "", thinking: bool | None = None
    ) -> str:
        """The conversation as text; `thinking` overrides the settings."""
        thinking = self.config.enable_thinking if thinking is None else thinking
        options = {} if thinking is None else {"enable_thinking": thinking}
        what = f"{name}: {self._described}" if name else self._described
        try:
            return self.tokenizer.apply_chat_template(
                messages, chat_template=self.template, tokenize=False, add_generation_prompt=prompt, **options
            )
        except TemplateSyntaxError as error:
            raise ValueError(f"{self._described} does not parse, line {error.lineno}: {one_line(error)}") from None
        except Exception as error:  # a template can raise any exception
            roles = ", ".join(dict.fromkeys(message["role"] for message in messages))
            raise ValueError(f"{what} rejects a conversation of {roles}: {one_line(error)}") from error

    def _check(self, text: str) -> None:
        """text: the conversation with a sample question."""
        for what, content in (("system message", self.config.system), ("question", _PROBE)):
            if content.strip() not in text:
                raise ValueError(f"{self._described} omits the {what}: use another --prompt.chat-template FILE")
        if self.config.enable_thinking is not None:
            messages = [*self._before, self._user(_PROBE)]
            if self._render(messages, thinking=True) == self._render(messages, thinking=False):
                raise ValueError(
                    f"{self._described} has no thinking mode, enable_thinking changes nothing: leave out"
                    " --prompt.enable-thinking"
                )

    def _turn_end(self) -> int | None:
        """The first control token after an answer, None where the template writes none."""
        answered = [self._user(_PROBE), {"role": "assistant", "content": _ANSWER}]
        after = self._render(answered, prompt=False).rpartition(_ANSWER)[2]
        match = self._control.search(after)
        return self._control_ids[match[0]] if match else None

    def _cut_mark(self, question: str) -> str:
        """A private-use character that occurs nowhere else in the conversation."""
        texts = question + self.config.instruction + "".join(message["content"] for message in self._before)
        return next(mark for mark in map(chr, range(0xF0000, 0xFFFFE)) if mark not in texts)

    def _check_control(self, ids: list[int], text: str, question: str, name: str) -> None:
        """Check that the question changes no control token, and that splitting those it contains changes no text."""
        count = self._count(ids)
        token_id = next(iter((count - self._own) + (self._own - count)), None)
        if token_id is None and (match := self._control.search(question)):
            same = self._decode(ids) == self._decode(self._encode(text))
            token_id = None if same else self._control_ids[match[0]]
        if token_id is not None:
            raise ValueError(
                f"{name}: the tokenizer of {self.tokenizer.name_or_path} cannot distinguish the text of the question"
                f" from the control token {self.tokenizer.convert_ids_to_tokens(token_id)!r}: reword the question"
            )

    def _count(self, ids: list[int]) -> Counter[int]:
        control = set(self._control_ids.values())
        return Counter(token_id for token_id in ids if token_id in control)

    def _encode(self, text: str) -> list[int]:
        # Not verbose: the sampler checks whether a prompt fits into the context.
        return self.tokenizer.encode(text, add_special_tokens=False, verbose=False)

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def _template(tokenizer: Any, config: PromptConfig) -> tuple[str, str]:
    """The template, and its description for messages."""
    if config.chat_template:
        file = Path(config.chat_template)
        try:
            return file.read_text(encoding="utf-8"), f"the chat template {file}"
        except FileNotFoundError:
            raise ValueError(
                f"there is no chat template {file}: name a file with --prompt.chat-template FILE"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the chat template {file} cannot be read: {one_line(error)}") from None
    owner = f"the tokenizer of {tokenizer.name_or_path}"
    template, remedy = tokenizer.chat_template, "give one with --prompt.chat-template FILE"
    if isinstance(template, dict):
        if "default" not in template:
            raise ValueError(f"{owner} has chat templates ({', '.join(template)}) and no default: {remedy}")
        template = template["default"]
    if not template:
        raise ValueError(f"{owner} has no chat template: {remedy}")
    return template, f"the chat template of {tokenizer.name_or_path}"


def _saved_end_ids(path: Path) -> set[int]:
    """The ids of generation_config.json, or of config.json where it has none."""
    for file in (path / "generation_config.json", path / "config.json"):
        if not file.is_file():
            continue
        try:
            named = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{file} holds no JSON object ({one_line(error)}): restore the file") from None
        if named is not None:
            ids = named if isinstance(named, list) else [named]
            if not all(type(token_id) is int and token_id >= 0 for token_id in ids):
                raise ValueError(f"{file}: eos_token_id must be a token id or a list of them, got {named!r:.80}")
            return set(ids)
    return set()
