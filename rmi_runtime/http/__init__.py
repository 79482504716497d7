"""HTTP: a bounded server, strict reading of requests, and errors as problem documents.

Everything here is about HTTP only and knows neither the bank nor the messages. It is a part of its
own, imported by name, so that a service without HTTP never loads Falcon.
"""

from rmi_runtime.http.answers import JSON_MEDIA_TYPE, Answer
from rmi_runtime.http.app import UNROUTED, App, make_app
from rmi_runtime.http.direct import HeadersByName, direct, headers_of, plain
from rmi_runtime.http.limits import HttpLimits
from rmi_runtime.http.problems import (
    PROBLEM_MEDIA_TYPE,
    HttpProblem,
    invalid,
    malformed,
    phrase,
    problem_of,
)
from rmi_runtime.http.requests import (
    FORM_MEDIA_TYPE,
    IDEMPOTENCY_KEY_PATTERN,
    JsonBody,
    bearer_token,
    check_media_type,
    form_fields,
    idempotency_key,
    query_fields,
    whole_number,
)
from rmi_runtime.http.routes import Operation, Parameter, Route, describe
from rmi_runtime.http.server import HttpServer, listen

__all__ = [
    "FORM_MEDIA_TYPE",
    "IDEMPOTENCY_KEY_PATTERN",
    "JSON_MEDIA_TYPE",
    "PROBLEM_MEDIA_TYPE",
    "UNROUTED",
    "Answer",
    "App",
    "HeadersByName",
    "HttpLimits",
    "HttpProblem",
    "HttpServer",
    "JsonBody",
    "Operation",
    "Parameter",
    "Route",
    "bearer_token",
    "check_media_type",
    "describe",
    "direct",
    "form_fields",
    "headers_of",
    "idempotency_key",
    "invalid",
    "listen",
    "make_app",
    "malformed",
    "phrase",
    "plain",
    "problem_of",
    "query_fields",
    "whole_number",
]
