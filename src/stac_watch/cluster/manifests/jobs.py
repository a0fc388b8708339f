"""What runs by the clock beside the audit: copies of a SQLite ledger, and the removal of Workflows that are over.

Copies have a volume of their own, which the ledger's disk never pays for; a ledger in PostgreSQL has the backups of its server.
"""

from __future__ import annotations

from typing import Any

from stac_watch.cluster.manifests import pods
from stac_watch.cluster.manifests.events import account
from stac_watch.cluster.manifests.pod_values import BackupValues, CleanupValues
from stac_watch.cluster.manifests.settings import (
    CLEANUP,
    CONFIG_FILE,
    CONFIG_FOLDER,
    NO_API,
    POLLER,
    STATE_FOLDER,
    TMP,
    Object,
    Settings,
    container_security,
    kept,
    labels,
    meta,
    pod_security,
)
from stac_watch.cluster.manifests.tree import given, when
from stac_watch.cluster.manifests.values import AccountValues
from stac_watch.runs.workflow import GROUP

BACKUP, FOLDER = "stac-watch-backup", "/var/lib/stac-watch-backup"
_CONFIG = f"--config={CONFIG_FOLDER}/{CONFIG_FILE}"


def backup(settings: Settings) -> list[Object]:
    """Returns the claim and the CronJob; nothing where no size was asked for, or the ledger is in PostgreSQL."""
    values = settings.values.backup
    claims = {"state": POLLER, "backup": BACKUP}
    job = _schedule(
        BACKUP, settings, values,
        account=NO_API,
        arguments=["ledger", "backup", FOLDER, settings.copies, _CONFIG],
        mounts=[{"name": "state", "mountPath": STATE_FOLDER}, {"name": "backup", "mountPath": FOLDER}],
        volumes=[{"name": name, "persistentVolumeClaim": {"claimName": claim}} for name, claim in claims.items()],
        placed=pods.place(settings, values, {"podAffinity": pods.beside_poller()}),
    )  # fmt: skip
    chosen = given({"storageClassName": settings.backup_class})
    claim = {"accessModes": ["ReadWriteOnce"], **chosen, "resources": {"requests": {"storage": values.size}}}
    volume = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": kept(BACKUP, settings), "spec": claim}
    return when(settings.copied, volume, job)


def cleanup(settings: Settings) -> list[Object]:
    """Returns the CronJob that removes Workflows which are over, and its account; nothing where no time was given."""
    values = settings.values.cleanup
    rules = [
        ([GROUP], ["workflows"], ["get", "list", "delete"]),
        ([""], ["persistentvolumeclaims"], ["get", "list", "patch", "delete"]),
        ([""], ["pods"], ["get", "list"]),
    ]
    age = f"--older-than={values.older_than}"
    job = _schedule(
        CLEANUP, settings, values,
        account=CLEANUP, arguments=["cluster", "clean", "--yes", age, _CONFIG], mounts=[], volumes=[],
        placed=pods.place(settings, values),
    )  # fmt: skip
    return when(values.schedule, *account(CLEANUP, settings, AccountValues(), rules), job)


def _schedule(
    name: str, settings: Settings, values: BackupValues | CleanupValues, *, account: str, arguments: list[str],
    mounts: list[Object], volumes: list[Object], placed: Object,
) -> Object:  # fmt: skip
    container: Object = {
        "name": name.removeprefix("stac-watch-"),
        "image": settings.poller_image,
        "imagePullPolicy": settings.values.images.pull_policy,
        "command": ["stac-watch"],
        "args": arguments,
        "env": [
            {"name": "HOME", "value": TMP},
            {"name": "STAC_WATCH__ENGINE__NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            *pods.environment(settings, values),
        ],
        "resources": values.resources,
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER},
            {"name": "tmp", "mountPath": TMP},
            *mounts,
            *pods.mounts(settings, values),
        ],
    }
    pod: Object = {
        "restartPolicy": "Never",
        "serviceAccountName": account,
        "securityContext": pod_security(settings),
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": POLLER}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
            *volumes,
            *pods.volumes(settings, values),
        ],
        **placed,
        **pods.spread(values),
    }
    job: dict[str, Any] = {
        "backoffLimit": 1,
        "activeDeadlineSeconds": 3600,
        "template": {"metadata": pods.carried(labels(name), values), "spec": pod},
    }
    spec = {
        "schedule": values.schedule,
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"spec": job},
    }
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta(name, settings), "spec": spec}
