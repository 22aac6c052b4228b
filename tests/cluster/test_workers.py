"""How workers are seen from the command that placed them; a stand-in plays Ray."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from sweeper.cluster import Look, Order, Workers, workers

ORDER = Order(("worker",), {}, 1, 0, "/")
FIRST, SECOND = "10.0.0.7 (1f)", "10.0.0.8 (2e)"


class ActorDiedError(Exception):
    """Stands for Ray's."""


class Actor:
    """An actor that answers what it is told to; None is no answer yet."""

    def __init__(self) -> None:
        self.answers: deque[Look | Exception | None] = deque()
        self.asked: list[str] = []
        self.look = SimpleNamespace(remote=lambda: (self, len(self.asked)))
        self.part = SimpleNamespace(remote=lambda: self.asked.append("part"))


class Ray:
    """As much of it as a crew of workers needs."""

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.killed: list[Actor] = []
        self.exceptions = SimpleNamespace(RayActorError=ActorDiedError, ActorDiedError=ActorDiedError)

    def remote(self, **_: Any) -> Any:
        return lambda _class: SimpleNamespace(options=lambda name: SimpleNamespace(remote=self._made))

    def _made(self, order: Order) -> Actor:
        self.actors.append(Actor())
        return self.actors[-1]

    def wait(self, refs: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        assert (num_returns, timeout) == (len(refs), 0)
        return [ref for ref in refs if ref[0].answers and ref[0].answers[0] is not None], []

    def get(self, ref: Any) -> Look:
        answer = ref[0].answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer

    def kill(self, actor: Actor) -> None:
        self.killed.append(actor)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    stand_in = Ray()
    monkeypatch.setattr(workers, "load", lambda: stand_in)
    return stand_in


def told(crew: Workers) -> list[str]:
    return [str(line) for line in crew.look()]


def test_it_is_told_where_workers_are_and_what_they_say(ray: Ray):
    crew = Workers(ORDER, 2, "digits")
    assert (crew.placed, crew.working, told(crew)) == (0, 2, [])
    ray.actors[0].answers.append(Look(FIRST, None, ("hello", "")))
    assert told(crew) == [f"worker 1 on {FIRST}: placed", f"worker 1 on {FIRST}: hello"]
    assert (crew.placed, crew.working, told(crew)) == (1, 2, [])


def test_one_that_falls_silent_is_missed_once_and_seen_again_elsewhere(ray: Ray, monkeypatch: pytest.MonkeyPatch):
    crew = Workers(ORDER, 1, "digits")
    ray.actors[0].answers += [Look(FIRST, None, ()), None]
    told(crew)
    with monkeypatch.context() as patch:
        patch.setattr(workers, "SILENT_S", 0.0)
        assert told(crew) == [f"worker 1 on {FIRST}: no answer; where its node is dead, Ray places it on another"]
    assert told(crew) == []
    ray.actors[0].answers[0] = Look(SECOND, None, ())
    assert told(crew) == [f"worker 1 on {SECOND}: placed again"]


def test_the_problem_of_one_that_ended_is_its_last_word(ray: Ray):
    crew = Workers(ORDER, 2, "digits")
    ray.actors[0].answers.append(Look(FIRST, 0, ("done",)))
    ray.actors[1].answers.append(Look(SECOND, 2, ("error: no data", "")))
    told(crew)
    assert crew.working == 0
    assert crew.problem == f"worker 2 on {SECOND}: error: no data"


def test_an_actor_that_can_not_even_begin_is_a_problem(ray: Ray):
    crew = Workers(ORDER, 1, "digits")
    ray.actors[0].answers.append(ActorDiedError("No module named 'sweeper'"))
    assert told(crew) == ["worker 1: No module named 'sweeper'"]
    assert crew.working == 0


def test_parting_waits_for_those_that_work_and_not_for_those_that_have_no_node(ray: Ray):
    crew = Workers(ORDER, 2, "digits")
    working, waiting = ray.actors
    working.answers += [Look(FIRST, None, ()), Look(FIRST, None, ("saved",)), Look(FIRST, 0, ())]
    told(crew)
    parting = crew.part()
    assert [str(line) for line in next(parting)] == [f"worker 1 on {FIRST}: saved"]
    assert ray.killed == [waiting]
    assert working.asked == ["part"]
    assert [line for lines in parting for line in lines] == []
    assert {id(actor) for actor in ray.killed} == {id(working), id(waiting)}


def test_parting_does_not_wait_for_ever(ray: Ray):
    crew = Workers(ORDER, 1, "digits")
    ray.actors[0].answers += [Look(FIRST, None, ()), None]
    told(crew)
    assert len(list(crew.part(patience_s=0.05))) == 1
    assert ray.killed == ray.actors
