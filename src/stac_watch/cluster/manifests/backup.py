"""The nightly backup of a SQLite ledger: a CronJob with a volume of its own, which the ledger's disk never pays for.

A ledger in PostgreSQL has the backups of its server, so the overlay `production` takes it out again.
"""

from __future__ import annotations

import yaml

from stac_watch.cluster.manifests.audit import beside_poller
from stac_watch.cluster.manifests.settings import (
    CONFIG_FILE,
    CONFIG_FOLDER,
    NO_API,
    POLLER,
    STATE_FOLDER,
    TMP,
    Object,
    Settings,
    container_security,
    labels,
    meta,
    pod_security,
)

BACKUP, FOLDER, KEEP = "stac-watch-backup", "/var/lib/stac-watch-backup", 3


def backup(settings: Settings) -> list[Object]:
    """Returns the claim and the CronJob; nothing where no size was asked for."""
    if not settings.backup:
        return []
    mounts = {"config": CONFIG_FOLDER, "state": STATE_FOLDER, "backup": FOLDER, "tmp": TMP}
    container = {
        "name": "backup",
        "image": settings.poller_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["stac-watch"],
        "args": ["ledger", "backup", FOLDER, f"--keep={KEEP}", f"--config={CONFIG_FOLDER}/{CONFIG_FILE}"],
        "env": [{"name": "HOME", "value": TMP}],
        "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "50m", "memory": "128Mi"}},
        "securityContext": container_security(),
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
    }
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": NO_API,
        "securityContext": pod_security(),
        "affinity": {"podAffinity": beside_poller()},
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": POLLER}},
            {"name": "state", "persistentVolumeClaim": {"claimName": POLLER}},
            {"name": "backup", "persistentVolumeClaim": {"claimName": BACKUP}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
        ],
    }
    job = {
        "backoffLimit": 1,
        "activeDeadlineSeconds": 3600,
        "template": {"metadata": {"labels": labels(BACKUP)}, "spec": pod},
    }
    schedule = {
        "schedule": "41 1 * * *",
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"spec": job},
    }
    chosen = {"storageClassName": settings.storage_class} if settings.storage_class else {}
    claim = {"accessModes": ["ReadWriteOnce"], **chosen, "resources": {"requests": {"storage": settings.backup}}}
    return [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta(BACKUP, settings), "spec": claim},
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta(BACKUP, settings), "spec": schedule},
    ]


def without(settings: Settings) -> list[Object]:
    """Returns kustomize's patches that take it out."""
    gone = [{**each, "$patch": "delete"} for each in backup(settings)]
    return [{"patch": yaml.safe_dump({key: each[key] for key in ("apiVersion", "kind", "metadata", "$patch")})} for each in gone]
