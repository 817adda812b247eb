"""The page and the HTTP API of `timesformer serve`: classify and explain videos that are sent to it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
import reprlib
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from timesformer import __version__
from timesformer.app.answers import ClientLeft, Json, Problem, Refusal, busy, printable, problem
from timesformer.app.form import Pace, Video, declared_size, receive_video
from timesformer.app.guard import Guard
from timesformer.app.jobs import make_classifier
from timesformer.app.pool import Full, Pool, Unavailable
from timesformer.app.samples import Samples
from timesformer.app.uploads import FULL_DISK, NoSpace, Uploads
from timesformer.video.decode import VideoError
from timesformer.workers import JobError, Worker, WorkerLost

T = TypeVar("T")

logger = logging.getLogger(__name__)

_PAGE = Path(__file__).parent / "page.html"
_KINDS = {"mp4": "video/mp4", "gif": "image/gif", "png": "image/png"}
_WHY = {
    400: "Not HTTP, or not a form, as it has to be.",
    403: "Asked under a name that is not the server's, or by another page than its own.",
    404: "There is no such sample.",
    408: "The upload is too slow.",
    413: "The upload is too large.",
    415: "Not sent as multipart/form-data, or compressed.",
    422: "Not readable as a video, too long, or a request that is not as described.",
    500: "The server failed.",
    503: "Too many requests wait already, or there is no space: try again after `Retry-After` seconds.",
    504: "The video took too long, or ended the process that worked on it.",
}
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["video"],
                    "additionalProperties": False,
                    "properties": {
                        "video": {
                            "type": "string",
                            "format": "binary",
                            "description": "a video in whatever format FFmpeg reads, or a GIF",
                        }
                    },
                }
            }
        },
    }
}


@dataclass(frozen=True)
class Limits:
    """How much a server does for others.

    Attributes:
        megabytes: of an upload.
        duration: of a video, in seconds.
        waiting: requests that wait for a worker, at most.
        seconds: that a request's work may take.
        start_seconds: that a worker may take to start.
        upload_megabytes: of all uploads together; by default each that may be in hand can be as large as one may.
        pace: of an upload.
    """

    megabytes: float = 200
    duration: float = 3600
    waiting: int = 8
    seconds: float = 120
    start_seconds: float = 600
    upload_megabytes: float | None = None
    pace: Pace = field(default_factory=Pace)


class Health(BaseModel):
    """That the server is up."""

    status: Literal["ok"] = "ok"
    version: str = __version__


class Entry(BaseModel):
    """A class and its score."""

    label: str
    score: float


class Prediction(BaseModel):
    """The classes of highest score; the duration in seconds, if the file has one; how many clips would cover it."""

    top: list[Entry]
    duration: float | None
    clips: float


class Clip(BaseModel):
    """Scores of all classes, in a stretch of a video in seconds."""

    start: float
    end: float
    scores: list[float]


class Segment(BaseModel):
    """A stretch of a video, in seconds, in which a class scores high."""

    label: str
    start: float
    end: float
    score: float


class Timeline(BaseModel):
    """Scores over the time of a video; `colours` are those of the classes in pictures, #rrggbb."""

    video: str
    classes: list[str]
    colours: list[str]
    clips: list[Clip]
    threshold: float
    segments: list[Segment]


def create_app(
    source: str,
    *,
    options: dict[str, Any] | None = None,
    limits: Limits | None = None,
    workers: int = 1,
    threads: int = 1,
    samples: Path | None = None,
    hosts: Iterable[str] = (),
) -> FastAPI:
    """The application, with a model.

    Args:
        source, options: the model, as `VideoClassifier.from_pretrained` takes it.
        limits: see `Limits`.
        workers: processes that each hold the model and do one request at a time.
        threads: of each.
        samples: folder of videos that the page offers.
        hosts: names and addresses under which the server may be asked, beside the loopback ones.
    """
    limits = limits or Limits()
    arguments = (source, options or {}, limits.duration, threads)
    each = [Worker(make_classifier, arguments, start_seconds=limits.start_seconds) for _ in range(workers)]
    return make_app(Pool(each, limits.waiting), limits, Samples(samples), hosts)


def make_app(pool: Pool, limits: Limits, samples: Samples, hosts: Iterable[str] = ()) -> FastAPI:
    """The application, with workers that do jobs as those of `make_classifier` do."""
    uploads = Uploads(2**20 * (limits.upload_megabytes or limits.megabytes * pool.free))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        uploads.open()
        try:
            pool.start()
            yield
        finally:
            pool.stop()
            uploads.close()

    app = FastAPI(
        title="timesformer", version=__version__, description="Classify and explain videos.", lifespan=lifespan,
        docs_url=None, redoc_url=None, redirect_slashes=False, responses=_problems(400, 403, 422, 500),
    )  # fmt: skip
    app.state.pool = pool
    app.state.uploads = uploads
    app.add_middleware(Guard, hosts=hosts)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    _add_work(app, pool, uploads, limits)
    _add_page(app, samples)
    return app


