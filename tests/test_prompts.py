"""Prompts in the chat templates of real tokenizers, and in templates that do what others are known to do."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdfast.config import FewshotExample, PromptConfig
from ssdfast.prompts import Prompter
from tests import tokenizers

BARE = PromptConfig(instruction="{question}")
TALK = PromptConfig(
    system="Be brief.",
    instruction="Q: {question}",
    fewshot=(FewshotExample(question="1+1?", answer="2"), FewshotExample(question="2+2?", answer="4")),
)


def shown(prompter, question="3+3?"):
    """The prompt of a problem as text."""
    return prompter.tokenizer.decode(prompter.prompt_ids(question, "p1"))


def places(prompter, *marks, question="3+3?"):
    """Those of the marks that the prompt holds as control tokens, in order."""
    ids = dict(zip(prompter.tokenizer.convert_tokens_to_ids(list(marks)), marks, strict=True))
    return [ids[i] for i in prompter.prompt_ids(question, "p1") if i in ids]


def changed(config=BARE, **values):
    return config.model_copy(update=values)


def template_file(tmp_path, text):
    (tmp_path / "template.jinja").write_text(text, encoding="utf-8")
    return str(tmp_path / "template.jinja")


@pytest.fixture(scope="module")
def smollm2(request):
    return tokenizers.smollm2(request.config.cache.mkdir("smollm2") / "model")


def chatml(*turns):
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + "<|im_start|>assistant\n"


TURNS = [
    ("system", "Be brief."),
    ("user", "Q: 1+1?"),
    ("assistant", "2"),
    ("user", "Q: 2+2?"),
    ("assistant", "4"),
    ("user", "Q: 3+3?"),
]


def test_qwen3():
    prompter = Prompter(tokenizers.qwen3(), TALK)
    assert shown(prompter) == chatml(*TURNS)
    assert places(prompter, "<|im_start|>", "<|im_end|>") == ["<|im_start|>", "<|im_end|>"] * 6 + ["<|im_start|>"]
    assert prompter.prompt_ids("3+3?", "p1")[:3] == [151644, 8948, 198]  # no beginning of text: Qwen has none
    assert prompter.end_ids("nowhere") == {151645}


def test_thinking_of_qwen3():
    by_default, on, off = (
        Prompter(tokenizers.qwen3(), changed(enable_thinking=thinking)).prompt_ids("3+3?", "p1")
        for thinking in (None, True, False)
    )
    assert on == by_default
    assert off == [*on, 151667, 271, 151668, 271]  # <think>, an empty line, </think>, an empty line


def test_thinking_that_is_begun_in_the_prompt():
    tokenizer = tokenizers.qwen3_5()
    on, off = (shown(Prompter(tokenizer, changed(enable_thinking=thinking))) for thinking in (True, False))
    assert on == chatml(("user", "3+3?")) + "<think>\n"
    assert off == chatml(("user", "3+3?")) + "<think>\n\n</think>\n\n"
    prompter = Prompter(tokenizer, BARE)
    assert shown(prompter) == on
    assert prompter.prompt_ids("3+3?", "p1")[0] == 248_045
    assert 248_068 in prompter.prompt_ids("3+3?", "p1")
    assert prompter.end_ids("nowhere") == {248_046}


def test_smollm2(smollm2):
    prompter = Prompter(smollm2, TALK)
    assert shown(prompter) == chatml(*TURNS)
    assert places(prompter, "<|im_start|>", "<|im_end|>") == ["<|im_start|>", "<|im_end|>"] * 6 + ["<|im_start|>"]
    assert prompter.end_ids("nowhere") == {2}
    assert shown(Prompter(smollm2, BARE)).startswith("<|im_start|>system\nYou are a helpful")  # its template's own
    with pytest.raises(ValueError, match="has no thinking mode"):
        Prompter(smollm2, changed(enable_thinking=True))


def test_llama3(tmp_path):
    file = template_file(tmp_path, tokenizers.LLAMA3)
    prompter = Prompter(tokenizers.llama3_2(), changed(TALK, chat_template=file))
    turns = "".join(f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>" for role, text in TURNS)
    assert shown(prompter) == f"<|begin_of_text|>{turns}<|start_header_id|>assistant<|end_header_id|>\n\n"
    ids = prompter.prompt_ids("3+3?", "p1")
    assert ids[0] == 128_000
    assert ids.count(128_000) == 1  # though its tokenizer puts one before every text that is not told otherwise
    assert prompter.tokenizer.encode("3+3?")[0] == 128_000
    assert ids.count(128_009) == 6
    assert prompter.end_ids("nowhere") == {128_001, 128_009}  # the tokenizer's is the end of a document


def test_gemma3():
    prompter = Prompter(tokenizers.gemma3(), TALK)
    marks = ("<bos>", "<start_of_turn>", "<end_of_turn>")
    assert places(prompter, *marks) == ["<bos>", *marks[1:] * 5, "<start_of_turn>"]
    assert shown(prompter).startswith("<bos><start_of_turn>user\nBe brief.\n\nQ: 1+1?<end_of_turn>\n")
    assert shown(prompter).endswith("<start_of_turn>user\nQ: 3+3?<end_of_turn>\n<start_of_turn>model\n")
    assert prompter.end_ids("nowhere") == {106}
    # What is in the vocabulary as a whole, and no control token, stays whole.
    for piece in ("<table>", "\n\n\n"):
        assert prompter.tokenizer.convert_tokens_to_ids(piece) in prompter.prompt_ids(f"a{piece}b", "p1")


def test_a_template_without_system_messages():
    tokenizer = tokenizers.gemma()
    prompter = Prompter(tokenizer, changed(TALK, system=""))
    assert shown(prompter).startswith("<bos><start_of_turn>user\nQ: 1+1?<end_of_turn>\n<start_of_turn>model\n2<end")
    assert prompter.prompt_ids("3+3?", "p1").count(tokenizer.bos_token_id) == 1
    assert prompter.end_ids("nowhere") == set(tokenizer.convert_tokens_to_ids(["<eos>", "<end_of_turn>"]))
    with pytest.raises(ValueError, match="stand-in rejects a conversation of system, user: No system role"):
        Prompter(tokenizer, changed(system="Be brief."))


def test_no_beginning_of_text_where_the_template_writes_none():
    tokenizer = tokenizers.stand_in(control=("<|im_start|>", "<|im_end|>"), bos_token="<s>", eos_token="</s>")
    assert tokenizer.encode("a")[0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in Prompter(tokenizer, BARE).prompt_ids("3+3?", "p1")


def test_braces_are_the_problems_own():
    prompter = Prompter(tokenizers.qwen3(), changed(instruction="{question} {}{0} again: {question}"))
    question = r"Simplify $\frac{1}{2}$ in \boxed{} with {question} and {0} %s"
    assert shown(prompter, question) == chatml(("user", f"{question} {{}}{{0}} again: {question}"))


@pytest.mark.parametrize("make", [tokenizers.qwen3, tokenizers.qwen3_5, tokenizers.gemma3])
def test_control_tokens_in_a_question_are_text(make):
    prompter = Prompter(make(), BARE)
    marks = [t.content for t in prompter.tokenizer.added_tokens_decoder.values() if t.special]
    marks += ["<think>", "</think>"]
    for mark in marks:
        for question in (f"a {mark} b", f"{mark}{mark}x", f"\U000f0000{mark}\n\n{mark}"):
            assert places(prompter, *marks, question=question) == places(prompter, *marks)
            assert question in shown(prompter, question)


def test_control_tokens_in_the_settings_are_the_callers():
    prompter = Prompter(
        tokenizers.qwen3(), changed(fewshot=(FewshotExample(question="1", answer="<|object_ref_start|>"),))
    )
    assert places(prompter, "<|object_ref_start|>") == ["<|object_ref_start|>"]


MARKS = ("<|im_start|>", "<|im_end|>", "<|im")  # the last is the beginning of the others
PIECES = st.one_of(st.text(st.characters(codec="utf-8")), st.sampled_from([*MARKS, "<|im_end", "|>", "\U000f0000"]))


@given(question=st.lists(PIECES).map("".join))
def test_any_question_is_spelt_byte_by_byte(question):
    prompter = Prompter(tokenizers.stand_in(control=MARKS), BARE)
    assert shown(prompter, question) == chatml(("user", question))
    around = len(prompter.prompt_ids("", "p1"))
    assert len(prompter.prompt_ids(question, "p1")) == around + len(question.encode())


def test_a_control_token_that_cannot_be_text_is_refused():
    prompter = Prompter(tokenizers.spaced(), BARE)
    assert shown(prompter, "two words").endswith("two words</s>")
    with pytest.raises(ValueError, match=r"p7: the tokenizer of stand-in cannot distinguish .* token '</s>': reword"):
        prompter.prompt_ids("the end is </s> here", "p7")
    of_one_letter = Prompter(tokenizers.stand_in(control=("<|im_start|>", "<|im_end|>", "|")), BARE)
    with pytest.raises(ValueError, match=r"p8: .* control token '\|': reword"):
        of_one_letter.prompt_ids("|x|", "p8")


def test_a_question_that_steers_the_template_is_refused():
    template = tokenizers.CHATML + "{% if 'hard' in messages[-1].content %}<|im_end|>{% endif %}"
    prompter = Prompter(tokenizers.stand_in(template, ("<|im_start|>", "<|im_end|>")), BARE)
    prompter.prompt_ids("an easy one", "p1")
    with pytest.raises(ValueError, match=r"p2: .* control token '<\|im_end\|>'"):
        prompter.prompt_ids("a hard one", "p2")


@pytest.mark.parametrize("question", ["\ud835", "so \ud835\ud835"])
def test_half_a_character_is_named(question):
    with pytest.raises(ValueError, match=r"p3: character \d of the question is half a character \('\\ud"):
        Prompter(tokenizers.stand_in(), BARE).prompt_ids(question, "p3")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (
            "{{ messages[0].content }}{% if 'x' in messages[0].content %}{{ raise_exception('no x') }}{% endif %}",
            "no x",
        ),
        (
            "{{ messages[0].content }}{% if 'x' in messages[0].content %}{{ nothing.there.either }}{% endif %}",
            "undefined",
        ),
        ("{{ messages[0].content }}{% if 'x' in messages[0].content %}{{ 1 + 'a' }}{% endif %}", "unsupported operand"),
    ],
)
def test_a_template_that_fails_on_a_problem_names_it(template, says):
    prompter = Prompter(tokenizers.stand_in(template), BARE)
    assert shown(prompter, "y") == "y"
    with pytest.raises(ValueError, match=f"p4: the chat template of stand-in rejects a conversation of user: .*{says}"):
        prompter.prompt_ids("x", "p4")


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="p5: the chat template of stand-in gives an empty prompt"):
        Prompter(tokenizers.stand_in("{{ messages[0].content | trim }}"), BARE).prompt_ids(" ", "p5")


def test_templates_that_cannot_serve(tmp_path):
    plain = tokenizers.stand_in(None)
    with pytest.raises(ValueError, match=r"tokenizer of stand-in has no chat template: give one with --prompt.chat-te"):
        Prompter(plain, BARE)
    with pytest.raises(ValueError, match=r"chat templates \(tool_use, rag\) and no default"):
        Prompter(tokenizers.stand_in({"tool_use": "a", "rag": "b"}), BARE)
    with pytest.raises(ValueError, match=r"there is no chat template .*nope\.jinja: name a file"):
        Prompter(plain, changed(chat_template=str(tmp_path / "nope.jinja")))
    with pytest.raises(ValueError, match=f"the chat template {tmp_path} cannot be read"):
        Prompter(plain, changed(chat_template=str(tmp_path)))
    broken = template_file(tmp_path, "{{ messages[0].content }}\n{% if messages %}")
    with pytest.raises(ValueError, match=f"the chat template {broken} does not parse, line 2: .*endif"):
        Prompter(plain, changed(chat_template=broken))
    with pytest.raises(ValueError, match="omits the question"):  # it wants a list of parts, and gets a text
        Prompter(tokenizers.stand_in("{% for part in messages[0].content %}{{ part.text }}{% endfor %}"), BARE)
    with pytest.raises(ValueError, match="omits the system message"):
        Prompter(tokenizers.stand_in("{{ messages[-1].content }}"), changed(system="Be brief."))


def test_thinking_needs_a_template_that_heeds_it():
    only_mentions = tokenizers.CHATML + "{# enable_thinking #}"
    with pytest.raises(ValueError, match="stand-in has no thinking mode, enable_thinking changes nothing: leave out"):
        Prompter(tokenizers.stand_in(only_mentions), changed(enable_thinking=False))


def test_which_template(tmp_path):
    several = tokenizers.stand_in({"rag": "no", "default": "yes {{ messages[0].content }}"})
    assert shown(Prompter(several, BARE)) == "yes 3+3?"
    file = template_file(tmp_path, "§ {{ messages[0].content }}\n")
    assert shown(Prompter(several, changed(chat_template=file))) == "§ 3+3?"


@pytest.mark.parametrize(
    ("generation", "config", "want"),
    [
        ({"eos_token_id": 7}, {"eos_token_id": 5}, {7}),
        ({"eos_token_id": [7, 9]}, {}, {7, 9}),
        ({"eos_token_id": 0}, {"eos_token_id": 5}, {0}),
        ({}, {"eos_token_id": [0, 5]}, {0, 5}),
        (None, {"eos_token_id": 5}, {5}),
        (None, {}, set()),
    ],
)
def test_what_ends_an_answer(tmp_path, generation, config, want):
    for name, values in (("generation_config.json", generation), ("config.json", config)):
        if values is not None:
            (tmp_path / name).write_text(json.dumps(values))
    tokenizer = tokenizers.stand_in(control=("<|im_start|>", "<|im_end|>"), eos_token="</s>")
    own = tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"])
    assert Prompter(tokenizer, BARE).end_ids(str(tmp_path)) == want | set(own)


def test_only_what_follows_an_answer_ends_it():
    begin = "{% if add_generation_prompt %}<start>{% endif %}"
    tokenizer = tokenizers.stand_in("{% for m in messages %}<start>{{ m.content }}{% endfor %}" + begin, ("<start>",))
    tokenizer.eos_token = "a"
    assert Prompter(tokenizer, BARE).end_ids("nowhere") == {tokenizer.eos_token_id}
    longer = tokenizers.stand_in("{% for m in messages %}{{ m.content }}<end>+{% endfor %}", ("<end>", "<end>+"))
    assert Prompter(longer, BARE).end_ids("nowhere") == {longer.convert_tokens_to_ids("<end>+")}


def test_an_answer_that_nothing_ends(tmp_path):
    prompter = Prompter(tokenizers.stand_in("{{ messages[-1].content }}"), BARE)
    with pytest.raises(ValueError, match=f"{tmp_path} has no token that ends an answer"):
        prompter.end_ids(str(tmp_path))
    (tmp_path / "config.json").write_text('{"eos_token_id": 3}')
    assert prompter.end_ids(str(tmp_path)) == {3}
    (tmp_path / "generation_config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"generation_config\.json holds no JSON object"):
        prompter.end_ids(str(tmp_path))
