"""What a courier may do: upload to its own keys and report its own progress, by signed URLs.

The store's signatures end; ours do not, but are good for nothing once the attempt is over.
"""

import hashlib
import hmac

from labfunctions_operator.api.run import Outputs, Run
from labfunctions_operator.api.types import Metadata
from labfunctions_operator.desired.names import FILES, attempt_prefix
from labfunctions_operator.desired.run_job import Grant
from labfunctions_operator.desired.run_pod import GRACE_SECONDS
from labfunctions_operator.providers.store import Store
from labfunctions_operator.reconcile.plan import Key

# A pod may wait for a node before the notebook's own time begins; one that waits longer asks anew.
PENDING_SECONDS = 86400


class Grants:
    """Signs what one attempt needs.

    Args:
        store: Where results go.
        url: The operator's address for reports.
        key: Signs reports; any bytes kept secret.
    """

    def __init__(self, store: Store, url: str, key: bytes) -> None:
        self._store = store
        self._url = url.rstrip("/")
        self._key = key

    def grant(
        self, run: Run, *, project: str, workflow: str | None, attempt: int, timeout: int
    ) -> Grant:
        """Sign for one attempt of a Run; local, no request is made."""
        meta = run.metadata
        prefix = _prefix(run, project, workflow, attempt)
        expires = timeout + PENDING_SECONDS + GRACE_SECONDS
        whose = f"{meta.namespace}/{meta.name}/{meta.uid}/{attempt}"
        return Grant(
            uploads={
                file: self._store.sign_put(f"{prefix}/{file}", expires=expires)
                for file in FILES.values()
            },
            report=self._signed(f"/v1/reports/{whose}"),
            renew=self._signed(f"/v1/uploads/{whose}"),
            outputs=self.outputs(run, project=project, workflow=workflow, attempt=attempt),
        )

    def outputs(self, run: Run, *, project: str, workflow: str | None, attempt: int) -> Outputs:
        """Say where the files of an attempt will lie."""
        prefix = _prefix(run, project, workflow, attempt)
        return Outputs.model_validate(
            {name: self._store.uri(f"{prefix}/{file}") for name, file in FILES.items()}
        )

    def claim_url(self, workflow: Metadata) -> str:
        """Return where the Jobs of a Workflow's CronJob ask for their grant; always the same."""
        return self._signed(f"/v1/claims/{workflow.namespace}/{workflow.name}/{workflow.uid}")

    def claimant(self, path: str, signature: str) -> tuple[Key, str] | None:
        """Return the Workflow and uid that a claim's URL was signed for, if it was."""
        if not hmac.compare_digest(self._sign(path).encode(), signature.encode()):
            return None
        namespace, name, uid = path.split("/")[3:6]
        return Key("Workflow", namespace, name), uid

    def attempt_of(self, path: str, signature: str) -> tuple[Key, str, int] | None:
        """Return the Run, uid and attempt that a URL was signed for, if it was."""
        if not hmac.compare_digest(self._sign(path).encode(), signature.encode()):
            return None
        namespace, name, uid, attempt = path.split("/")[3:7]
        return Key("Run", namespace, name), uid, int(attempt)

    def _signed(self, path: str) -> str:
        return f"{self._url}{path}?signature={self._sign(path)}"

    def _sign(self, path: str) -> str:
        return hmac.new(self._key, path.encode(), hashlib.sha256).hexdigest()


def _prefix(run: Run, project: str, workflow: str | None, attempt: int) -> str:
    meta = run.metadata
    return attempt_prefix(
        namespace=meta.namespace,
        project=project,
        workflow=workflow,
        run=meta.name,
        uid=meta.uid,
        attempt=attempt,
    )
