"""The pages for browsers: GET /ui, where GET / leads, GET /docs, and the files that they load.

They hold nothing of the models and are public: each asks for the key itself, where there are keys.
"""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

# Whatever else a page may come to hold, it loads, runs and asks nothing but this server's own.
# blob: pictures that were drawn; data: those inside of Swagger UI's style.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked for again each time, and answered 304 where it is the same.
    "Cache-Control": "no-cache",
}
# By suffix; not left to the machine's own table, as nosniff forbids a browser to know better.
_MEDIA = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_FOLDER = Path(str(files("service"))) / "static"
_NAMES = frozenset(
    path.relative_to(_FOLDER).as_posix()
    for path in _FOLDER.rglob("*")
    if path.suffix in _MEDIA and path.suffix != ".html"
)
_PREFIX = "/static/"
# What anybody may get. The description names no model to those who show no key.
PUBLIC_PATHS = frozenset(
    ("/", "/ui", "/docs", "/openapi.json", *(f"{_PREFIX}{name}" for name in _NAMES))
)


def page_router() -> APIRouter:
    """Make the routes for browsers."""
    router = APIRouter(include_in_schema=False)
    static = StaticFiles(directory=_FOLDER)

    async def answer(name: str, request: Request) -> Response:
        given = await static.get_response(name, request.scope)
        given.headers.update({**_HEADERS, "Content-Type": _MEDIA[Path(name).suffix]})
        return given

    @router.get("/")
    async def start() -> RedirectResponse:
        return RedirectResponse("ui", headers=_HEADERS)

    @router.get("/ui")
    async def page(request: Request) -> Response:
        return await answer("index.html", request)

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        return await answer("docs.html", request)

    @router.get(f"{_PREFIX}{{name:path}}")
    async def file(name: str, request: Request) -> Response:
        if name not in _NAMES:
            raise HTTPException(404)
        return await answer(name, request)

    return router
