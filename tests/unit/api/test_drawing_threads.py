"""What runs a model has threads of its own."""

import inspect
import threading

import anyio
from anyio.to_thread import run_sync
from fastapi.routing import APIRoute
from starlette.responses import Response

from api import interpolations, mixing, reconstructions, samples, study_samples
from api.drawings import DRAWN_AT_ONCE, drawing

PATIENCE_S = 30.0


def test_any_number_of_drawings_leaves_threads_to_the_other_routes() -> None:
    goes_on, begun = threading.Event(), threading.Semaphore(0)

    @drawing
    def waits(answer: Response) -> Response:
        begun.release()
        goes_on.wait(PATIENCE_S)
        return answer

    async def scene() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(waits, Response())
            with anyio.fail_after(PATIENCE_S):
                for _ in range(DRAWN_AT_ONCE):
                    await run_sync(begun.acquire)
                is_another_begun = await run_sync(begun.acquire, False)
            goes_on.set()
        assert not is_another_begun

    anyio.run(scene)


def test_every_route_that_runs_a_model_has_them() -> None:
    modules = (samples, reconstructions, interpolations, mixing, study_samples)
    drawn = {
        route.path.rpartition("/")[2]
        for module in modules
        for route in module.router.routes
        if isinstance(route, APIRoute) and inspect.iscoroutinefunction(route.endpoint)
    }
    assert drawn == {
        *("samples", "filmstrip", "reconstructions", "interpolations"),
        *("mixing", "unmixing", "sources"),
    }
