"""Keeps exactly one webhook of ours in MLflow."""

import hashlib
from typing import Any

from app.adapters.mlflow_registry.rest import DOES_NOT_EXIST, INVALID, ApiError, Rest, Row
from app.adapters.mlflow_registry.views import rows, text
from app.domain.errors import Fault, Transient

NAME = "headgate"
EVENTS = (
    ("REGISTERED_MODEL", "CREATED"),
    ("MODEL_VERSION", "CREATED"),
    ("MODEL_VERSION_TAG", "SET"),
    ("MODEL_VERSION_TAG", "DELETED"),
    ("MODEL_VERSION_ALIAS", "CREATED"),
    ("MODEL_VERSION_ALIAS", "DELETED"),
)
_NEW_KEY = (
    "If this goes on, MLflow may have lost the key of its stored webhooks: give it a fixed "
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY, the former one or a new one after emptying its table `webhooks`."
)
_ALLOW = (
    "MLflow sends only to public https:// addresses unless its server has MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https "
    "and MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true. Without the webhook Headgate sees changes at its next poll."
)


def ensure_webhook(rest: Rest, url: str, secret: str) -> bool:
    """See that MLflow has one active webhook named `headgate` with this URL and secret; True if one was made.

    Two that do this at once may make two: both keep the older one the next time.
    """
    made = False
    ours = _ours(rest)
    if not any(_fits(hook, url, secret) for hook in ours):
        _create(rest, url, secret)
        made, ours = True, _ours(rest)
    # The new one is there before the old ones go, so that no event falls between them.
    fitting = [hook for hook in ours if _fits(hook, url, secret)]
    if not fitting:
        raise Transient(
            "MLflow's webhook was deleted while it was made.", f"See that only one Headgate calls its webhook {NAME!r}."
        )
    kept = text(min(fitting, key=_age), "webhook_id")
    for webhook_id in {text(hook, "webhook_id") for hook in ours} - {kept}:
        _delete(rest, webhook_id)
    return made


def _ours(rest: Rest) -> list[Row]:
    try:
        return [hook for page in rest.pages("webhooks", "webhooks", 1000) for hook in page if hook.get("name") == NAME]
    except Transient as error:
        raise Transient(error.reason, f"{error.remedy} {_NEW_KEY}") from error


def _create(rest: Rest, url: str, secret: str) -> None:
    body = {
        "name": NAME,
        "url": url,
        "secret": secret,
        "description": _description(url, secret),
        "events": [{"entity": entity, "action": action} for entity, action in EVENTS],
        "status": "ACTIVE",
    }
    try:
        rest.send("POST", "webhooks", body)
    except ApiError as error:
        if error.code != INVALID:
            raise
        raise Fault(error.reason, _ALLOW) from error


def _delete(rest: Rest, webhook_id: str) -> None:
    try:
        rest.send("DELETE", f"webhooks/{webhook_id}", {})
    except ApiError as error:
        if error.code != DOES_NOT_EXIST:
            raise


def _fits(hook: Row, url: str, secret: str) -> bool:
    events = {(event.get("entity"), event.get("action")) for event in rows(hook, "events")}
    active = hook.get("status") == "ACTIVE" and events == set(EVENTS)
    return active and hook.get("url") == url and hook.get("description") == _description(url, secret)


def _age(hook: Row) -> tuple[int, Any]:
    return int(hook.get("creation_timestamp", 0)), hook.get("webhook_id")


def _description(url: str, secret: str) -> str:
    # MLflow never shows a secret again, so a mark of it stands where we can read it. Everybody can: the hash is slow,
    # and short enough that many secrets share one.
    mark = hashlib.pbkdf2_hmac("sha256", secret.encode(), f"headgate webhook {url}".encode(), 200_000).hex()[:8]
    return f"Wakes Headgate. Made by Headgate, which also deletes it. Secret {mark}."
