"""The page and the HTTP API of `timesformer serve`: classify and explain videos that are sent to it."""

from __future__ import annotations

import logging
import queue
import re
import reprlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import FastAPI, File, HTTPException, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from timesformer import __version__
from timesformer.app.worker import Pool, Unavailable, make_classifier
from timesformer.video.decode import VideoError, is_video_path
from timesformer.workers import JobError, Worker, WorkerLost

Video = Annotated[UploadFile, File(description="a video in whatever format FFmpeg reads, or a GIF")]

logger = logging.getLogger(__name__)


class Problem(BaseModel):
    """Why a request is not answered."""

    error: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": why}
    for status, why in {
        413: "The upload is too large.",
        422: "Not readable as a video, too long, or a request that is not as described.",
        500: "The server failed.",
        503: "Too many requests wait already: try again after `Retry-After` seconds.",
        504: "The video took too long, or more than a process can stand.",
    }.items()
}
_PAGE = Path(__file__).parent / "page.html"


@dataclass(frozen=True)
class Limits:
    """What a server takes upon itself.

    Attributes:
        megabytes: of an upload.
        duration: of a video, in seconds.
        waiting: requests that wait for a worker, at most.
        seconds: that a request's work may take.
    """

    megabytes: float = 200
    duration: float = 3600
    waiting: int = 8
    seconds: float = 120


def create_app(
    source: str,
    *,
    options: dict[str, Any] | None = None,
    limits: Limits | None = None,
    workers: int = 1,
    threads: int = 1,
    samples: Path | None = None,
) -> FastAPI:
    """The application.

    Args:
        source, options: the model, as `VideoClassifier.from_pretrained` takes it.
        limits: see `Limits`.
        workers: processes that each hold the model and do one request at a time.
        threads: of each.
        samples: folder of videos that the page offers.
    """
    limits = limits or Limits()
    arguments = (source, options or {}, limits.duration, threads)
    pool = Pool([Worker(make_classifier, arguments) for _ in range(workers)], limits.waiting)
    files = [path for path in sorted(samples.iterdir()) if path.is_file() and is_video_path(path)] if samples else []
    offered = {path.name: path for path in files}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # A request that waits holds a thread; there are some left to refuse others by.
        to_thread.current_default_thread_limiter().total_tokens = workers + limits.waiting + 16
        pool.start()
        try:
            yield
        finally:
            pool.stop()

    app = FastAPI(title="timesformer", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.pool = pool
    app.add_middleware(_Bounded, largest=int(limits.megabytes * 2**20))

    def work(upload: UploadFile, job: dict[str, Any]) -> Any:
        with _kept(upload) as path:
            try:
                return pool.run({**job, "path": str(path)}, limits.seconds)
            except queue.Full:
                raise HTTPException(503, "too many requests wait already", {"Retry-After": "5"}) from None
            except JobError as error:
                if not isinstance(error.__cause__, VideoError | ValueError | JobError):
                    logger.exception("a request failed")
                    raise HTTPException(500, f"the server failed: {error}") from None
                message = str(error).replace(str(path), upload.filename or "the video")
                raise HTTPException(422, message) from None
            except WorkerLost as error:
                raise HTTPException(504, f"the video {error}") from None
            except Unavailable as error:
                logger.exception("no worker can be started")
                raise HTTPException(500, f"the server can't start a worker: {error}") from None

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the server is up."""
        return {"status": "ok", "version": __version__}

    @app.post("/predict", responses=_PROBLEMS)
    def predict(video: Video, top: Annotated[int, Query(ge=1)] = 5) -> JSONResponse:
        """The classes of highest score, best first; the duration in seconds; how many clips would cover it."""
        return JSONResponse(work(video, {"do": "predict", "top": top}))

    @app.post("/explain", response_class=Response, responses=_PROBLEMS)
    def explain(
        video: Video,
        format: Literal["mp4", "gif", "png"] = "mp4",
        of: Annotated[str | None, Query(description="class that is asked for; attention rollout without")] = None,
    ) -> Response:
        """What the model looks at, as a film or a strip of frames."""
        kind = {"mp4": "video/mp4", "gif": "image/gif", "png": "image/png"}[format]
        return Response(work(video, {"do": "explain", "suffix": f".{format}", "of": of}), media_type=kind)

    @app.post("/timeline", responses=_PROBLEMS)
    def timeline(video: Video, threshold: Annotated[float, Query(ge=0, le=1)] = 0.5) -> JSONResponse:
        """Scores over the time of a video, clip by clip, and the segments above a threshold."""
        return JSONResponse({**work(video, {"do": "timeline", "threshold": threshold}), "video": video.filename})

    @app.get("/samples")
    def list_samples() -> list[str]:
        """Names of the videos that the page offers."""
        return list(offered)

    @app.get("/samples/{name}")
    def sample(name: str) -> FileResponse:
        """One of them."""
        if name not in offered:
            raise HTTPException(404, "there is no such sample")
        return FileResponse(offered[name])

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        """The page."""
        return _PAGE.read_text(encoding="utf-8")

    @app.exception_handler(StarletteHTTPException)
    async def told(request: Request, error: StarletteHTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def not_as_described(request: Request, error: RequestValidationError) -> JSONResponse:
        problems = (f"{each['loc'][-1]}: {each['msg']}, not {reprlib.repr(each['input'])}" for each in error.errors())
        return JSONResponse({"error": "; ".join(problems)}, 422)

    return app


@contextmanager
def _kept(upload: UploadFile) -> Iterator[Path]:
    """The upload as a file in a folder of its own, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="timesformer-") as folder:
        name = re.sub(r"[^\w.-]", "_", upload.filename or "")[-60:].lstrip(".")
        path = Path(folder) / (name or "video")
        with path.open("wb") as file:
            shutil.copyfileobj(upload.file, file)
        yield path


class _Bounded:
    """Refuses a body as soon as it is seen to be too large, however it is sent."""

    def __init__(self, app: ASGIApp, largest: int) -> None:
        self.app, self.largest = app, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        told = next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
        seen = 0
        refused = told > self.largest

        async def counted() -> Message:
            nonlocal seen, refused
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.largest:
                refused = True
                return {"type": "http.disconnect"}
            return message

        started = False

        async def once(message: Message) -> None:
            nonlocal started
            if not refused:
                started = True
                await send(message)

        if not refused:
            try:
                await self.app(scope, counted, once)
            except Exception:
                if not refused:
                    raise
        if refused and not started:
            answer = JSONResponse({"error": f"at most {self.largest / 2**20:g} MB are allowed"}, 413)
            await answer(scope, receive, send)
