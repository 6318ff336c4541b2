"""A node without a kubelet: the tests write what a kubelet would."""

import json
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import urllib3

from .api import STRATEGIC, Api, ApiError, Object, until

NODE = "component-node"
BEAT_SECONDS = 10.0
SUCCEEDED = {
    "reason": "Succeeded",
    "message": "3 of 3 cells ran",
    "progress": {"cell": 3, "cells": 3, "name": "Results"},
}
UPLOADED = {
    "uploads": {
        name: {"etag": "e", "bytes": 1}
        for name in ("notebook.ipynb", "notebook.html", "result.json")
    },
    "error": None,
}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Kubelet:
    """Keeps one node alive and writes the status of its pods."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._stopping = threading.Event()
        self._heart = threading.Thread(target=self._beat)

    def start(self) -> None:
        size = {"cpu": "64", "memory": "256Gi", "pods": "1000"}
        status = {"capacity": size, "allocatable": size, "conditions": [_ready()]}
        labels = {"kubernetes.io/hostname": NODE}
        metadata = {"name": NODE, "labels": labels}
        self._api.create(
            {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status}
        )
        self._heart.start()
        until(
            lambda: not (self._api.get("Node", "", NODE) or {})["spec"].get("taints"),
            "the node takes pods",
        )

    def stop(self) -> None:
        self._stopping.set()
        self._heart.join()

    def pod(self, namespace: str, *, seconds: float = 60, **labels: str) -> Object:
        """Wait for a pod with these labels of ours that is bound and has not started."""
        selector = ",".join(f"labfunctions.io/{k}={v}" for k, v in labels.items())

        def bound() -> Object | None:
            pods = [
                pod
                for pod in self._api.list("Pod", namespace, selector)
                if pod["spec"].get("nodeName") and pod["status"].get("phase") == "Pending"
            ]
            return max(pods, key=lambda p: int(p["metadata"]["resourceVersion"]), default=None)

        return until(bound, f"a pod with {selector} is bound", seconds=seconds)

    def run(self, pod: Object) -> None:
        """Say that the containers run."""
        running = {"running": {"startedAt": now()}}
        self.report(pod, "Running", {name: running for name in _names(pod)})

    def finish(
        self,
        pod: Object,
        result: Object | None,
        *,
        exit_code: int = 0,
        reason: str | None = None,
        courier: Object | None = UPLOADED,
        **status: Any,
    ) -> None:
        """Say that the notebook and the courier have ended."""
        self.report(
            pod,
            "Failed" if exit_code else "Succeeded",
            {
                "notebook": terminated(result, exit_code=exit_code, reason=reason),
                "courier": terminated(courier),
            },
            **status,
        )

    def finish_build(self, pod: Object, message: Object, *, container: str = "build") -> None:
        """Say that a build has ended, with what its container left behind."""
        failed = "error" in message
        end = terminated(message, exit_code=1 if failed else 0)
        states = {"source": terminated(None), "build": {"waiting": {"reason": "PodInitializing"}}}
        self.report(pod, "Failed" if failed else "Succeeded", {**states, container: end})

    def report(self, pod: Object, phase: str, states: Object, **status: Any) -> None:
        spec = pod["spec"]
        images = {c["name"]: c["image"] for c in (*spec["initContainers"], *spec["containers"])}
        inits = {c["name"] for c in spec["initContainers"]}
        described = [
            {
                "name": name,
                "state": state,
                "ready": "running" in state,
                "restartCount": 0,
                "image": images[name],
                "imageID": "",
            }
            for name, state in states.items()
        ]
        change = {
            "phase": phase,
            "startTime": now(),
            "initContainerStatuses": [d for d in described if d["name"] in inits],
            "containerStatuses": [d for d in described if d["name"] not in inits],
            **status,
        }
        metadata = pod["metadata"]
        self._api.patch(
            "Pod",
            metadata["namespace"],
            metadata["name"],
            {"status": change},
            subresource="/status",
            content_type=STRATEGIC,
        )

    def remove(self, pod: Object) -> None:
        """Let a pod go that was asked to end, or tear it away."""
        with suppress(ApiError):
            self._api.delete("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"], grace=0)

    def _beat(self) -> None:
        while not self._stopping.wait(BEAT_SECONDS):
            # The API server may be away for a while: some tests restart it.
            with suppress(ApiError, urllib3.exceptions.HTTPError):
                self._api.patch(
                    "Node",
                    "",
                    NODE,
                    {"status": {"conditions": [_ready()]}},
                    subresource="/status",
                    content_type=STRATEGIC,
                )


def terminated(message: Object | None, *, exit_code: int = 0, reason: str | None = None) -> Object:
    state = {
        "exitCode": exit_code,
        "reason": reason or ("Error" if exit_code else "Completed"),
        "startedAt": now(),
        "finishedAt": now(),
    }
    if message is not None:
        state["message"] = json.dumps(message)
    return {"terminated": state}


def _ready() -> Object:
    return {
        "type": "Ready",
        "status": "True",
        "reason": "Test",
        "lastHeartbeatTime": now(),
        "lastTransitionTime": now(),
    }


def _names(pod: Object) -> list[str]:
    spec = pod["spec"]
    return [c["name"] for c in (*spec["initContainers"], *spec["containers"])]
