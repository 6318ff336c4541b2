"""Names shared by manifests, caches and users' selectors."""

GROUP = "labfunctions.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FIELD_MANAGER = "labfunctions"

NAME = "app.kubernetes.io/name"
COMPONENT = "app.kubernetes.io/component"
PART_OF = "app.kubernetes.io/part-of"
MANAGED_BY = "app.kubernetes.io/managed-by"

PROJECT = f"{GROUP}/project"
WORKFLOW = f"{GROUP}/workflow"
RUN = f"{GROUP}/run"
BACKFILL = f"{GROUP}/backfill"
ATTEMPT = f"{GROUP}/attempt"
RUNTIME = f"{GROUP}/runtime"
NODE_GROUP = f"{GROUP}/node-group"
JOB_NAME = "batch.kubernetes.io/job-name"

SNAPSHOT_ANNOTATION = f"{GROUP}/snapshot"
OUTPUTS_ANNOTATION = f"{GROUP}/outputs"
RELEASING_ANNOTATION = f"{GROUP}/releasing"
KEPT_ANNOTATION = f"{GROUP}/kept"
BOUNDS_ANNOTATION = f"{GROUP}/bounds"
PULLS_ANNOTATION = f"{GROUP}/pulls"
BUILD_ANNOTATION = f"{GROUP}/build"
SCHEDULED_AT_ANNOTATION = f"{GROUP}/scheduled-at"
TIME_ZONE_ANNOTATION = f"{GROUP}/time-zone"
REPAIRED_ANNOTATION = f"{GROUP}/repaired"
STARTED_BY_ANNOTATION = f"{GROUP}/started-by"

COMPONENT_RUN = "run"
COMPONENT_BUILD = "build"
COMPONENT_PLACEHOLDER = "placeholder"


def common(name: str, component: str) -> dict[str, str]:
    """Return the recommended labels for a child object."""
    return {
        NAME: name,
        COMPONENT: component,
        PART_OF: "labfunctions",
        MANAGED_BY: "labfunctions-operator",
    }
