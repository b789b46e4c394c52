"""The responses match the OpenAPI document, and no request, valid or not, causes a server error."""

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from music_assets_tests.service.conftest import Service

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)

NOT_HTTP = b"Invalid HTTP request received."
"""The response of the HTTP parser to a request that is not HTTP, such as one with a URL of 64 KB."""


def test_responses_match_the_document(service: Service) -> None:
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    operations = [
        result.ok() for result in schema.exclude(path_regex="embedding_job|embedding-runs").get_all_operations()
    ]
    assert len(operations) >= 12
    for operation in operations:
        takes_values = operation.query or operation.path_parameters or operation.body
        for mode in schemathesis.GenerationMode if takes_values else [schemathesis.GenerationMode.POSITIVE]:
            check_operation(service, operation, mode)


def check_operation(service: Service, operation: object, mode: object) -> None:
    strategy = operation.as_strategy(generation_mode=mode)  # type: ignore[attr-defined]

    @settings(max_examples=10, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def run(case: object) -> None:
        response = case.call(base_url=service.url)  # type: ignore[attr-defined]
        if response.content != NOT_HTTP:
            case.validate_response(response, checks=CHECKS)  # type: ignore[attr-defined]

    run()
