"""The queue between nodes and their database: Celery over Valkey, Redis or SQS.

A message may be lost, doubled or late: the ledger in the database decides what has arrived, and shippers send
the rest again. So nothing here tries to be exactly once, and no result is kept.
"""

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from django.conf import settings
from kombu.entity import Queue

from telemetry.parameters import KEEP_S, ShipperParameters

QUEUE = "usage"
TASK = "telemetry.carry"
KEEPER = "telemetry.keep"
VISIBILITY_S = 120
"""What was taken and not acknowledged comes again after so long; the shipper sends it again before."""
LONG_POLL_S = 10  # fewer requests to pay for; kombu gives up a request after 20 s


def broker_options(url: str, *, region: str, timeout_s: float) -> dict[str, Any]:  # Any: kombu's own shape
    """Return the transport options for a queue at *url*."""
    if urlsplit(url).scheme != "sqs":
        return {
            "visibility_timeout": VISIBILITY_S,
            "global_keyprefix": "tb:queue:",  # the server may be tier 2 as well
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
        }
    return {
        "visibility_timeout": VISIBILITY_S,
        "queue_name_prefix": "trinity-",
        "wait_time_seconds": LONG_POLL_S,
        "polling_interval": 0,
        "sqs_base64_encoding": False,  # the body is in base64 already
        "is_secure": not is_loopback(urlsplit(url).hostname),
        **({"region": region} if region else {}),
        # One try: who sends tries again by itself, and who receives is started again.
        "client-config": {
            "connect_timeout": timeout_s,
            "read_timeout": timeout_s,
            "retries": {"total_max_attempts": 1},
        },
    }


def is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def make_app(url: str, *, region: str = "", timeout_s: float = 5.0) -> Celery:
    app = Celery("trinity_site", broker=url, include=["telemetry.tasks"])
    app.conf.update(
        broker_transport_options=broker_options(url, region=region, timeout_s=timeout_s),
        # A connection that was lost ends the worker, and the supervisor starts another one: a process that
        # begins anew has no state that a reconnection could get wrong.
        broker_connection_retry=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_limit=1,
        task_queues=[Queue(QUEUE)],  # type: ignore[no-untyped-call]  # kombu has no types here
        task_default_queue=QUEUE,
        task_create_missing_queues=False,
        task_serializer="msgpack",
        accept_content=["msgpack", "json"],
        task_ignore_result=True,
        result_expires=None,
        task_publish_retry=False,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        beat_schedule={
            "keep": {"task": KEEPER, "schedule": KEEP_S, "options": {"queue": QUEUE, "expires": KEEP_S}}
        },
        timezone="UTC",
    )
    return app


def publish_to(app: Celery, document: bytes) -> None:
    """Publish one envelope; blocks for the queue's timeout at most, and raises whatever its client does."""
    # Celery would write the arguments out in the headers once more.
    app.send_task(TASK, (document,), queue=QUEUE, argsrepr="", kwargsrepr="")


app = make_app(
    settings.CELERY_BROKER_URL,
    region=settings.AWS_REGION,
    timeout_s=ShipperParameters().sqs_timeout_ms / 1000,
)
