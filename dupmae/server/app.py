"""The app: all routes, and around them what guards and observes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from dupmae import __version__
from dupmae.server import page, routes, write_routes
from dupmae.server.body import LimitedBody
from dupmae.server.failures import add_handlers
from dupmae.server.guard import Guard
from dupmae.server.indexes import ServedIndex
from dupmae.server.keys import ApiKeys
from dupmae.server.observe import Observed
from dupmae.server.service import Service
from dupmae.server.settings import ServerSettings


def create_app(
    indexes: Sequence[ServedIndex],
    settings: ServerSettings,
    keys: ApiKeys,
    *,
    page_folder: Path = page.PAGE_FOLDER,
) -> ASGIApp:
    """Return the app that serves open indexes, the first one by default; it closes them."""
    service = Service(indexes, settings)
    app = FastAPI(
        title="DupMAE Search",
        summary="Hybrid search that returns exactly what the model says.",
        version=__version__,
        docs_url=None,  # these two pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.service = service
    app.state.page = page.read_page(page_folder)
    app.include_router(page.router)
    app.include_router(routes.router)
    if settings.writable:
        app.include_router(write_routes.router)
    add_handlers(app)
    guarded: ASGIApp = Guard(LimitedBody(app, settings), settings, keys)
    if settings.cors:
        guarded = CORSMiddleware(
            guarded,
            allow_origins=settings.cors,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After"],
        )
    return Observed(guarded, service.metrics)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.start()
    try:
        yield
    finally:
        service.close()