def _add_work(app: FastAPI, pool: Pool, uploads: Uploads, limits: Limits) -> None:
    largest = limits.megabytes * 2**20

    async def work(request: Request, job: dict[str, Any], suffix: str) -> bytes:
        """The answer to a request. Whether there is room for it is asked before its video is read."""
        size = declared_size(request, largest)
        try:
            with pool.place(), uploads.claim(size) as claim:
                video = await receive_video(request, uploads, claim, largest, limits.pace)
                answer = claim.folder / f"answer{suffix}"
                job = {**job, "path": str(video.path), "answer": str(answer), "name": video.name}
                try:
                    await _while_there(request, pool.run(job, limits.seconds))
                except (JobError, WorkerLost, Unavailable) as error:
                    raise _reason(error, video) from None
                return await asyncio.to_thread(answer.read_bytes)
        except Full:
            raise busy("too many requests wait already") from None
        except NoSpace as error:
            raise busy(str(error)) from None

    uploading: dict[str, Any] = {"openapi_extra": _UPLOAD, "responses": _problems(408, 413, 415, 503, 504)}

    @app.post("/predict", response_model=Prediction, dependencies=[_only("top")], **uploading)
    async def predict(request: Request, top: Annotated[int, Query(ge=1, le=100_000)] = 5) -> Response:
        """The classes of highest score, best first."""
        return _json(await work(request, {"do": "predict", "top": top}, ".json"))

    @app.post("/timeline", response_model=Timeline, dependencies=[_only("threshold")], **uploading)
    async def timeline(
        request: Request, threshold: Annotated[float, Query(ge=0, le=1, allow_inf_nan=False)] = 0.5
    ) -> Response:
        """Scores over the time of a video, clip by clip, and the segments above a threshold."""
        return _json(await work(request, {"do": "timeline", "threshold": threshold}, ".json"))

    films: dict[str, Any] = {
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _KINDS.values()}
    }
    uploading["responses"] = {**uploading["responses"], 200: films}

    @app.post("/explain", response_class=Response, dependencies=[_only("format", "of")], **uploading)
    async def explain(
        request: Request,
        format: Literal["mp4", "gif", "png"] = "mp4",
        of: Annotated[str | None, Query(description="class to explain; attention rollout without")] = None,
    ) -> Response:
        """What the model looks at, as a film or a strip of frames."""
        answer = await work(request, {"do": "explain", "of": of}, f".{format}")
        return Response(answer, media_type=_KINDS[format])


def _add_page(app: FastAPI, samples: Samples) -> None:
    page = _PAGE.read_text(encoding="utf-8")
    policy = _policy(page)

    @app.get("/healthz", dependencies=[_only()])
    async def healthz() -> Health:
        """Whether the server is up."""
        return Health()

    @app.get("/samples", dependencies=[_only()])
    async def list_samples() -> list[str]:
        """Names of the videos that the page offers."""
        return samples.names

    anything: dict[str, Any] = {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}

    @app.get(
        "/samples/{name}",
        response_class=Response,
        dependencies=[_only()],
        responses={200: anything, **_problems(404)},
    )
    def sample(name: str) -> Response:
        """One of them."""
        return samples.answer(name)

    html: dict[str, Any] = {"content": {"text/html": {"schema": {"type": "string"}}}}

    @app.get("/", response_class=Response, responses={200: html}, dependencies=[_only()])
    async def show_page() -> Response:
        """The page."""
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})


def _policy(page: str) -> str:
    """What the page may load: its own script and style, known by their hashes, and what it asks this server for."""
    hashes = {
        tag: " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        )
        for tag in ("script", "style")
    }
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; img-src data:; "
        "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": _WHY[status]} for status in statuses}


def _only(*names: str) -> Any:
    """A dependency: refuse parameters of other names, and more than one of a name."""

    async def check(request: Request) -> None:
        for name in request.query_params:
            if name not in names:
                allowed = f"one of: {', '.join(names)}" if names else "none at all"
                raise Refusal(422, f"{printable(name[:100])}: no such parameter; there is {allowed}")
            if len(request.query_params.getlist(name)) > 1:
                raise Refusal(422, f"{name}: is given more than once")

    return Depends(check)


def _json(content: bytes) -> Response:
    return Response(content, media_type=Json.media_type)


async def _while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of some work, which is cancelled once the client is gone. Raises ClientLeft then."""

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(leave())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        return await working
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


def _reason(error: Exception, video: Video) -> Refusal:
    """Why a job has no answer, for the client; what is the server's own fault is logged."""
    if isinstance(error, WorkerLost):
        return Refusal(504, f"{video.name}: {error}")
    if isinstance(error, Unavailable):
        logger.error("no worker can be started: %s", error)
        return busy(f"the server can't start a worker: {error}")
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in FULL_DISK:
        return busy("the server's disk is full")
    message = " ".join(str(error).replace(str(video.path), video.name).replace(tempfile.gettempdir(), "").split())
    if isinstance(cause, VideoError | ValueError | JobError):
        return Refusal(422, printable(message))
    logger.error("a request failed", exc_info=error)
    return Refusal(500, f"the server failed: {printable(message)}")


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail), error.headers)


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = (f"{each['loc'][-1]}: {each['msg']}, not {reprlib.repr(each['input'])}" for each in error.errors())
    return problem(422, "; ".join(problems))
