"""What all kinds share: the base model, references and object metadata."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

# A Kubernetes structure that is passed on as it stands; the API server checks it in the Job.
Passthrough = Annotated[
    dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})
]
ObjectName = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
# Short enough for a label's value, and for the names of place-holders.
NodeGroupName = Annotated[
    str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
Parameters = dict[str, JsonValue]


class Model(BaseModel):
    """A frozen structure with the API's camelCase names.

    Unknown fields are ignored: the API server has pruned or refused them already, and an object
    stored by a newer version must still be readable.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def wire(self) -> dict[str, Any]:
        """Return the structure as it goes to the API server, without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def but(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced."""
        return self.model_copy(update=changes)


class LocalRef(Model):
    """Names an object of the same namespace."""

    name: ObjectName


class Metadata(Model):
    """The parts of an object's metadata that decisions use."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Condition(Model):
    """One aspect of an object's state, in the shape of metav1.Condition."""

    type: Annotated[str, Field(max_length=316)]
    status: Annotated[str, Field(pattern="^(True|False|Unknown)$")]
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    message: Annotated[str, Field(max_length=32768)]
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    observed_generation: int | None = None
