"""The body and the query string of a request for an operation, read into its fields."""

from functools import partial
from typing import Any

from service.codec.json import parse_object, read_object
from service.codec.json_slices import is_large, parse_large
from service.codec.media import JSON, NPY, NPZ, read_content_type
from service.codec.mends import suggest_media
from service.codec.missing import asks_for_null
from service.codec.npy import read_npy, read_npz
from service.codec.parameters import read_query
from service.contracts import Repository
from service.errors import BadDtype, InvalidParameter, MalformedBody, ServiceError
from service.operations import Operation
from service.operations.fields import COLUMNS, CONTEXT, MODEL
from service.operations.model_input import EncodedImage
from service.operations.thread_pool import RequestThreadPool
from service.transport.request import Head


class FieldReader:
    """Reads the fields of requests for one operation.

    Args:
        operation: what it takes.
        repository: for the names of columns in errors.
        threads: for large bodies.
        max_rows, max_body_bytes: of a request.
    """

    def __init__(
        self,
        operation: Operation,
        repository: Repository,
        threads: RequestThreadPool,
        *,
        max_rows: int,
        max_body_bytes: int,
    ) -> None:
        self._operation = operation
        self._repository = repository
        self._threads = threads
        self._max_rows = max_rows
        self._max_body_bytes = max_body_bytes

    def read_media(self, head: Head) -> str:
        """The media type of the body.

        Raises:
            UnsupportedMediaType: the operation does not take it.
        """
        return read_content_type(head.headers.get(b"content-type"), self._operation.media)

    async def read(
        self, media: str, body: bytes | bytearray, query: bytes, deadline: float
    ) -> dict[str, Any]:
        """Collect the fields of body and query; each stands in one of them only.

        Raises:
            InvalidRequest, MalformedBody, TooLarge: they are not what the operation takes.
            Overloaded, DeadlineExceeded: a large body found no thread in time.
        """
        fields = self._read_query(query) if query else {}
        takes_null = asks_for_null(fields)
        try:
            content = await self._read_body(media, body, query, deadline, takes_null=takes_null)
        except MalformedBody as error:
            error.suggest(suggest_media(body, media, self._operation.media))
            raise
        if not query:
            return content
        for name in fields.keys() & content.keys():
            raise InvalidParameter(
                f"{name}: given in the query string and in the body, expected one of them",
                at=f"/{name}",
            )
        return fields | content

    def read_json(self, body: bytes | bytearray, query: bytes = b"") -> dict[str, Any]:
        """Read a body of JSON that is not large.

        Args:
            body: the text.
            query: the query string beside it, for the names of columns in errors.

        Raises:
            InvalidRequest, MalformedBody: it is not what the operation takes.
        """
        try:
            return self._read_json(body, query, takes_null=False)
        except MalformedBody as error:
            error.suggest(suggest_media(body, JSON, self._operation.media))
            raise

    def _read_json(
        self, body: bytes | bytearray, query: bytes, *, takes_null: bool
    ) -> dict[str, Any]:
        if not body and self._operation.tensor is None:
            # `curl -X POST "/sample?num_samples=4"` has no body at all.
            return {}
        try:
            return read_object(body, self._operation.field_names, takes_null=takes_null)
        except BadDtype as error:
            fields = self._find_fields(body, query)
            for field in self._operation.fields:
                if field.name not in (self._operation.tensor_name, CONTEXT.name):
                    field.value(fields)  # a scalar that is none says better what to mend
            error.name_columns(self._find_columns(fields))
            raise

    async def _read_body(
        self,
        media: str,
        body: bytes | bytearray,
        query: bytes,
        deadline: float,
        *,
        takes_null: bool,
    ) -> dict[str, Any]:
        name = self._operation.tensor_name
        if media == JSON:
            if not is_large(body):
                return self._read_json(body, query, takes_null=takes_null)
            parse = partial(
                parse_large,
                body,
                self._max_rows,
                known=self._operation.field_names,
                table=name,
                takes_null=takes_null,
            )
            return await self._threads.run(deadline, parse)
        if media == NPZ:
            members = tuple(filter(None, (name, CONTEXT.name)))
            return await self._threads.run(deadline, read_npz, body, members, self._max_body_bytes)
        if name is None:
            return {}
        return {name: read_npy(body, name) if media == NPY else EncodedImage(media, body)}

    def _read_query(self, query: bytes) -> dict[str, Any]:
        texts = [field.name for field in self._operation.fields if field.is_text]
        return read_query(query, self._operation.query_fields, texts)

    def _find_fields(self, body: bytes | bytearray, query: bytes) -> dict[str, Any]:
        """What can be read of the fields of a body that was refused."""
        try:
            return parse_object(body) | self._read_query(query)
        except ServiceError:
            return {}

    def _find_columns(self, fields: dict[str, Any]) -> tuple[str, ...] | None:
        """Names of the columns of rows that were refused before their model was looked for."""
        try:
            names = COLUMNS.value(fields)
            return names or self._repository.get(MODEL.value(fields)).card.feature_names
        except ServiceError:
            return None
