"""Generated problems: different, stable, and scored by their generator also after a round trip through a file."""

from itertools import islice
from pathlib import Path

import pytest

from ssdfast.problems.problem import Problem, read_problems, write_problems
from ssdfast.problems.reasoning_gym import _decoded, chain_sums, generate, score

pytest.importorskip("reasoning_gym")
SMALL = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


def take(name: str, count: int, seed: int = 0, **options) -> list[Problem]:
    return list(islice(generate(name, options, seed), count))


def test_all_different_although_the_generator_repeats_itself() -> None:
    problems = take("chain_sum", 190, **SMALL)  # there are 200, of which 64 draws repeat some
    assert len({problem.question for problem in problems}) == len({problem.problem_id for problem in problems}) == 190
    assert problems[:10] == take("chain_sum", 10, **SMALL) != take("chain_sum", 10, seed=1, **SMALL)


def test_an_id_is_of_the_question_alone() -> None:
    ids = [{p.question: p.problem_id for p in take("chain_sum", 150, seed=seed, **SMALL)} for seed in (0, 1)]
    both = ids[0].keys() & ids[1].keys()
    assert len(both) > 90
    assert all(ids[0][question] == ids[1][question] for question in both)
    assert all(problem_id.startswith("reasoning-gym:chain_sum/") for problem_id in ids[0].values())


def test_a_generator_that_runs_out_says_how_many_there_are() -> None:
    with pytest.raises(ValueError, match=r"reasoning-gym:chain_sum gave (19\d|200) distinct problems in .* draws"):
        take("chain_sum", 500, **SMALL)


# Scorers that parse, that compare tuples (arc_agi, rearc), and that look up integer keys (graph_color).
@pytest.mark.parametrize(
    "name", ["gsm_symbolic", "basic_arithmetic", "countdown", "arc_agi", "rearc", "knights_knaves"]
)
def test_scored_by_the_generator_after_a_round_trip(name: str, tmp_path: Path) -> None:
    write_problems(tmp_path / "problems.jsonl", problems := take(name, 3))
    for problem in read_problems(tmp_path / "problems.jsonl"):
        assert problem.answer is not None
        assert score(problem, problem.answer) == 1
        assert score(problem, "no answer") < 0.1
    assert read_problems(tmp_path / "problems.jsonl") == problems


def test_tuples_and_integer_keys_survive_the_file(tmp_path: Path) -> None:
    from reasoning_gym import create_dataset

    write_problems(tmp_path / "problems.jsonl", take("graph_color", 1))
    (problem,) = read_problems(tmp_path / "problems.jsonl")
    assert problem.answer is None
    entry = create_dataset("graph_color", size=1, seed=0)[0]["metadata"]
    assert any(isinstance(key, int) for key in entry["possible_answer"])
    assert _decoded(problem.metadata["entry"]) == entry


def test_an_answer_that_the_scorer_cannot_parse_is_worth_nothing() -> None:
    assert score(take("prime_factorization", 1)[0], "banana") == 0
    with pytest.raises(ValueError, match="the problem a has no reasoning-gym generator"):
        score(Problem("a", "a?"), "1")


def test_difficulty_is_the_entry_s() -> None:
    assert take("gsm_symbolic", 1)[0].difficulty == "1.0"
    assert take("chain_sum", 1, **SMALL)[0].difficulty == '{"num_terms":[2,2],"num_digits":[1,1]}'


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("chain_sums", {}, "no generator 'chain_sums': name one of .*chain_sum"),
        ("chain_sum", {"terms": 2}, "no option 'terms' in problems.generator_options: it has .*min_terms"),
        ("chain_sum", {"seed": 2}, "no option 'seed' in problems.generator_options"),
        ("chain_sum", {"min_terms": -1}, r"chain_sum cannot draw .*\(min_terms must be"),
    ],
)
def test_what_a_generator_does_not_know(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(islice(generate(name, options, 0), 1))


def test_sums_of_the_demo() -> None:
    problems = chain_sums(150, 0)
    assert [problem.question for problem in problems[:3]] == ["0 - 4 = ?", "4 - 1 = ?", "1 + 5 = ?"]
    assert len({problem.problem_id for problem in problems}) == 150
    for problem in problems:
        expression = problem.question.removesuffix(" = ?")
        assert problem.problem_id == f"chain_sum/{expression.replace(' ', '')}"
        assert problem.answer == str(eval(expression))
        assert score(problem, problem.answer) == 1
    with pytest.raises(ValueError, match="use at most 150"):
        chain_sums(151, 0)
