"""The MCP server at `/mcp`: streamable HTTP without sessions, with the tools of `music_assets.mcp_server`.

A tool sends its request to the service in the same process, in the name of the caller of `/mcp`. So the same routes,
sandbox and queue serve it, and the middleware counts and logs one request.
"""

from contextlib import AbstractAsyncContextManager

import anyio
import httpx
from mcp.server.mcpserver import Context
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from music_assets.mcp_server import MAX_ANSWER_BYTES, build_server

INNER_URL = "http://service"
SHARED_STATE = ("caller", "request_id", "log_fields", "cleanup", "started")
"""What a tool's request has in common with the request to `/mcp`, by name in the state of the request."""


class McpEndpoint:
    """The endpoint `/mcp`, for the service that answers the requests of its tools."""

    def __init__(self, service: ASGIApp) -> None:
        self.route = Route("/mcp", self, methods=["POST"])
        self._service = service
        self._server = build_server(self._connect)
        # The service's middleware has checked the host, the origin and the size of the request.
        self._server.streamable_http_app(stateless_http=True, host="")

    def run(self) -> AbstractAsyncContextManager[None]:
        """Return a context in which the endpoint can be used, once."""
        return self._server.session_manager.run()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope["route"] = self.route  # for the access log and the metrics, as FastAPI's routes do
        manager: StreamableHTTPSessionManager = self._server.session_manager
        await manager.handle_request(scope, receive, send)

    def _connect(self, context: Context) -> httpx.AsyncClient:
        outer = context.request_context.request
        if outer is None:
            raise RuntimeError("A tool was called without a request")
        transport = _InnerTransport(self._service, outer.scope)
        return httpx.AsyncClient(base_url=INNER_URL, transport=transport, trust_env=False)


class _InnerTransport(httpx.AsyncBaseTransport):
    """Sends requests to an ASGI application in the name of the caller of another request.

    Of a response that is too large for a tool, whose Content-Length says so, the rest is dropped.
    """

    def __init__(self, service: ASGIApp, outer: Scope) -> None:
        self._service = service
        self._outer = outer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the response."""
        body = await request.aread()
        unsent: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        start: Message = {}
        content = bytearray()

        async def receive() -> Message:
            if not unsent:
                await anyio.sleep_forever()  # if the client of /mcp leaves, the tool is cancelled
            return unsent.pop()

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif len(content) <= MAX_ANSWER_BYTES:
                content.extend(message.get("body", b""))

        scope = {
            **{name: self._outer[name] for name in ("type", "asgi", "http_version", "scheme", "client", "server")},
            "method": request.method,
            "path": request.url.path,
            "raw_path": request.url.raw_path.partition(b"?")[0],
            "query_string": request.url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "state": {name: self._outer["state"][name] for name in SHARED_STATE},
        }
        await self._service(scope, receive, send)
        return httpx.Response(start["status"], headers=start["headers"], content=bytes(content))
