"""All sources together: what stays, what is left out, and what stops a run."""

import json
from pathlib import Path

import pytest

from ssdfast.config import ProblemsConfig
from ssdfast.problems.problem import write_problems
from ssdfast.problems.sources import LoadedProblems, load_problems

LONG = (
    "A farmer keeps hens and rabbits in one large yard behind the old barn near the river; "
    "there are 12 heads and 34 feet, so how many {} are there?"
)
SUMS = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


def write(path: Path, *questions: str, **more: str) -> str:
    path.write_text("".join(json.dumps({"question": question} | more) + "\n" for question in questions))
    return str(path)


def load(*sources: str, **settings) -> LoadedProblems:
    return load_problems(ProblemsConfig(sources=sources, **settings))


def asked(loaded: LoadedProblems) -> list[str]:
    return [problem.question for problem in loaded.problems]


def test_equal_and_near_duplicates_are_skipped_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ssdfast")
    hens, rabbits, heads = LONG.format("hens"), LONG.format("rabbits"), LONG.format("hens").replace("12", "13")
    loaded = load(
        write(tmp_path / "a.jsonl", hens, hens.upper(), heads), write(tmp_path / "b.jsonl", rabbits, "2 + 7", "2 + 8")
    )
    assert asked(loaded) == [hens, heads, "2 + 7", "2 + 8"]
    kept = loaded.problems[0].problem_id
    assert [(first, later.split("/")[0]) for first, later in loaded.skipped.duplicates] == [(kept, "a")]
    ((first, later, similarity),) = loaded.skipped.near_duplicates
    assert (first, later.split("/")[0]) == (kept, "b")
    assert 0.8 <= similarity < 1
    assert "1 duplicates and 1 near duplicates skipped, 4 remain" in caplog.text
    assert asked(load(str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"), near_duplicate_threshold=1)) == [
        hens, heads, rabbits, "2 + 7", "2 + 8",
    ]  # fmt: skip


def test_count_is_of_each_source_after_duplicates(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", "1?", "1 ?", "2?", "3?")
    b = write(tmp_path / "b.jsonl", "2?", LONG.format("hens"), LONG.format("rabbits"), "4?", "5?")
    loaded = load(a, b, "reasoning-gym:chain_sum", limit_per_source=2, generator_options=SUMS)
    assert asked(loaded)[:4] == ["1?", "2?", LONG.format("hens"), "4?"]
    assert len(loaded.problems) == 6
    assert len(loaded.skipped.near_duplicates) == 1


def test_what_the_count_cuts_off_is_no_duplicate(tmp_path: Path) -> None:
    hens, rabbits = LONG.format("hens"), LONG.format("rabbits")
    a = write(tmp_path / "a.jsonl", "1?", "2?", hens, "1 ?")
    loaded = load(a, write(tmp_path / "b.jsonl", "2?", rabbits), limit_per_source=1)
    assert asked(loaded) == ["1?", "2?"]
    assert loaded.skipped.duplicates == loaded.skipped.near_duplicates == []
    assert asked(load(a, write(tmp_path / "b.jsonl", rabbits), limit_per_source=2)) == ["1?", "2?", rabbits]


def test_generated_problems_are_alike_in_wording_and_stay() -> None:
    loaded = load("reasoning-gym:spell_backward", limit_per_source=30)
    assert len(loaded.problems) == 30
    assert not loaded.skipped.near_duplicates


def test_generated_problems_of_an_earlier_run_stay_too(tmp_path: Path) -> None:
    generated = load("reasoning-gym:spell_backward", limit_per_source=30).problems
    write_problems(tmp_path / "problems.jsonl", generated)
    assert load(str(tmp_path / "problems.jsonl")).problems == generated
    more = load(
        "reasoning-gym:spell_backward",
        limit_per_source=40,
        decontaminate_against=[str(tmp_path / "problems.jsonl")],
        on_contamination="drop",
    )
    assert len(more.problems) == 10  # the first 30 are equal, the others merely alike
    assert all(similarity == 1 for _, _, similarity in more.skipped.contamination)


def test_contamination(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a = write(tmp_path / "a.jsonl", "1?", LONG.format("hens"), "2?")
    held_out = write(tmp_path / "h.jsonl", "2 ?", LONG.format("rabbits"), LONG.format("pigs"), "3?")
    pair = r"a/\w{12} and h/\w{12} \(0.\d\d\)"
    message = rf"^2 of 3 problems are near duplicates of evaluation problems: {pair}, .*problems.on_contamination"
    with pytest.raises(ValueError, match=message):
        load(a, decontaminate_against=[held_out])
    dropped = load(a, decontaminate_against=[held_out], on_contamination="drop")
    assert asked(dropped) == ["1?"]
    assert "2 of 3 problems are near duplicates of evaluation problems" in caplog.text
    kept = load(a, decontaminate_against=[held_out], on_contamination="keep")
    assert asked(kept) == ["1?", LONG.format("hens"), "2?"]
    pairs = kept.skipped.contamination
    assert pairs == dropped.skipped.contamination
    # Both held-out problems are named, although they are near duplicates of each other.
    ids = {problem.question: problem.problem_id for problem in kept.problems}
    held_out_ids = {
        problem.question: problem.problem_id for problem in load(held_out, near_duplicate_threshold=1).problems
    }
    assert {(ours, theirs) for ours, theirs, _ in pairs} == {
        (ids["2?"], held_out_ids["2 ?"]),
        (ids[LONG.format("hens")], held_out_ids[LONG.format("rabbits")]),
        (ids[LONG.format("hens")], held_out_ids[LONG.format("pigs")]),
    }
    with pytest.raises(ValueError, match="none remains"):
        load(write(tmp_path / "b.jsonl", "2?"), decontaminate_against=[held_out], on_contamination="drop")
    assert asked(load(a, decontaminate_against=[write(tmp_path / "h.jsonl", "9?")])) == [
        "1?",
        LONG.format("hens"),
        "2?",
    ]


def test_the_first_count_is_taken_of_training_but_all_is_held_out(tmp_path: Path) -> None:
    held_out = write(tmp_path / "h.jsonl", "8?", "9?", "1?")
    with pytest.raises(ValueError, match="1 of 1 problems"):
        load(write(tmp_path / "a.jsonl", "1?", "2?"), decontaminate_against=[held_out], limit_per_source=1)


def test_a_generated_problem_like_one_that_was_read_is_contamination(tmp_path: Path) -> None:
    generated = load("reasoning-gym:gsm_symbolic", limit_per_source=3).problems
    held_out = write(tmp_path / "h.jsonl", f"Please: {generated[1].question}")
    loaded = load(
        "reasoning-gym:gsm_symbolic", limit_per_source=3, decontaminate_against=[held_out], on_contamination="drop"
    )
    assert loaded.problems == [generated[0], generated[2]]


def test_a_generator_can_be_held_out(tmp_path: Path) -> None:
    generated = load("reasoning-gym:gsm_symbolic", limit_per_source=4).problems
    mine = write(tmp_path / "a.jsonl", *(problem.question for problem in generated[1:]))
    loaded = load(
        mine, decontaminate_against=["reasoning-gym:gsm_symbolic"], limit_per_source=3, on_contamination="drop"
    )
    assert asked(loaded) == [generated[3].question]


def test_an_id_that_two_sources_give_to_different_questions(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", "1?", id="x"), write(tmp_path / "b.jsonl", "2?", id="x")
    with pytest.raises(ValueError, match=r"a.jsonl and .*b.jsonl give the id 'x' to different questions"):
        load(a, b)
    assert asked(load(a, decontaminate_against=[b])) == ["1?"]
    assert asked(load(a, write(tmp_path / "b.jsonl", "1 ?", id="x"))) == ["1?"]


def test_skipped_lines_are_in_the_report(tmp_path: Path) -> None:
    for name in ("a", "h"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"question": "{name}?"}}\n{{\n')
    loaded = load(str(tmp_path / "a.jsonl"), decontaminate_against=[str(tmp_path / "h.jsonl")], on_malformed="skip")
    assert [what.split(": ")[0] for what in loaded.skipped.malformed] == [f"{tmp_path}/{name}.jsonl:2" for name in "ah"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], r"problems.sources is empty: .*\.jsonl, \.parquet, \.csv.*reasoning-gym:GENERATOR, champ, or hf:"),
        (["a.json"], r"a.json is no source of problems: use a file \(\.jsonl"),
        (["http://a"], "http://a is no source of problems"),
        (["reasoning-gym:chain_sum"], r"set their number in problems.limit_per_source"),
        (["none.jsonl"], "there is no file none.jsonl"),
    ],
)
def test_what_is_no_source(sources: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(*sources)
