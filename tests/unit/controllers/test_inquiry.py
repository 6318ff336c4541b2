"""When Events are asked for: each question reads all of a namespace; an ordinary Run asks none."""

import asyncio
from typing import Any

import pytest
from objects import at, make_object

from labfunctions_operator.controllers.inquiry import Inquiry
from labfunctions_operator.kube.client import ListResult

REFUSED = {"message": "exceeded quota"}


class Server:
    """Has one Event, and counts who asks for it."""

    def __init__(self) -> None:
        self.lists = 0

    async def list(self, *_: Any, **__: Any) -> ListResult:
        self.lists += 1
        return ListResult([REFUSED], "1")


@pytest.mark.parametrize(("age", "asked"), [(0, 0), (3, 0), (4, 1), (60, 1)])
def test_why_a_job_gets_no_pod_is_asked_once_it_should_have_one(age: int, asked: int) -> None:
    server: Any = Server()
    # Objects are made ten seconds before the time that counts from 0.
    inquiry = Inquiry(server, lambda: at(age - 10))
    refusal = asyncio.run(inquiry.refusal("team", [make_object("Job", "first", {})]))
    assert server.lists == asked
    assert refusal == (REFUSED["message"] if asked else None)
