"""GET /ui: one page to look at the served models; GET / leads there."""

from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import HTMLResponse, RedirectResponse

# The page holds its own script and style and talks to this server only.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def page_router() -> APIRouter:
    """Make the routes for browsers."""
    router = APIRouter(include_in_schema=False)
    html = files("service").joinpath("static", "index.html").read_text("utf-8")

    @router.get("/")
    async def start() -> RedirectResponse:
        return RedirectResponse("ui")

    @router.get("/ui")
    async def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": _POLICY})

    return router
