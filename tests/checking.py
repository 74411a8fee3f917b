"How a check of an exercise is tested: it passes the solution, and names the mistake in each wrong answer."
from collections.abc import Callable

from vlground.checks import Verdict


def assert_check(
    check: Callable, # from vlground.checks
    solution: Callable, # a right answer, written here and not taken from the package where possible
    wrong: list[tuple[Callable, str]], # at least three wrong answers, each with a word that the message must hold
) -> None:
    "The check passes the solution and refuses each wrong answer and the empty stub, naming the mistake."
    assert len(wrong) >= 3, 'a check is tried with at least three wrong answers'
    verdict = check(solution)
    assert isinstance(verdict, Verdict) and verdict, f'the solution was refused: {verdict}'
    stub = check(lambda *arguments, **keywords: None)
    assert not stub and 'stub' in stub.message, f'an unfinished stub is not told apart: {stub}'
    for answer, word in wrong:
        verdict = check(answer)
        assert not verdict, f'a wrong answer passed, the one about {word!r}'
        assert word in verdict.message, f'expected a message with {word!r}, got: {verdict.message}'
